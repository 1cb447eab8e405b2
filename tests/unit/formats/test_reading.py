"""Folders as ArcGIS Pro and people leave them: tolerated where harmless, named where broken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from geodl.base.errors import DataError, FormatError, NotSupportedError, SourceNotFoundError
from geodl.formats import count_labels, open_export
from geodl.formats.accumulated import counts_of_export

from .conftest import CLASSES, WriteExport

VOC, TILES, KITTI = "PASCAL_VOC_rectangles", "Classified_Tiles", "KITTI_rectangles"


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def label(text: str = "", *, name: str = "1", box: str | None = None) -> str:
    box = box or ("<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>10.5</xmax><ymax>20</ymax></bndbox>")
    return f"<annotation>{text}<object><name>{name}</name>{box}</object></annotation>"


# -- tolerated --------------------------------------------------------------------------------


def test_an_old_export_without_the_newer_keys_is_read(write_export: WriteExport) -> None:
    path = write_export(VOC).path
    emd = {
        "Framework": "e.g. TensorFlow",
        "ImageHeight": "e.g. 256",
        "ExtractBands": ["e.g. [0, 1, 2]"],
        "BatchSize": "e.g. 64",
        "WellKnownBandNames (FYI, these band names can be used in ExtractBands)": ["Red"],
        "Classes": [
            {"ClassValue": 1, "ClassName": "Water"},
            {"ClassValue": 4, "ClassName": "Crop land", "Color": [-1, -1, -1]},
            {"ClassValue": None, "ClassName": "nothing"},
        ],
    }
    (path / "esri_model_definition.emd").write_text("\ufeff" + json.dumps(emd))
    edit_json(path / "esri_accumulated_stats.json", lambda stats: stats.pop("BandStatsState"))
    folder = open_export(path)
    assert folder.classes.names == ["Water", "Crop land"]
    assert (folder.stats, folder.cell_size, folder.band_names) == (None, None, ())


def test_statistics_of_bands_may_stand_in_the_other_file(write_export: WriteExport) -> None:
    made = write_export(VOC)
    before = open_export(made.path).stats
    edit_json(made.path / "esri_model_definition.emd", lambda emd: emd.pop("AllTilesStats"))
    after = open_export(made.path).stats
    assert before is not None
    assert after is not None
    assert after[2].std == pytest.approx(before[2].std)


def test_map_txt_may_use_slashes_blanks_other_case_and_crlf(write_export: WriteExport) -> None:
    path = write_export(VOC).path
    (path / "map.txt").write_bytes(
        b"\xef\xbb\xbfIMAGES/000000002.tif labels/000000002.XML\r\n\r\nimages\\000000000.tif \r\n"
    )
    folder = open_export(path)
    assert [ref.name for ref in folder.chips] == ["000000002", "000000000"]
    assert [len(ref.labels) for ref in folder.chips] == [1, 1]


def test_files_of_other_programs_are_passed_over(write_export: WriteExport) -> None:
    path = write_export(VOC).path
    for name in ("Thumbs.db", "000000000.tif.aux.xml", "000000000.tif.ovr", "notes.txt"):
        (path / "images" / name).write_text("x")
        (path / "labels" / name).write_text("x")
    (path / "map.txt").unlink()
    folder = open_export(path, VOC)
    assert len(folder) == 3
    assert count_labels(folder) == folder.class_counts


def test_a_missing_label_file_leaves_the_chip_unlabelled(write_export: WriteExport) -> None:
    for mode in (VOC, KITTI, TILES):
        made = write_export(mode)
        next((made.path / "labels").glob("000000001.*")).unlink()
        folder = open_export(made.path)
        assert [len(ref.labels) for ref in folder.chips] == [1, 0, 1]
        assert not folder.chip_format.read_label(folder.chips[1], folder).values.any()
        shutil.rmtree(made.path)


def test_extra_voc_elements_and_names_for_values_are_understood(write_export: WriteExport) -> None:
    made = write_export(VOC)
    box = (
        "<pose>Left</pose><difficult>0</difficult><bndbox><ymax>20</ymax><xmax>32.005</xmax>"
        "<ymin>2</ymin><xmin> -0.004 </xmin></bndbox><part><name>4</name></part>"
    )
    (made.path / "labels/000000000.xml").write_text(
        label("<folder>x</folder><owner/>", name=" Crop land ", box=box)
    )
    folder = open_export(made.path)
    found = folder.chip_format.read_label(folder.chips[0], folder)
    assert found.values.tolist() == [4]
    assert found.boxes.tolist() == [[0, 2, 32, 20]]


def test_a_label_without_objects_is_an_empty_one(write_export: WriteExport) -> None:
    made = write_export(VOC)
    (made.path / "labels/000000000.xml").write_text("<annotation/>")
    folder = open_export(made.path)
    assert folder.chip_format.read_label(folder.chips[0], folder).boxes.shape == (0, 4)


def test_a_kitti_score_and_blank_lines_are_passed_over(write_export: WriteExport) -> None:
    made = write_export(KITTI)
    fillers = "-1 -1 -1 -1000 -1000 -1000 -10"
    (made.path / "labels/000000000.txt").write_text(
        f"\nWater -1 -1 -10  1 2\t10.5 20 {fillers} 0.93\n\n"
    )
    folder = open_export(made.path)
    found = folder.chip_format.read_label(folder.chips[0], folder)
    assert found.boxes.tolist() == [[1, 2, 10.5, 20]]
    assert found.values.tolist() == [1]


def test_other_spellings_of_counts_are_understood(write_export: WriteExport) -> None:
    made = write_export(TILES)

    def change(stats: dict[str, Any]) -> None:
        stats["NumTilesAsDouble"] = float(stats.pop("NumTiles"))
        stats["ClassPixelStats"]["NumPixelsPerClass"][0] = -17

    edit_json(made.path / "esri_accumulated_stats.json", change)
    folder = open_export(made.path)
    assert folder.class_counts is None
    with pytest.raises(DataError, match="no counts per class"):
        folder.balanced_weights()


def test_the_nodata_of_a_label_is_background(write_export: WriteExport) -> None:
    made = write_export(TILES)
    path = made.path / "labels/000000000.tif"
    values = np.where(made.labels[0].values == 4, 200, made.labels[0].values).astype(np.uint8)
    with rasterio.open(path, "r+") as dataset:
        dataset.write(values, 1)
        dataset.nodata = 200
    folder = open_export(made.path)
    found = folder.chip_format.read_label(folder.chips[0], folder).values
    assert np.array_equal(found, np.where(made.labels[0].values == 4, 0, made.labels[0].values))


@pytest.mark.parametrize("mode", [VOC, KITTI])
def test_a_plain_folder_is_read_when_its_type_is_given(
    write_export: WriteExport, mode: str
) -> None:
    made = write_export(mode)
    for name in ("esri_model_definition.emd", "esri_accumulated_stats.json", "map.txt"):
        (made.path / name).unlink()
    folder = open_export(made.path, mode)
    assert folder.classes.values == [1, 4]
    assert (folder.bands, folder.tile_size, folder.dtype) == (3, (32, 24), "uint8")
    assert (folder.stats, folder.class_counts) == (None, None)
    assert count_labels(folder) == made.counts.totals()


def test_names_in_a_plain_folder_are_numbered_in_order(write_export: WriteExport) -> None:
    made = write_export(VOC, chips=2)
    for name in ("esri_model_definition.emd", "esri_accumulated_stats.json", "map.txt"):
        (made.path / name).unlink()
    (made.path / "labels/000000000.xml").write_text(label(name="tree"))
    (made.path / "labels/000000001.xml").write_text(label(name="house"))
    folder = open_export(made.path, VOC)
    assert folder.classes.names == ["house", "tree"]
    assert count_labels(folder) == {1: 1, 2: 1}


def test_esri_files_decide_over_the_type_that_is_given(write_export: WriteExport) -> None:
    assert open_export(write_export(TILES).path, VOC).metadata_mode == TILES


# -- refused ----------------------------------------------------------------------------------


def test_nothing_there_or_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="no chip folder"):
        open_export(tmp_path / "gone")
    (tmp_path / "file").write_text("x")
    with pytest.raises(FormatError, match="is a file"):
        open_export(tmp_path / "file")


@pytest.mark.parametrize(
    "name", ["esri_model_definition.emd", "esri_accumulated_stats.json", "map.txt"]
)
def test_an_incomplete_folder_names_what_is_missing(write_export: WriteExport, name: str) -> None:
    made = write_export(VOC)
    (made.path / name).unlink()
    with pytest.raises(FormatError, match=rf"{name}.*incomplete"):
        open_export(made.path)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("stats", lambda s: s.update(MetaDataMode="Panoptic"), "different exports"),
        ("stats", lambda s: s.update(NumBands=0), "NumBands"),
        ("stats", lambda s: s.update(NumBands=4), r"000000000\.tif has 3 bands"),
        ("stats", lambda s: s.update(TileSizeX=33), r"000000000\.tif has 32 x 24"),
        ("stats", lambda s: s.update(TileSizeY="many"), "TileSizeY"),
        ("emd", lambda e: e.update(ImageSpaceUsed="MOON"), "ImageSpaceUsed"),
        ("emd", lambda e: e["Classes"].append({"Value": 1, "Name": "again"}), "more than once"),
        ("emd", lambda e: e["Classes"].append({"Value": 1.5, "Name": "half"}), "whole number"),
        ("emd", lambda e: e["Classes"].append("x"), "Classes"),
        ("emd", lambda e: e["AllTilesStats"].pop(), "2 entries for 3 bands"),
        ("emd", lambda e: e["AllTilesStats"][0].update(Mean="x"), "Mean"),
        ("emd", lambda e: e["MinCellSize"].update(x=None), "x=None"),
    ],
)
def test_root_files_that_contradict_themselves_are_named(
    write_export: WriteExport, file: str, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    made = write_export(VOC)
    name = {"stats": "esri_accumulated_stats.json", "emd": "esri_model_definition.emd"}[file]
    edit_json(made.path / name, change)
    with pytest.raises(FormatError, match=message):
        open_export(made.path)


def test_an_unknown_format_names_the_known_ones(write_export: WriteExport) -> None:
    made = write_export(VOC)
    for name in ("esri_model_definition.emd", "esri_accumulated_stats.json"):
        edit_json(made.path / name, lambda value: value.update(MetaDataMode="Classified_Tile"))
    with pytest.raises(NotSupportedError, match="Classified_Tiles"):
        open_export(made.path)


@pytest.mark.parametrize("text", ["{", "[]", '{"a": NaN}', "\x00\xff"])
def test_json_that_is_none_is_named(write_export: WriteExport, text: str) -> None:
    made = write_export(VOC)
    (made.path / "esri_model_definition.emd").write_bytes(text.encode("latin-1"))
    with pytest.raises(FormatError, match=r"esri_model_definition\.emd"):
        open_export(made.path)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("\n \n", "names no chip"),
        ("images\\000000009.tif  labels\\a.xml \n", r"line 1 .*000000009\.tif"),
        ("\nimages\\..\\..\\000000000.tif  x \n", "line 2 .*inside the export"),
        ("/etc/passwd  x \n", "inside the export"),
        ("C:\\images\\a.tif  x \n", "inside the export"),
        ("images\\000000000.tif\nimages\\000000000.tif\n", "000000000.* twice"),
    ],
)
def test_lines_of_map_txt_that_lead_nowhere_are_named(
    write_export: WriteExport, lines: str, message: str
) -> None:
    made = write_export(VOC)
    (made.path / "map.txt").write_text(lines)
    with pytest.raises(FormatError, match=message):
        open_export(made.path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation><object>", "well-formed"),
        ("", "well-formed"),
        ("<kml/>", "root <kml>"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation/>', "DTD"),
        ("<!DOCTYPE annotation><annotation/>", "DTD"),
        ("<annotation><object><name>1</name></object></annotation>", "no <bndbox>"),
        ("<annotation><object><bndbox/></object></annotation>", "no <name>"),
        (label(name="Fire"), "object 1 has the class 'Fire'"),
        (label(name="7"), "'7'"),
        (label("<size><width>99</width><height>24</height></size>"), "99 x 24"),
        (label().replace("<xmax>10.5</xmax>", ""), "no <xmax>"),
        (label().replace("10.5", "wide"), "'wide'"),
        (label().replace("10.5", "nan"), "'nan'"),
        (label().replace("10.5", "1e400"), "1e400"),
        (label().replace("10.5", "1"), r"\(1, 2, 1, 20\)"),
        (label().replace("10.5", "0.5"), "xmin < xmax"),
        (label().replace("10.5", "32.02"), "32 x 24"),
        (label().replace("<ymin>2", "<ymin>-3"), "inside the chip"),
    ],
)
def test_broken_voc_labels_name_their_file(
    write_export: WriteExport, text: str, message: str
) -> None:
    made = write_export(VOC)
    (made.path / "labels/000000001.xml").write_text(text)
    folder = open_export(made.path)
    with pytest.raises(FormatError, match=message) as caught:
        folder.chip_format.read_label(folder.chips[1], folder)
    assert "000000001.xml" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 0 0 0 1 2 10 20\n", "line 1 has 8 fields"),
        ("\n9" + " 0" * 3 + " 1 2 10 20" + " 0" * 7, "line 2 has the class '9'"),
        ("1" + " 0" * 3 + " 1 2 x 20" + " 0" * 7, "right is 'x'"),
        ("1" + " 0" * 3 + " 11 2 10 20" + " 0" * 7, "object 1"),
    ],
)
def test_broken_kitti_rows_name_file_and_line(
    write_export: WriteExport, text: str, message: str
) -> None:
    made = write_export(KITTI)
    (made.path / "labels/000000001.txt").write_text(text)
    folder = open_export(made.path)
    with pytest.raises(FormatError, match=message) as caught:
        folder.chip_format.read_label(folder.chips[1], folder)
    assert "000000001.txt" in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((24, 31), np.uint8), "31 x 24"),
        (np.full((24, 32), 3, np.uint8), r"values \[3\]"),
        (np.zeros((24, 32), np.float32), "whole numbers"),
        (np.zeros((2, 24, 32), np.uint8), "2 bands"),
    ],
)
def test_masks_that_do_not_fit_name_their_file(
    write_export: WriteExport, values: np.ndarray, message: str
) -> None:
    made = write_export(TILES)
    stack = values.reshape(-1, *values.shape[-2:])
    with rasterio.open(
        made.path / "labels/000000001.tif", "w", driver="GTiff", count=len(stack),
        height=stack.shape[1], width=stack.shape[2], dtype=stack.dtype.name, crs="EPSG:32633",
        transform=rasterio.Affine(1, 0, 5, 0, -1, 5),
    ) as dataset:  # fmt: skip
        dataset.write(stack)
    folder = open_export(made.path)
    with pytest.raises(FormatError, match=message) as caught:
        folder.chip_format.read_label(folder.chips[1], folder)
    assert "000000001.tif" in str(caught.value)


def test_chips_that_differ_from_their_export_are_named(write_export: WriteExport) -> None:
    made = write_export(VOC, dtype="uint16", bands=2)
    folder = open_export(made.path)
    shutil.rmtree(made.path)
    write_export(VOC, dtype="uint16", bands=1)
    with pytest.raises(FormatError, match=r"000000002\.tif has 1 bands"):
        folder.chip_format.read_chip(folder.chips[2], folder)
    folder.chips[1].image.unlink()
    with pytest.raises(FormatError, match=r"000000001\.tif is missing"):
        folder.chip_format.read_chip(folder.chips[1], folder)


def test_a_plain_folder_without_images_or_objects_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no folder 'images'"):
        open_export(tmp_path, VOC)
    (tmp_path / "images").mkdir()
    with pytest.raises(FormatError, match="names no chip"):
        open_export(tmp_path, VOC)


@pytest.mark.parametrize("mode", [TILES, "Panoptic_Segmentation"])
def test_plain_class_tiles_have_the_classes_of_their_values(
    write_export: WriteExport, mode: str
) -> None:
    made = write_export(mode)
    for name in ("esri_model_definition.emd", "esri_accumulated_stats.json", "map.txt"):
        (made.path / name).unlink()
    for folder in (made.path / "labels2").glob("*"):
        value = CLASSES.values[CLASSES.names.index(folder.name)]
        folder.rename(folder.with_name(str(value)))
    folder = open_export(made.path, mode)
    assert (folder.classes.values, folder.classes.names) == ([1, 4], ["1", "4"])
    assert count_labels(folder) == made.counts.totals()
    for ref in folder.chips:
        with rasterio.open(ref.labels[0], "r+") as file:
            file.write(np.zeros((1, file.height, file.width), file.dtypes[0]))
    with pytest.raises(FormatError, match="nothing but 0"):
        open_export(made.path, mode)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("FeatureStats"), "no FeatureStats"),
        (lambda s: s["FeatureStats"].pop("NumImagesPerClass"), "NumImagesPerClass"),
        (lambda s: s["FeatureStats"]["NumFeaturesPerClass"].pop(), "each of 2 classes"),
        (lambda s: s["FeatureStats"].pop("NumFeaturesPerImage"), "NumFeaturesPerImage"),
        (lambda s: s["BandStatsState"].__setitem__(0, 1), "BandStatsState"),
        (lambda s: s.update(NumTiles=-1), "NumTiles"),
    ],
)
def test_counts_that_cannot_be_added_to_are_named(
    write_export: WriteExport, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    made = write_export(VOC)
    folder = open_export(made.path)
    stats = json.loads((made.path / "esri_accumulated_stats.json").read_text())
    change(stats)
    with pytest.raises(FormatError, match=message):
        counts_of_export(folder, stats)


def test_older_statistics_are_added_to_by_mean_and_deviation(write_export: WriteExport) -> None:
    made = write_export(VOC)
    stats = json.loads((made.path / "esri_accumulated_stats.json").read_text())
    exact = counts_of_export(open_export(made.path), stats)
    stats.pop("BandStatsState")
    rough = counts_of_export(open_export(made.path), stats)
    assert rough.bands[0].count == exact.bands[0].count
    assert rough.bands[0].std == pytest.approx(exact.bands[0].std, rel=1e-9)
