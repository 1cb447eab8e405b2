"""The folder of an export: never mixed, never half, the same for any layout and after a kill."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from distributed import Client

from geodl.base.errors import (
    BlockError,
    DataError,
    OptionError,
    OutputError,
    OutputExistsError,
    RunCancelledError,
    RunMismatchError,
)
from geodl.formats import count_labels, images, open_export
from geodl.formats.images import read_image
from geodl.tools import chip_blocks, chip_export, chip_folder
from geodl.tools.export_training_data import export_training_data

VOC, TILES = "PASCAL_VOC_rectangles", "Classified_Tiles"
ROOTS = ("map.txt", "stats.txt", "esri_accumulated_stats.json", "esri_model_definition.emd")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(2)
    transform = rasterio.Affine(0.5, 0, 500000, 0, -0.5, 5000000)
    with rasterio.open(
        folder / "scene.tif", "w", driver="GTiff", count=3, height=160, width=200, dtype="uint16",
        crs="EPSG:32633", transform=transform, tiled=True, blockxsize=32, blockysize=32,
    ) as dataset:  # fmt: skip
        dataset.write(rng.integers(1, 4000, (3, 160, 200), np.uint16))
    centres = rng.uniform((500002, 4999922), (500098, 4999998), (60, 2))
    circles = shapely.buffer(shapely.points(centres), rng.uniform(0.5, 4, 60))
    labels = gpd.GeoDataFrame(
        {"classvalue": rng.choice([1, 2], 60)}, geometry=circles, crs="EPSG:32633"
    )
    labels["classname"] = labels["classvalue"].map({1: "tree", 2: "house"})
    labels.to_file(folder / "labels.gpkg")
    return folder / "scene.tif", folder / "labels.gpkg"


def export(inputs: tuple[Path, Path], out: Path, mode: str = VOC, **options: Any) -> Path:
    settings = {"tile_size": 40, "stride_size": 24, "progress": False} | options
    return Path(
        export_training_data(*inputs, metadata_format=mode, output_location=out, **settings)
    )


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("mode", [VOC, TILES])
@pytest.mark.parametrize("chip_format", ["TIFF", "PNG", "MRF"])
def test_bytes_and_numbers_are_the_same_for_any_block_size(
    inputs: tuple[Path, Path], tmp_path: Path, mode: str, chip_format: str
) -> None:
    one = export(inputs, tmp_path / "a", mode, chip_format=chip_format)
    for block_size in (1, 70):
        other = export(
            inputs, tmp_path / str(block_size), mode, chip_format=chip_format,
            block_size=block_size,
        )  # fmt: skip
        assert content(one) == content(other)


def test_bytes_are_the_same_on_a_cluster(
    inputs: tuple[Path, Path], tmp_path: Path, workers: Client
) -> None:
    one = export(inputs, tmp_path / "a")
    other = export(inputs, tmp_path / "b", client=workers, block_size=48)
    assert content(one) == content(other)


def test_a_class_raster_gives_the_same_for_any_block_size(
    inputs: tuple[Path, Path], tmp_path: Path
) -> None:
    classes = tmp_path / "classes.tif"
    with rasterio.open(inputs[0]) as dataset:
        profile = dataset.profile | {"count": 1, "dtype": "uint8"}
    rng = np.random.default_rng(0)
    with rasterio.open(classes, "w", **profile) as dataset:
        values = np.zeros((160, 200), np.uint8)
        values[10:50, 20:90] = rng.choice([0, 3, 9], (40, 70))
        dataset.write(values, 1)
    results = [
        content(export((inputs[0], classes), tmp_path / str(size), TILES, block_size=size))
        for size in (30, 500)
    ]
    assert results[0] == results[1]


def test_an_interrupted_export_goes_on_and_ends_with_the_same_folder(
    inputs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = export(inputs, tmp_path / "whole")
    calls = 0
    real = chip_blocks.write_image

    def failing(*args: Any, **options: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > 9:
            raise OSError(28, "No space left on device")
        real(*args, **options)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(chip_blocks, "write_image", failing)
        with pytest.raises(OutputError, match="kept"):
            export(inputs, out, block_size=48)
    assert not (out / "esri_model_definition.emd").exists()
    assert (out / "export.run").is_dir()
    written = {path: path.stat().st_mtime_ns for path in (out / "images").glob("*.tif")}
    # The block layout of the call plays no part: the ledger's own is taken.
    export(inputs, out, block_size=999)
    assert content(out) == content(whole)
    kept = [path for path, stamp in written.items() if path.stat().st_mtime_ns == stamp]
    assert len(kept) >= 4


def test_a_disk_that_is_full_at_the_end_is_named_and_the_chips_are_kept(
    inputs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(chip_folder, "write_json", full)
        with pytest.raises(OutputError, match=r"disk is full.*kept"):
            export(inputs, tmp_path / "out")
    written = {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "images").iterdir()}
    export(inputs, tmp_path / "out")
    assert {p: p.stat().st_mtime_ns for p in written} == written
    assert content(tmp_path / "out") == content(export(inputs, tmp_path / "fresh"))


def test_a_cancelled_future_can_be_resumed(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    whole = export(inputs, tmp_path / "whole")
    out = tmp_path / "out"
    future: Any = export_training_data(
        *inputs, metadata_format=VOC, tile_size=40, stride_size=24, progress=False, future=True,
        output_location=out, block_size=24,
    )  # fmt: skip
    future.cancel()
    with pytest.raises(RunCancelledError):
        future.result(timeout=120)
    assert content(export(inputs, out)) == content(whole)


def test_a_finished_export_is_refused_and_untouched(
    inputs: tuple[Path, Path], tmp_path: Path
) -> None:
    out = export(inputs, tmp_path / "out")
    before = content(out)
    with pytest.raises(OutputExistsError, match="finished export") as caught:
        export(inputs, out)
    assert isinstance(caught.value, RuntimeError)
    assert content(out) == before


def test_a_folder_with_other_things_is_refused(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "Thumbs.db").write_text("")
    (out / "thesis.txt").write_text("mine")
    for first in (0, 10):
        with pytest.raises(OutputExistsError, match=r"thesis\.txt"):
            export(inputs, out, context={"startIndex": first})
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputExistsError, match="is a file"):
        export(inputs, tmp_path / "file")


def test_overwrite_deletes_what_an_export_wrote_and_nothing_else(
    inputs: tuple[Path, Path], tmp_path: Path
) -> None:
    out = export(inputs, tmp_path / "out", chip_format="PNG")
    keep = {"thesis.txt": b"mine", "images/holiday.png": b"sea", "labels/999999999.xml": b"other"}
    for name, data in keep.items():
        (out / name).write_bytes(data)
    export(inputs, out, TILES, tile_size=64, overwrite=True)
    found = content(out)
    assert {name: found.pop(name) for name in keep} == keep
    assert found == content(export(inputs, tmp_path / "fresh", TILES, tile_size=64))


def test_another_call_does_not_go_on_with_an_unfinished_export(
    inputs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(chip_blocks, "write_image", _fail_after(5))
        with pytest.raises(OutputError):
            export(inputs, out, block_size=24)
    with pytest.raises(RunMismatchError, match="options"):
        export(inputs, out, tile_size=50)
    export(inputs, out, tile_size=50, overwrite=True)
    assert content(out) == content(export(inputs, tmp_path / "fresh", tile_size=50))


def _fail_after(count: int) -> Any:
    done = 0

    def write(*args: Any, **options: Any) -> None:
        nonlocal done
        done += 1
        if done > count:
            raise OSError(28, "No space left on device")
        images.write_image(*args, **options)

    return write


def test_chips_are_added_with_their_statistics_and_lines(
    inputs: tuple[Path, Path], tmp_path: Path
) -> None:
    out = export(inputs, tmp_path / "out")
    first = open_export(out)
    before = content(out)
    count = len(first)
    export(inputs, out, stride_size=40, context={"startIndex": count + 5})
    folder = open_export(out)
    added = [ref for ref in folder.chips if int(ref.name) >= count + 5]
    assert [ref.name for ref in folder.chips[:count]] == [ref.name for ref in first.chips]
    assert [int(ref.name) for ref in added] == list(range(count + 5, count + 5 + len(added)))
    assert content(out)["map.txt"].startswith(before["map.txt"])
    stack = np.stack([read_image(ref.image).data for ref in folder.chips]).astype(np.float64)
    assert folder.stats is not None
    assert folder.stats[1].mean == pytest.approx(stack[:, 1].mean(), rel=1e-13)
    assert folder.stats[1].std == pytest.approx(stack[:, 1].std(), rel=1e-12)
    assert folder.class_counts == count_labels(folder)
    stats = json.loads((out / "esri_accumulated_stats.json").read_text())
    assert stats["NumTiles"] == len(folder)
    for name in before:
        if name not in ROOTS:
            assert content(out)[name] == before[name]


def test_a_kill_while_adding_is_finishing_does_not_count_twice(
    inputs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        export(inputs, tmp_path / name, TILES)
    more = {"context": {"startIndex": 500}, "stride_size": 40}
    export(inputs, tmp_path / "a", TILES, **more)
    with monkeypatch.context() as patch:
        patch.setattr(chip_export, "write_manifest", _power_cut)
        with pytest.raises(OSError, match="power cut"):
            export(inputs, tmp_path / "b", TILES, **more)
    export(inputs, tmp_path / "b", TILES, **more)
    assert content(tmp_path / "a") == content(tmp_path / "b")


def _power_cut(*_: object) -> None:
    raise OSError("power cut")


def test_numbers_that_are_taken_name_the_next_free_one(
    inputs: tuple[Path, Path], tmp_path: Path
) -> None:
    out = export(inputs, tmp_path / "out")
    before = content(out)
    count = len(open_export(out))
    with pytest.raises(OptionError, match=f"next free number is {count}"):
        export(inputs, out, context={"startIndex": 3})
    assert content(out) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [({"mode": TILES}, "metadata format"), ({"tile_size": 32}, "tile size")],
)
def test_other_chips_are_not_added(
    inputs: tuple[Path, Path], tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    out = export(inputs, tmp_path / "out")
    before = content(out)
    with pytest.raises(DataError, match=message):
        export(inputs, out, context={"startIndex": 900}, **options)
    assert content(out) == before


def test_names_keep_their_values_when_chips_are_added(
    inputs: tuple[Path, Path], tmp_path: Path
) -> None:
    frame = gpd.read_file(inputs[1])
    out = tmp_path / "out"
    export((inputs[0], frame), out, classvalue_field="classname")
    frame["classname"] = frame["classname"].replace({"house": "barn"})
    export((inputs[0], frame), out, classvalue_field="classname", context={"startIndex": 900})
    folder = open_export(out)
    assert {e.value: e.name for e in folder.classes} == {1: "house", 2: "tree", 3: "barn"}
    assert folder.class_counts == count_labels(folder)
    assert folder.class_counts is not None
    assert folder.class_counts[1] == folder.class_counts[3]


def test_a_start_index_in_an_empty_folder_only_numbers(
    inputs: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = open_export(export(inputs, tmp_path / "out", context={"startIndex": 41}))
    assert folder.chips[0].name == "000000041"


def test_nothing_to_write_leaves_nothing_behind(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    corner = gpd.GeoDataFrame(
        geometry=[shapely.box(500099.8, 4999921, 500099.9, 4999922)], crs="EPSG:32633"
    )
    with pytest.raises(DataError, match="No chip holds a label"):
        export((inputs[0], corner), tmp_path / "out", stride_size=40, tile_size=32)
    assert content(tmp_path / "out") == {}


def test_a_broken_tile_is_named_and_the_other_blocks_are_kept(
    inputs: tuple[Path, Path], tmp_path: Path
) -> None:
    raster = tmp_path / "torn.tif"
    data = bytearray(inputs[0].read_bytes())
    raster.write_bytes(bytes(data[: len(data) // 2]))
    with pytest.raises(BlockError, match=r"chip block .*torn\.tif") as caught:
        export((raster, inputs[1]), tmp_path / "out", block_size=24)
    assert "kept" in str(caught.value)
    assert list((tmp_path / "out" / "images").glob("*.tif"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_named(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(OutputError, match="locked"):
        export(inputs, locked / "out")


def test_a_cluster_gets_blocks_enough_to_share(
    inputs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: Client
) -> None:
    monkeypatch.setattr(chip_export, "_LEAST_SHARED_PX", 40)
    one = export(inputs, tmp_path / "a")
    other = export(inputs, tmp_path / "b", client=workers)
    alone = export(inputs, tmp_path / "c", client=workers, block_size=160)
    blocks = [
        json.loads(Path(f"{path}.manifest.json").read_text())["blocks"]["total"]
        for path in (one, other, alone)
    ]
    assert blocks[0] == 1
    assert blocks[1] >= 8
    assert blocks[2] < 8
    assert content(one) == content(other) == content(alone)
