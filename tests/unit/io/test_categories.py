"""Names of classes come from the side files of a class raster, and nothing else is believed."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import pytest

from geodl.core.classes import ClassTable
from geodl.io.categories import category_names
from geodl.io.writers.categories import write_categories

LIST = "<CategoryNames><Category/><Category>Water</Category></CategoryNames>"
TABLE = """<GDALRasterAttributeTable>
<FieldDefn index="0"><Name>No</Name><Usage>5</Usage></FieldDefn>
<FieldDefn index="1"><Name>Kind</Name><Usage>2</Usage></FieldDefn>
<Row index="0"><F>4</F><F>Crop</F></Row><Row index="1"><F>x</F><F>Odd</F></Row>
<Row index="2"><F>5</F></Row></GDALRasterAttributeTable>"""


def pam(path: Path, band: str) -> str:
    Path(f"{path}.aux.xml").write_text(
        f'<PAMDataset><PAMRasterBand band="1">{band}</PAMRasterBand></PAMDataset>'
    )
    return str(path)


def test_what_our_own_rasters_say_is_read(tmp_path: Path) -> None:
    table = ClassTable.from_mapping({2: "Roof", 7000: "Road"})
    write_categories(tmp_path / "map.tif", table, nodata=255)
    names = category_names(str(tmp_path / "map.tif"))
    assert names == {0: "background", 2: "Roof", 7000: "Road"}


@pytest.mark.parametrize(
    ("band", "names"),
    [(LIST, {1: "Water"}), (TABLE, {4: "Crop"}), (LIST + TABLE, {4: "Crop"}), ("", {})],
)
def test_tables_go_before_lists(tmp_path: Path, band: str, names: dict[int, str]) -> None:
    assert category_names(pam(tmp_path / "a.tif", band)) == names


def test_a_table_beside_the_raster_is_read(tmp_path: Path) -> None:
    table = gpd.GeoDataFrame(
        {"Value": [1, 3], "Class_Name": ["Sea", "Land"]}, geometry=[None] * 2, crs=4326
    )
    table.to_file(tmp_path / "table.shp", engine="pyogrio", geometry_type="Point")
    (tmp_path / "table.dbf").rename(tmp_path / "a.tif.vat.dbf")
    assert category_names(str(tmp_path / "a.tif")) == {1: "Sea", 3: "Land"}


@pytest.mark.parametrize("text", ["", "no xml", '<!DOCTYPE a [<!ENTITY b "c">]><a/>'])
def test_broken_side_files_say_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.tif.aux.xml").write_text(text)
    assert category_names(str(tmp_path / "a.tif")) == {}
    assert category_names("s3://bucket/a.tif") == {}
