"""kill -9 during an export of chips: the same call goes on and ends with the same folder."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.transform import from_origin

from geodl.formats import open_export, validate_export
from geodl.formats.images import IMAGE_SUFFIXES, read_image
from geodl.tools.export_training_data import export_training_data

Ended = Callable[..., int | None]

SIZE = 160
MODES = ["CycleGAN", "COCO_rectangles", "COCO_instances", "RCNN_Masks"]
# Killed where a file that is written is about to get its name; the last word says which.
SCRIPT = """
import os
from geodl.tools.export_training_data import export_training_data
replace, left = os.replace, int(sys.argv.pop())
def killed(source, target):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), 9)
    replace(source, target)
os.replace = killed
mode, raster, labels, second, output = sys.argv[1:]
export_training_data(raster, labels or None, metadata_format=mode, tile_size=32, stride_size=20,
    progress=False, output_location=output, block_size=24, additional_input_raster=second or None)
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(4)
    for name, bands, size in (("scene", 3, SIZE), ("other", 1, SIZE - 30)):
        with rasterio.open(
            folder / f"{name}.tif", "w", driver="GTiff", count=bands, height=size, width=size,
            dtype="uint8", crs="EPSG:32633", transform=from_origin(1000, 2000, 1, 1), tiled=True,
            blockxsize=32, blockysize=32,
        ) as file:  # fmt: skip
            file.write(rng.integers(1, 255, (bands, size, size), np.uint8))
    x, y = rng.uniform(0, SIZE, (2, 70))
    circles = shapely.buffer(shapely.points(1000 + x, 2000 - y), rng.uniform(1, 7, 70))
    labels = gpd.GeoDataFrame(
        {"classvalue": rng.choice([1, 2], 70)}, geometry=circles, crs="EPSG:32633"
    )
    labels.to_file(folder / "labels.gpkg")
    return folder / "scene.tif", folder / "labels.gpkg", folder / "other.tif"


def arguments(mode: str, inputs: tuple[Path, Path, Path]) -> tuple[str, str, str]:
    """Raster, labels and second raster of a format; empty where it takes none."""
    raster, labels, other = map(str, inputs)
    return (raster, "", other) if mode == "CycleGAN" else (raster, labels, "")


def whole(mode: str, inputs: tuple[Path, Path, Path], out: Path) -> Path:
    raster, labels, other = arguments(mode, inputs)
    return Path(
        export_training_data(
            raster, labels or None, metadata_format=mode, tile_size=32, stride_size=20,
            progress=False, output_location=out, additional_input_raster=other or None,
        )
    )  # fmt: skip


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(".manifest.json")
    }


def chips(out: Path) -> list[Path]:
    return [
        path
        for path in out.rglob("images/*")
        if path.suffix in IMAGE_SUFFIXES and path.name[0] != "."
    ]


def killed(at: int, mode: str, inputs: tuple[Path, Path, Path], out: Path, ended: Ended) -> bool:
    """Kill an export at its file of this number; False where it wrote fewer and ended."""
    exitcode = ended(SCRIPT, mode, *arguments(mode, inputs), out, at)
    if exitcode == 0:
        return False
    assert exitcode == -signal.SIGKILL
    for path in chips(out):
        read_image(path)
    return True


def killed_and_resumed(
    mode: str,
    inputs: tuple[Path, Path, Path],
    tmp_path: Path,
    cuts: list[int],
    ended: Ended,
) -> None:
    reference = whole(mode, inputs, tmp_path / "whole")
    out = tmp_path / "out"
    for cut in cuts:
        if not killed(cut, mode, inputs, out, ended):
            break
        assert not (out / "esri_model_definition.emd").exists()
    else:
        whole(mode, inputs, out)
    assert content(out) == content(reference)
    for side in (out / "A", out / "B") if mode == "CycleGAN" else (out,):
        assert not [fault for fault in validate_export(side) if fault.level == "error"]
        assert len(open_export(side)) == len(chips(side))


@pytest.mark.parametrize("mode", [*MODES[1:], "PASCAL_VOC_rectangles"])
def test_a_killed_export_ends_with_the_same_folder(
    inputs: tuple[Path, Path, Path], tmp_path: Path, ended: Ended, mode: str
) -> None:
    killed_and_resumed(mode, inputs, tmp_path, [20], ended)


def test_a_table_that_a_kill_left_half_written_is_removed(
    inputs: tuple[Path, Path, Path], tmp_path: Path, ended: Ended
) -> None:
    mode, out = "PASCAL_VOC_rectangles", tmp_path / "out"
    assert killed(20, mode, inputs, out, ended)
    half = out / ".map.txt.k1.part"
    half.write_text("half")
    whole(mode, inputs, out)
    assert not half.exists()


def test_the_half_manifest_of_a_killed_pair_is_no_stranger(
    inputs: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    half = out / ".A.manifest.json.k3.part"
    half.write_text("half")
    whole("CycleGAN", inputs, out)
    assert not half.exists()


@pytest.mark.parametrize("share", [0.4, 1.3], ids=["side A", "side B"])
def test_a_pair_killed_on_either_side_ends_with_the_same_folders(
    inputs: tuple[Path, Path, Path], tmp_path: Path, ended: Ended, share: float
) -> None:
    reference = whole("CycleGAN", inputs, tmp_path / "whole")
    first = len(chips(reference / "A"))
    out = tmp_path / "out"
    # A chip is two files: pixels and where they lie.
    assert killed(int(2 * first * share), "CycleGAN", inputs, out, ended)
    finished = (out / "A" / "esri_model_definition.emd").exists()
    assert finished == (share > 1)
    stamps = {path: path.stat().st_mtime_ns for path in (out / "A").rglob("*") if path.is_file()}
    whole("CycleGAN", inputs, out)
    assert content(out) == content(reference)
    if finished:
        # The side that was whole is not written again.
        assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mode", [*MODES, "PASCAL_VOC_rectangles", "Classified_Tiles"])
def test_twenty_kills_at_random_lose_nothing(
    inputs: tuple[Path, Path, Path], tmp_path: Path, ended: Ended, mode: str
) -> None:
    cuts = np.random.default_rng(len(mode)).integers(2, 16, 20)
    killed_and_resumed(mode, inputs, tmp_path, cuts.tolist(), ended)
