"""What each format must hold beyond what all must: every check of it has its named fault."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from geodl.formats import validate_export

from .conftest import WriteExport

EMD, STATS, MAP = "esri_model_definition.emd", "esri_accumulated_stats.json", "map.txt"
VOC, TILES, KITTI = "PASCAL_VOC_rectangles", "Classified_Tiles", "KITTI_rectangles"
RCNN, PANOPTIC = "RCNN_Masks", "Panoptic_Segmentation"
COCO, COCO_MASKS, YOLO = "COCO_rectangles", "COCO_instances", "YOLO_rectangles"
Spoil = Callable[[Path], None]


def text(name: str, content: str) -> Spoil:
    return lambda path: (path / name).write_text(content) and None  # type: ignore[return-value]


def field(name: str, line: int, position: int, value: str) -> Spoil:
    """Replace one field of a line of numbers."""

    def run(path: Path) -> None:
        lines = (path / name).read_text().splitlines()
        fields = lines[line].split()
        fields[position] = value
        lines[line] = " ".join(fields)
        (path / name).write_text("\n".join(lines) + "\n")

    return run


def edit(name: str, change: Callable[[Any], Any]) -> Spoil:
    def run(path: Path) -> None:
        tree = json.loads((path / name).read_text())
        change(tree)
        (path / name).write_text(json.dumps(tree))

    return run


def raster(name: str, data: np.ndarray) -> Spoil:
    def run(path: Path) -> None:
        file = next(iter(sorted(path.glob(name))))
        with rasterio.open(file) as dataset:
            profile = dataset.profile
        profile |= {"count": len(data), "height": data.shape[1], "width": data.shape[2],
                    "dtype": data.dtype}  # fmt: skip
        with rasterio.open(file, "w", **profile) as dataset:
            dataset.write(data)

    return run


def move(old: str, new: str, *, listed: bool = False) -> Spoil:
    """Move a file; with ``listed``, in ``map.txt`` too."""

    def run(path: Path) -> None:
        (path / new).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path / old, path / new)
        if listed:
            lines = (path / MAP).read_text().replace("\\", "/").replace(old, new)
            (path / MAP).write_text(lines)

    return run


def annotation(*objects: str) -> str:
    inner = "".join(f"<object>{one}</object>" for one in objects)
    return f"<annotation><filename>x.tif</filename>{inner}</annotation>"


BOX = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>8</xmax><ymax>9</ymax></bndbox>"
REVERSED = BOX.replace("<xmax>8", "<xmax>0.5")
ROW = "1 0.0 0 0.0 {} 0.0 0.0 0.0 0.0 0.0 0.0 0.0\n"
ONE, XML = "labels/000000001.txt", "labels/000000001.xml"

# Format, what is done to it, the file that the fault names, a part of its message.
FAULTS: list[tuple[str, Spoil, str, str]] = [
    # Every export.
    (VOC, text(MAP, "\n \n"), MAP, "names no chip"),
    (VOC, text(STATS, "[]"), STATS, "JSON object"),
    (VOC, text(EMD, '{"a": 1'), EMD, "JSON"),
    (VOC, lambda p: (p / STATS).write_bytes(b"\xff\xfe{}") and None, STATS, "utf-8"),  # type: ignore[func-returns-value]
    (VOC, edit(STATS, lambda v: v["Classes"][1].update(ClassName="Water")), STATS, "another class"),
    (VOC, edit(STATS, lambda v: v["FeatureStats"].update(NumFeaturesTotal=-1)), STATS, "below 0"),
    (VOC, edit(STATS, lambda v: v.update(NumBands=4)), EMD, "3 entries for 4 bands"),
    (VOC, edit(EMD, lambda v: v["InputRastersProps"].update(BandNames=["a"])), EMD, "1 names"),
    (VOC, text("images/000000001.tfw", "0\n0\n0\n0\n1\n1\n"), "images/000000001.tfw", "cell size"),
    (VOC, text("images/000000001.tfw", "1\n0\n0\nnan\n1\n1\n"), "images/000000001.tfw", "finite"),
    # Boxes.
    (KITTI, text(ONE, ROW.format("8.00 2.00 8.00 9.00")), ONE, "xmin < xmax"),
    (KITTI, text(ONE, ROW.format("1.00 9.00 8.00 2.00")), ONE, "ymin < ymax"),
    (KITTI, text(ONE, ROW.format("1.00 2.00 33.00 9.00")), ONE, "inside the chip"),
    (KITTI, text(ONE, ROW.format("-1.00 2.00 8.00 9.00")), ONE, "inside the chip"),
    (KITTI, text(ONE, ROW.format("a 2.00 8.00 9.00")), ONE, "expected a number"),
    (KITTI, field(ONE, 0, 0, "9"), ONE, "class"),
    (VOC, text(XML, annotation("<name>1</name>")), XML, "no <bndbox>"),
    (VOC, text(XML, annotation(BOX)), XML, "no <name>"),
    (VOC, text(XML, annotation(f"<name>1</name>{REVERSED}")), XML, "xmin < xmax"),
    (VOC, text(XML, annotation()), XML, "the image is 000000001.tif"),
    (VOC, text(XML, "<annotation>"), XML, "well-formed"),
    (VOC, text(XML, '<!DOCTYPE a [<!ENTITY b "c">]><annotation/>'), XML, "DTD"),
    (VOC, text(XML, "<annotation><size><width>9</width><height>9</height></size></annotation>"),
     XML, "9 x 9"),
    (YOLO, text(ONE, "0 0.5 0.5 0.1\n"), ONE, "fields"),
    (YOLO, text(ONE, "0 0.5 0.5 0 0.1\n"), ONE, "xmin < xmax"),
    (YOLO, text(ONE, "0 0.5 x 0.1 0.1\n"), ONE, "number"),
    (YOLO, field(ONE, 0, 0, "9"), ONE, "class"),
    (COCO, edit("labels.json", lambda v: v["images"][1].update(id=v["images"][0]["id"])),
     "labels.json", "not unique"),
    (COCO, edit("labels.json", lambda v: v["annotations"][0].update(category_id=77)),
     "labels.json", "77"),
    (COCO, edit("labels.json", lambda v: v["annotations"][0].update(bbox=[1, 1, 0, 5])),
     "labels.json", "xmin < xmax"),
    (COCO, edit("labels.json", lambda v: v["annotations"][0].update(bbox=[1, 1, 90, 5])),
     "labels.json", "inside the chip"),
    (COCO, edit("labels.json", lambda v: v["annotations"][0].pop("bbox")), "labels.json", "bbox"),
    (COCO, text("labels.json", "{}"), "labels.json", "images"),
    (COCO_MASKS, edit("labels.json", lambda v: v["annotations"][0].pop("segmentation")),
     "labels.json", "segmentation"),
    # Masks.
    (TILES, raster("labels/000000001.tif", np.ones((2, 24, 32), np.uint8)), "labels/000000001.tif",
     "2 bands"),
    (TILES, raster("labels/000000001.tif", np.ones((1, 24, 32), np.float32)),
     "labels/000000001.tif", "whole numbers"),
    (TILES, raster("labels/000000001.tif", np.ones((1, 24, 32), np.uint8)), STATS, "labels hold"),
    (TILES, lambda p: (p / "labels/000000001.tif").unlink(), MAP, "not there"),
    (RCNN, raster("labels/*/000000001.tif", np.ones((1, 24, 30), np.uint8)), "000000001.tif",
     "30 x 24"),
    (RCNN, raster("labels/*/000000001.tif", np.ones((1, 24, 32), np.float32)), "000000001.tif",
     "whole numbers"),
    (RCNN, move("labels/Crop land/000000001.tif", "labels/Odd/000000001.tif", listed=True), "Odd",
     "class"),
    (PANOPTIC, raster("labels/000000001.tif", np.full((1, 24, 32), 9, np.uint8)),
     "labels/000000001.tif", "values [9]"),
    (PANOPTIC, raster("labels2/*/000000001.tif", np.ones((1, 24, 30), np.uint8)), "000000001.tif",
     "30 x 24"),
    # Whole chips.
    ("Labeled_Tiles", text(XML, annotation(f"<name>9</name>{BOX}")), XML, "class"),
    ("Labeled_Tiles", text(XML, annotation()), XML, "object"),
    ("Labeled_Tiles", text(XML, annotation("<name>1</name>")), XML, "bndbox"),
    ("Labeled_Tiles", text(XML, annotation(f"<name>1</name>{BOX}", f"<name>4</name>{BOX}")), XML,
     "2 objects"),
    ("MultiLabeled_Tiles", text(XML, annotation(f"<name>1, 4</name>{BOX}")), XML, "blank"),
    ("MultiLabeled_Tiles", text(XML, annotation(f"<name>1,9</name>{BOX}")), XML, "'9'"),
    ("Imagenet", move("images/Water/000000001.tif", "images/000000001.tif", listed=True),
     "images/000000001.tif", "no folder of a class"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "spoil", "file", "message"), FAULTS, ids=[f"{f[0]}-{f[3]}" for f in FAULTS]
)
def test_each_fault_of_a_format_is_named(
    write_export: WriteExport, mode: str, spoil: Spoil, file: str, message: str
) -> None:
    path = write_export(mode).path
    assert validate_export(path) == ()
    spoil(path)
    found = validate_export(path)
    assert [f for f in found if file in f.file and message in f"{f.where} {f.message}"], [
        str(fault) for fault in found
    ]


def test_both_sides_of_a_pair_are_checked(write_export: WriteExport, tmp_path: Path) -> None:
    one = write_export("CycleGAN").path
    pair = tmp_path / "pair"
    for side in "AB":
        shutil.copytree(one, pair / side)
    assert validate_export(pair) == ()
    (pair / "B" / EMD).unlink()
    assert {f.file for f in validate_export(pair)} == {f"B/{EMD}"}
    shutil.rmtree(pair / "B")
    assert {f.level for f in validate_export(pair)} == {"error"}


def test_second_rasters_are_whole_times_finer(write_export: WriteExport) -> None:
    path = write_export("Export_Tiles").path
    shutil.copytree(path / "images", path / "images2")
    assert validate_export(path) == ()
    raster("images2/000000001.tif", np.zeros((1, 48, 64), np.uint8))(path)
    assert validate_export(path) == ()
    raster("images2/000000001.tif", np.zeros((1, 30, 40), np.uint8))(path)
    assert [(f.file, f.level) for f in validate_export(path)] == [
        ("images2/000000001.tif", "error")
    ]
    shutil.copy(path / "images2" / "000000000.tif", path / "images2" / "000000009.tif")
    assert any("no image of its name" in f.message for f in validate_export(path))


def test_a_byte_order_mark_is_no_fault(write_export: WriteExport) -> None:
    path = write_export(VOC).path
    for name in (EMD, STATS, MAP):
        (path / name).write_bytes(b"\xef\xbb\xbf" + (path / name).read_bytes())
    assert validate_export(path) == ()
