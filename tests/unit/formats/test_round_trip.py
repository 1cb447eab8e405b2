"""What is written comes back: labels, names, counts, statistics, root files."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geodl.core.classes import ClassTable
from geodl.core.grid import Window
from geodl.formats import FORMATS, BoxLabels, ChipFolder, MaskLabels, count_labels, open_export
from geodl.formats.accumulated import counts_of_export
from geodl.formats.base import ChipContent, ChipFrame, ChipRef
from geodl.formats.counts import ExportCounts, count_chip

from .conftest import CLASSES, GRID, HEIGHT, WIDTH, WriteExport, same_label, some_label

MODES = sorted(FORMATS)


def test_every_row_of_the_registry_is_a_format_of_that_name() -> None:
    documented = {
        "KITTI_rectangles", "PASCAL_VOC_rectangles", "Classified_Tiles", "RCNN_Masks",
        "Labeled_Tiles", "MultiLabeled_Tiles", "Export_Tiles", "CycleGAN", "Imagenet",
        "Panoptic_Segmentation",
    }  # fmt: skip
    assert documented | {"COCO_rectangles", "COCO_instances", "YOLO_rectangles"} <= set(MODES)
    for mode in MODES:
        assert FORMATS[mode].name == mode


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("chip_format", ["TIFF", "PNG", "JPEG", "MRF"])
def test_labels_come_back(write_export: WriteExport, mode: str, chip_format: str) -> None:
    made = write_export(mode, chip_format)
    folder = open_export(made.path)
    reader = folder.chip_format
    assert [ref.name for ref in folder.chips] == ["000000000", "000000001", "000000002"]
    for ref, image, label in zip(folder.chips, made.images, made.labels, strict=True):
        assert same_label(reader.read_label(ref, folder), label)
        chip = reader.read_chip(ref, folder)
        assert chip_format == "JPEG" or np.array_equal(chip.data, image)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("bands", "dtype"), [(1, "uint8"), (4, "uint16"), (13, "float32"), (3, "int16")]
)
def test_the_folder_says_what_was_written(
    write_export: WriteExport, mode: str, bands: int, dtype: str
) -> None:
    made = write_export(mode, bands=bands, dtype=dtype)
    folder = pickle.loads(pickle.dumps(open_export(made.path)))
    assert (folder.metadata_mode, folder.bands, folder.dtype) == (mode, bands, dtype)
    assert folder.tile_size == (WIDTH, HEIGHT)
    assert folder.classes == (CLASSES if folder.kind != "images" else ClassTable(()))
    assert folder.band_names == tuple(f"B{n}" for n in range(bands))
    assert folder.cell_size == ((0.5, 0.5), (0.5, 0.5))
    assert folder.image_space == "MAP_SPACE"
    assert folder.class_counts == made.counts.totals() == count_labels(folder)
    stacked = np.stack(made.images).astype(np.float64).transpose(1, 0, 2, 3).reshape(bands, -1)
    assert folder.stats is not None
    for band, summary in zip(stacked, folder.stats, strict=True):
        assert (summary.minimum, summary.maximum) == (band.min(), band.max())
        assert summary.mean == pytest.approx(band.mean(), rel=1e-12)
        assert summary.std == pytest.approx(band.std(), rel=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_counts_read_back_merge_as_if_all_chips_were_one_export(
    write_export: WriteExport, mode: str
) -> None:
    made = write_export(mode)
    folder = open_export(made.path)
    stats = json.loads((made.path / "esri_accumulated_stats.json").read_text())
    before = counts_of_export(folder, stats)
    more = count_chip(made.images[0] + 3, some_label(mode, 5), 0.25)
    merged, whole = before + more, made.counts + more
    assert merged.chips == whole.chips == 4
    assert merged.totals() == whole.totals()
    for ours, theirs in zip(merged.bands, whole.bands, strict=True):
        assert ours.count == theirs.count
        assert ours.mean == pytest.approx(theirs.mean, rel=1e-14)
        assert ours.std == pytest.approx(theirs.std, rel=1e-14)


@given(st.permutations(range(6)), st.integers(0, 6))
@settings(max_examples=20)
def test_counts_merge_in_any_order(order: list[int], cut: int) -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(0, 1, (6, 2, 8, 8)).astype(np.float32)
    labels = [
        MaskLabels(rng.integers(0, 4, (8, 8)))
        if n % 2
        else BoxLabels(np.array([[0, 0, n + 0.1, 1]]), np.array([n]))
        for n in range(6)
    ]
    parts = [count_chip(images[n], labels[n], 0.3) for n in range(6)]
    left = sum((parts[n] for n in order[:cut]), ExportCounts())
    right = sum((parts[n] for n in order[cut:]), ExportCounts())
    again = ExportCounts.from_json(json.loads(json.dumps((right + left).to_json())))
    assert again == sum(parts, ExportCounts())


def test_boxes_of_a_voc_label_have_two_decimals_and_the_class_value(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    frame = ChipFrame(
        folder=tmp_path, stem="000000000", image="000000000.jpg", bands=3,
        grid=GRID.crop(Window(row=0, col=0, height=HEIGHT, width=WIDTH)),
    )  # fmt: skip
    label = BoxLabels(np.array([[12.5, 8.0, 31.256, 24.0]]), np.array([4]))
    FORMATS["PASCAL_VOC_rectangles"]().write_label(frame, label, CLASSES)
    lines = [line.strip() for line in (tmp_path / "labels/000000000.xml").read_text().splitlines()]
    assert lines[0] == '<?xml version="1.0"?>'
    for line in (
        "<filename>000000000.jpg</filename>", "<width>32</width>", "<height>24</height>",
        "<depth>3</depth>", "<name>4</name>", "<xmin>12.50</xmin>", "<ymin>8.00</ymin>",
        "<xmax>31.26</xmax>", "<ymax>24.00</ymax>",
    ):  # fmt: skip
        assert line in lines


def test_a_kitti_row_has_fifteen_unsigned_numbers(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    frame = ChipFrame(folder=tmp_path, stem="000000000", image="a.tif", bands=3, grid=GRID)
    label = BoxLabels(np.array([[12.5, 8.0, 47.25, 60.0]]), np.array([1]))
    FORMATS["KITTI_rectangles"]().write_label(frame, label, CLASSES)
    row = "1 0.0 0 0.0 12.50 8.00 47.25 60.00 0.0 0.0 0.0 0.0 0.0 0.0 0.0\n"
    assert (tmp_path / "labels/000000000.txt").read_text() == row


def test_class_tiles_are_one_band_of_the_smallest_dtype(write_export: WriteExport) -> None:
    made = write_export("Classified_Tiles", "JPEG")
    folder = open_export(made.path)
    assert folder.chips[0].labels[0].name == "000000000.tif"
    assert folder.chip_format.read_label(folder.chips[0], folder).values.dtype == np.uint8


PLAIN = ["Classified_Tiles", "KITTI_rectangles", "MultiLabeled_Tiles", "YOLO_rectangles"]


@pytest.mark.parametrize("mode", PLAIN)
def test_map_txt_is_laid_out_as_arcgis_lays_it_out(write_export: WriteExport, mode: str) -> None:
    made = write_export(mode, "PNG")
    suffix = FORMATS[mode].label_suffixes[0]
    first = (made.path / "map.txt").read_bytes().split(b"\n")[0].decode()
    assert first == rf"images\000000000.png  labels\000000000{suffix} "


def test_stats_txt_is_laid_out_as_arcgis_lays_it_out(write_export: WriteExport) -> None:
    lines = (write_export("PASCAL_VOC_rectangles").path / "stats.txt").read_text().splitlines()
    assert lines[0] == "images = 3 *3*32*24"
    assert lines[1] == "features = 6"
    assert lines[2] == "features per image = [min = 1, mean = 2.00, max = 3]"
    assert lines[3] == "classes = 2"
    assert lines[4] == (
        "cls name              cls value     images   features    min size   mean size    max size"
    )
    assert [len(line) for line in lines[4:]] == [89, 89, 89]
    assert lines[6].startswith("Crop land                     4")


def test_pixel_stats_txt_has_no_line_of_features(write_export: WriteExport) -> None:
    lines = (write_export("Classified_Tiles").path / "stats.txt").read_text().splitlines()
    assert lines[1].startswith("classes per image = [min = ")
    assert "     pixels" in lines[3]


def test_accumulated_stats_agree_with_themselves(write_export: WriteExport) -> None:
    made = write_export("Classified_Tiles")
    stats = json.loads((made.path / "esri_accumulated_stats.json").read_text())
    assert (stats["NumTiles"], stats["NumBands"], stats["OutputFeatures"]) == (3, 3, False)
    assert (stats["TileSizeX"], stats["TileSizeY"]) == (WIDTH, HEIGHT)
    assert stats["Classes"][1] == {"ClassValue": 4, "ClassName": "Crop land"}
    pixels = stats["ClassPixelStats"]
    labelled = sum(int((label.values != 0).sum()) for label in made.labels)
    assert sum(pixels["NumPixelsPerClass"]) == labelled
    for total, summary in zip(pixels["NumPixelsPerClass"], pixels["PixelsPerClass"], strict=True):
        assert summary["Sum"] == total
        assert summary["Count"] == 3
        assert summary["Mean"] == pytest.approx(total / 3)
    state = stats["BandStatsState"][0]
    assert state["Num"] == 3 * WIDTH * HEIGHT
    emd = json.loads((made.path / "esri_model_definition.emd").read_text())
    deviation = (state["M2"] / state["Num"]) ** 0.5
    assert emd["AllTilesStats"][0]["StdDev"] == pytest.approx(deviation)


def test_the_emd_has_the_newer_keys(write_export: WriteExport) -> None:
    emd = json.loads(
        (write_export("Classified_Tiles").path / "esri_model_definition.emd").read_text()
    )
    assert emd["MetaDataMode"] == "Classified_Tiles"
    assert emd["ImageSpaceUsed"] == "MAP_SPACE"
    assert emd["MinCellSize"] == {
        "x": 0.5, "y": 0.5, "spatialReference": {"wkid": 32633, "latestWkid": 32633},
    }  # fmt: skip
    assert emd["Classes"][0]["Value"] == 1
    assert emd["InputRastersProps"] == {
        "RasterCount": 1, "SensorName": "", "BandNames": ["B0", "B1", "B2"],
    }  # fmt: skip
    assert set(emd["AllTilesStats"][0]) == {"BandName", "Min", "Max", "Mean", "StdDev"}


def test_pixels_without_a_class_weigh_in_as_background() -> None:
    folder = ChipFolder(
        path=Path("x"), metadata_mode="Classified_Tiles", classes=CLASSES, bands=1,
        chips=(ChipRef("0", Path("0.tif"), ()),), band_names=(), tile_size=(10, 10),
        class_counts={1: 20, 4: 20},
    )  # fmt: skip
    assert folder.balanced_weights() == pytest.approx([100 / 3 / 60, 100 / 3 / 20, 100 / 3 / 20])


def test_objects_weigh_in_by_their_number_and_absent_classes_by_one() -> None:
    folder = ChipFolder(
        path=Path("x"), metadata_mode="PASCAL_VOC_rectangles", bands=1, chips=(), band_names=(),
        classes=ClassTable.from_mapping({1: "a", 2: "b", 3: "c"}), tile_size=(10, 10),
        class_counts={1: 30, 2: 10},
    )  # fmt: skip
    assert folder.balanced_weights() == pytest.approx([1, 40 / 2 / 30, 40 / 2 / 10, 1])


def test_boxes_of_a_class_raster_are_its_regions() -> None:
    mask = np.zeros((HEIGHT, WIDTH), np.int32)
    mask[2:5, 3:9] = 4
    window = Window(row=0, col=0, height=HEIGHT, width=WIDTH)
    for mode in ("PASCAL_VOC_rectangles", "KITTI_rectangles"):
        label = FORMATS[mode]().label_of(ChipContent(window=window, class_mask=mask))
        assert label.boxes.tolist() == [[3, 2, 9, 5]]
        assert label.values.tolist() == [4]
