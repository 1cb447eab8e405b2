"""Checking an export names each fault with its file, and the line or key in it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from geodl.base.errors import FormatError, SourceNotFoundError
from geodl.cli.main import main
from geodl.formats import FORMATS, validate_export

from .conftest import WriteExport

VOC, TILES, RCNN = "PASCAL_VOC_rectangles", "Classified_Tiles", "RCNN_Masks"
EMD, STATS, MAP = "esri_model_definition.emd", "esri_accumulated_stats.json", "map.txt"


@pytest.mark.parametrize("mode", sorted(FORMATS))
@pytest.mark.parametrize(
    ("chip_format", "bands", "dtype"),
    [("TIFF", 13, "float32"), ("PNG", 4, "uint16"), ("JPEG", 1, "uint8"), ("MRF", 3, "int16")],
)
def test_what_geodl_writes_has_no_fault(
    write_export: WriteExport, mode: str, chip_format: str, bands: int, dtype: str
) -> None:
    made = write_export(mode, chip_format, bands=bands, dtype=dtype)
    assert [str(fault) for fault in validate_export(made.path)] == []


def edit(name: str, change: Callable[[Any], None]) -> Callable[[Path], None]:
    """Change a JSON file of the export."""

    def run(path: Path) -> None:
        value = json.loads((path / name).read_text())
        change(value)
        (path / name).write_text(json.dumps(value))

    return run


def text(name: str, old: str, new: str) -> Callable[[Path], None]:
    """Replace a text once in a file of the export."""

    def run(path: Path) -> None:
        before = (path / name).read_text()
        assert old in before
        (path / name).write_text(before.replace(old, new, 1))

    return run


def remove(name: str) -> Callable[[Path], None]:
    return lambda path: (path / name).unlink()


def raster(name: str, data: np.ndarray) -> Callable[[Path], None]:
    """Replace a raster of the export."""

    def run(path: Path) -> None:
        with rasterio.open(path / name) as dataset:
            profile = dataset.profile
        profile |= {"count": len(data), "height": data.shape[1], "width": data.shape[2],
                    "dtype": data.dtype}  # fmt: skip
        with rasterio.open(path / name, "w", **profile) as dataset:
            dataset.write(data)

    return run


def set_key(*keys: Any, value: Any) -> Callable[[Any], None]:
    def change(tree: Any) -> None:
        for key in keys[:-1]:
            tree = tree[key]
        tree[keys[-1]] = value

    return change


FAULTS = [
    (VOC, remove(EMD), EMD, "", "is missing"),
    (VOC, text(EMD, "{", "{{"), EMD, "", "JSON"),
    (VOC, edit(EMD, set_key("MetaDataMode", value=TILES)), EMD, "MetaDataMode", "Classified"),
    (VOC, edit(STATS, set_key("MetaDataMode", value="Odd")), STATS, "MetaDataMode", "'Odd'"),
    (VOC, edit(EMD, set_key("Classes", 1, "Value", value=1)), EMD, "Classes[1]", "another class"),
    (VOC, edit(EMD, set_key("Classes", 0, "Name", value=" ")), EMD, "Classes[0].Name", "a name"),
    (VOC, edit(EMD, set_key("Classes", 0, "Value", value=1.5)), EMD, "Classes[0].Value", "whole"),
    (VOC, edit(EMD, set_key("Classes", 0, "Color", value=[1, 2, 300])), EMD, "Classes[0].Color",
     "0..255"),
    (VOC, edit(EMD, set_key("ImageSpaceUsed", value="X")), EMD, "ImageSpaceUsed", "MAP_SPACE"),
    (VOC, edit(EMD, set_key("AllTilesStats", 1, "Min", value=1e9)), EMD, "AllTilesStats[1]",
     "contradict"),
    (VOC, edit(EMD, set_key("AllTilesStats", 1, "StdDev", value=-1)), EMD, "AllTilesStats[1]",
     "at least 0"),
    (VOC, edit(EMD, lambda v: v["AllTilesStats"].pop()), EMD, "AllTilesStats", "2 entries"),
    (VOC, edit(STATS, set_key("TileSizeX", value=0)), STATS, "TileSizeX", "1"),
    (VOC, edit(STATS, set_key("FeatureStats", "NumFeaturesPerImage", "Mean", value=77)), STATS,
     "FeatureStats.NumFeaturesPerImage", "Sum / Count"),
    (VOC, edit(STATS, set_key("NumTiles", value=9)), STATS, "NumTiles", "there are 3"),
    (VOC, edit(STATS, set_key("FeatureStats", "NumFeaturesPerClass", value=[0, 0])), STATS,
     "class 4", "the labels hold"),
    (VOC, text(MAP, "000000001.xml", "x.xml"), MAP, "line 2", "x.xml"),
    (VOC, text(MAP, "images\\000000001", "..\\000000001"), MAP, "line 2", "inside"),
    (VOC, text(MAP, "000000001.tif", "000000000.tif"), MAP, "", "twice"),
    (VOC, remove("images/000000001.tif"), MAP, "line 2", "not there"),
    (VOC, lambda p: (p / "images/000000001.tif").write_bytes(b"II*"), "images/000000001.tif", "",
     "damaged"),
    (VOC, raster("images/000000002.tif", np.zeros((2, 24, 32), np.uint8)), "images/000000002.tif",
     "", "2 bands"),
    (VOC, raster("images/000000002.tif", np.zeros((3, 24, 30), np.uint8)), "images/000000002.tif",
     "", "30 x 24"),
    (VOC, raster("images/000000002.tif", np.zeros((3, 24, 32), np.uint16)), "images/000000002.tif",
     "", "uint16"),
    (VOC, text("images/000000001.tfw", "432110.25", "432110.75"), "images/000000001.tfw", "",
     "1 cells"),
    (VOC, text("images/000000001.tfw", "0.0000000000\n", ""), "images/000000001.tfw", "", "5 num"),
    (VOC, text("labels/000000001.xml", "<xmax>", "<xmax>9"), "labels/000000001.xml", "object 1",
     "inside the chip"),
    (VOC, text("labels/000000001.xml", "<name>", "<name>7"), "labels/000000001.xml", "object 1",
     "class"),
    ("KITTI_rectangles", text("labels/000000001.txt", "0.0 0 0.0", "0.0"), "labels/000000001.txt",
     "line 1", "13 fields"),
    ("YOLO_rectangles", text("labels/000000001.txt", "0.", "7."), "labels/000000001.txt",
     "object 1", "inside the chip"),
    ("COCO_rectangles", text("labels.json", '"image_id":1', '"image_id":55'), "labels.json",
     "annotations[1]", "55"),
    ("COCO_instances", text("labels.json", '"counts":[', '"counts":[1,'), "labels.json",
     "annotations[0]", "fill"),
    (TILES, raster("labels/000000001.tif", np.full((1, 24, 32), 9, np.uint8)),
     "labels/000000001.tif", "", "values [9]"),
    (TILES, raster("labels/000000001.tif", np.zeros((1, 24, 31), np.uint8)),
     "labels/000000001.tif", "", "31 x 24"),
    ("Labeled_Tiles", text("labels/000000001.xml", "object>", "thing>"), "labels/000000001.xml", "",
     "well-formed"),
    ("MultiLabeled_Tiles", text("labels/000000000.xml", "<name>", "<name>,"),
     "labels/000000000.xml", "", "empty class"),
    ("Panoptic_Segmentation", edit(EMD, set_key("Panoptic_Segmentation_Instance_Classes",
     value=[{"Value": 9, "Name": "x"}])), EMD, "", "value 9"),
]  # fmt: skip


@pytest.mark.parametrize(("mode", "spoil", "file", "where", "message"), FAULTS)
def test_each_fault_is_named(
    write_export: WriteExport,
    mode: str,
    spoil: Callable[[Path], None],
    file: str,
    where: str,
    message: str,
) -> None:
    path = write_export(mode).path
    spoil(path)
    found = validate_export(path)
    said = [str(fault) for fault in found]
    match = [f for f in found if f.file == file and message in f.message]
    if mode != "Panoptic_Segmentation":
        match = [fault for fault in match if fault.where == where]
    assert match or any(EMD in s and message in s for s in said), said


def test_every_fault_is_listed_not_the_first_alone(write_export: WriteExport) -> None:
    path = write_export(VOC).path
    for number in (0, 2):
        text(f"labels/00000000{number}.xml", "<xmin>", "<xmin>x")(path)
    remove("images/000000001.tif")(path)
    found = {(fault.file, fault.where) for fault in validate_export(path)}
    assert {("labels/000000000.xml", "object 1"), ("labels/000000002.xml", "object 1"),
            ("map.txt", "line 2")} <= found  # fmt: skip


def test_odd_things_that_can_be_read_are_warnings(write_export: WriteExport) -> None:
    path = write_export(RCNN).path
    label = next(path.rglob("labels/*/000000000.tif"))
    raster(str(label.relative_to(path)), np.full((1, 24, 32), 3, np.uint8))(path)
    found = [fault for fault in validate_export(path) if fault.level == "warning"]
    assert [fault.where for fault in found] == ["band 1"]


def test_second_rasters_need_a_chip_for_each_image(write_export: WriteExport) -> None:
    path = write_export("Export_Tiles").path
    (path / "images2").mkdir()
    for name in ("000000000.tif", "000000001.tif"):
        (path / "images2" / name).write_bytes((path / "images" / name).read_bytes())
    assert [f.file for f in validate_export(path)] == ["images2/000000002.tif"]


def test_places_without_an_export(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="no chip folder"):
        validate_export(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(FormatError, match="is a file"):
        validate_export(tmp_path / "file")
    assert {f.file for f in validate_export(tmp_path)} == {EMD, STATS, MAP}


def test_the_command_lists_faults_and_fails(
    write_export: WriteExport, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_export(VOC).path
    assert main(["chips", "validate", str(path)]) == 0
    assert capsys.readouterr().out.endswith(": 0 errors, 0 warnings\n")
    remove("labels/000000001.xml")(path)
    assert main(["chips", "validate", str(path)]) == 1
    out = capsys.readouterr().out
    assert re.search(r"^error: map\.txt, line 2: names .*000000001\.xml", out, re.MULTILINE)
    assert main(["chips", "validate", str(path), "--json"]) == 1
    value = json.loads(capsys.readouterr().out)
    assert value["errors"] == len([f for f in value["faults"] if f["level"] == "error"]) > 0


@pytest.mark.parametrize("mode", sorted(FORMATS))
def test_info_describes_every_format(
    write_export: WriteExport, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    assert main(["chips", "info", str(write_export(mode).path), "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert (value["format"], value["chips"]) == (mode, 3)


def test_info_of_a_plain_folder_takes_its_type(
    write_export: WriteExport, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_export(VOC).path
    for name in (EMD, STATS, MAP):
        (path / name).unlink()
    assert main(["chips", "info", str(path)]) == 1
    assert "dataset_type" in capsys.readouterr().err
    assert main(["chips", "info", str(path), "--dataset-type", VOC, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["chips"] == 3
