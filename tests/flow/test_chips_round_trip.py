"""Write, validate, read, compare: every format over bands, dtypes and chip formats."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.features import rasterize

from geodl.formats import FORMATS, ChipFolder, count_labels, open_export, validate_export
from geodl.formats.images import open_image, read_image
from geodl.testing import Scene, make_scene
from geodl.tools.export_training_data import export_training_data

SIZE, TILE, STRIDE = (100, 132), 48, 40
BANDS, DTYPES = (1, 3, 4, 13), ("uint8", "uint16", "int16", "float32")
BOXES = ("KITTI_rectangles", "PASCAL_VOC_rectangles", "COCO_rectangles", "YOLO_rectangles")
INSTANCES = ("RCNN_Masks", "COCO_instances")
ONE_EACH = ("Labeled_Tiles", "Imagenet")


def chip_formats(bands: int, dtype: str) -> Iterator[str]:
    """The chip formats that hold such pixels, as documented."""
    yield from ("TIFF", "MRF")
    if bands <= 4 and dtype in ("uint8", "uint16"):
        yield "PNG"
    if bands in (1, 3) and dtype == "uint8":
        yield "JPEG"


ALL = [
    (mode, chip_format, bands, dtype)
    for mode, bands, dtype in product(sorted(FORMATS), BANDS, DTYPES)
    for chip_format in chip_formats(bands, dtype)
]


def is_in_the_short_form(mode: str, chip_format: str, bands: int, dtype: str) -> bool:
    """A Latin square: each format meets each band count, each dtype and each chip format."""
    turn = sorted(FORMATS).index(mode)
    square = (BANDS.index(bands) + DTYPES.index(dtype) + turn) % 4 == 0
    held = list(chip_formats(bands, dtype))
    return square and held[(turn // 4 + BANDS.index(bands) - 1) % len(held)] == chip_format


SHORT = [case for case in ALL if is_in_the_short_form(*case)]
_scenes: dict[tuple[int, str], Scene] = {}


@pytest.fixture(scope="module")
def folder_of_scenes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    _scenes.clear()
    yield tmp_path_factory.mktemp("scenes")
    _scenes.clear()


def scene_of(folder: Path, bands: int, dtype: str) -> Scene:
    if (bands, dtype) not in _scenes:
        _scenes[bands, dtype] = make_scene(
            folder / f"{bands}{dtype}", seed=6, size=SIZE, bands=bands, dtype=dtype,
            nodata_corner=False,
        )  # fmt: skip
    return _scenes[bands, dtype]


def round_trip(folder: Path, tmp_path: Path, case: tuple[str, str, int, str]) -> None:
    mode, chip_format, bands, dtype = case
    scene = scene_of(folder, bands, dtype)
    options: dict[str, Any] = {}
    labels: Path | None = scene.labels
    if mode == "Panoptic_Segmentation":
        options["input_instance_data"] = scene.labels
    if mode in ("CycleGAN", "Export_Tiles"):
        options["additional_input_raster"] = scene.raster
        labels = None
    path = Path(
        export_training_data(
            scene.raster, labels, metadata_format=mode, chip_format=chip_format, tile_size=TILE,
            stride_size=STRIDE, progress=False, output_location=tmp_path / "out", **options,
        )
    )  # fmt: skip
    for side in (path / "A", path / "B") if mode == "CycleGAN" else (path,):
        assert [str(fault) for fault in validate_export(side)] == []
        compare(open_export(side), scene, chip_format)


def compare(chips: ChipFolder, scene: Scene, chip_format: str) -> None:
    """Pixels, places, names, counts and labels of all chips against the scene itself."""
    with rasterio.open(scene.raster) as raster:
        pixels, transform = raster.read(), raster.transform
    frame = gpd.read_file(scene.labels)
    shapes, values = list(frame.geometry), frame["classvalue"].tolist()
    assert (chips.bands, chips.dtype) == (len(pixels), pixels.dtype.name)
    if len(chips.classes):
        assert dict(zip(chips.classes.values, chips.classes.names, strict=True)) == {
            1: "building", 2: "tree"}  # fmt: skip
    for ref in chips.chips:
        with open_image(ref.image) as dataset:
            here = dataset.transform
        col, row = (round(v) for v in ~transform @ (here.c, here.f))
        there = transform @ Affine.translation(col, row)
        assert np.abs(np.subtract(here[:6], there[:6])).max() <= 1e-9 * abs(there.f)
        image = read_image(ref.image)
        height, width = image.data.shape[1:]
        part = pixels[:, row : row + height, col : col + width]
        if chip_format == "JPEG":
            assert np.abs(image.data.astype(float) - part).mean() < 12
        else:
            assert np.array_equal(image.data, part)
        label = chips.chip_format.read_label(ref, chips)
        check_label(chips.metadata_mode, label, shapes, values, there)
        second = chips.path / "images2" / ref.image.name
        if second.exists():
            assert np.array_equal(read_image(second).data, image.data)
    if chips.class_counts:
        assert chips.class_counts == count_labels(chips)


def check_label(mode: str, label: Any, shapes: list[Any], values: list[int], here: Affine) -> None:
    def masks() -> list[tuple[int, bytes]]:
        burnt = (
            (v, rasterize([s], out_shape=(TILE, TILE), transform=here, dtype="uint8"))
            for s, v in zip(shapes, values, strict=True)
        )
        return sorted((value, mask.tobytes()) for value, mask in burnt if mask.any())

    def instances(found: Any) -> list[tuple[int, bytes]]:
        pairs = zip(found.values.tolist(), found.masks.astype(np.uint8), strict=True)
        return sorted((value, mask.tobytes()) for value, mask in pairs)

    if mode in BOXES:
        boxes = [(v, box) for v, box in parts(shapes, values, here)]
        assert sorted(label.values.tolist()) == sorted(v for v, _ in boxes)
        # KITTI and VOC state two decimals, in the layer's order like all others.
        assert (
            np.abs(label.boxes - np.array([box for _, box in boxes]).reshape(-1, 4)).max() <= 0.01
        )
    elif mode == "Classified_Tiles":
        assert np.array_equal(label.values, class_mask(shapes, values, here))
    elif mode in INSTANCES:
        assert instances(label) == masks()
    elif mode == "Panoptic_Segmentation":
        assert np.array_equal(label.values, class_mask(shapes, values, here))
        assert instances(label.instances) == masks()
    elif mode == "MultiLabeled_Tiles":
        assert label.values.tolist() == sorted({v for v, _ in parts(shapes, values, here)})
    elif mode in ONE_EACH:
        centre = shapely.Point(here @ (TILE / 2, TILE / 2))
        nearest = min(shapes, key=lambda s: shapely.box(*s.bounds).centroid.distance(centre))
        assert label.values.tolist() == [values[shapes.index(nearest)]]
    else:
        assert len(label) == 0


def class_mask(shapes: list[Any], values: list[int], here: Affine) -> np.ndarray:
    pairs = list(zip(shapes, values, strict=True))
    return rasterize(pairs, out_shape=(TILE, TILE), transform=here, dtype="int32")


def parts(
    shapes: list[Any], values: list[int], here: Affine
) -> Iterator[tuple[int, tuple[float, ...]]]:
    """Class and bounds, in pixels of the chip, of each label's part in it."""
    back, frame = ~here, shapely.box(0, 0, TILE, TILE)
    for shape, value in zip(shapes, values, strict=True):
        part = shapely.transform(shape, lambda xy: np.array([back @ p for p in xy]))
        x0, y0, x1, y1 = part.intersection(frame).bounds
        if min(x1 - x0, y1 - y0) >= 0.02:
            yield value, (x0, y0, x1, y1)


def test_the_short_form_meets_all_that_can_be_chosen() -> None:
    assert {(mode, bands) for mode, _, bands, _ in SHORT} == set(product(FORMATS, BANDS))
    assert {(mode, dtype) for mode, _, _, dtype in SHORT} == set(product(FORMATS, DTYPES))
    assert {name for _, name, _, _ in SHORT} == {"TIFF", "PNG", "JPEG", "MRF"}


@pytest.mark.filterwarnings("ignore:.*features are left out")
@pytest.mark.parametrize("case", SHORT, ids=lambda case: "-".join(map(str, case)))
def test_what_is_written_is_read(
    folder_of_scenes: Path, tmp_path: Path, case: tuple[str, str, int, str]
) -> None:
    round_trip(folder_of_scenes, tmp_path, case)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore:.*features are left out")
@pytest.mark.parametrize("mode", sorted(FORMATS))
def test_every_combination_that_a_chip_format_holds(
    folder_of_scenes: Path, tmp_path: Path, mode: str
) -> None:
    for number, case in enumerate(case for case in ALL if case[0] == mode):
        round_trip(folder_of_scenes, tmp_path / str(number), case)
