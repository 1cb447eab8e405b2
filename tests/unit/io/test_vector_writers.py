from __future__ import annotations

import os
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pyogrio
import pytest
from shapely.geometry import LineString, MultiPolygon, Point, box

from geodl.base.errors import DataWarning, NotSupportedError, OutputError
from geodl.io.writers import WRITERS, vector_writer, write_features

SUFFIXES = (".parquet", ".gpkg", ".fgb", ".geojson", ".shp")


def detections(count: int = 4, crs: str | None = "EPSG:32633") -> gpd.GeoDataFrame:
    boxes = [box(500000 + 10 * n, 5000000, 500005 + 10 * n, 5000004) for n in range(count)]
    return gpd.GeoDataFrame(
        {
            "Class": pd.Series([f"Baum {n} ä" for n in range(count)], dtype="str"),
            "ClassValue": np.arange(count, dtype=np.int64),
            "Confidence": np.linspace(5, 99.5, count),
        },
        geometry=boxes,
        crs=crs,
    )


def read(path: Path) -> gpd.GeoDataFrame:
    return gpd.read_parquet(path) if path.suffix == ".parquet" else pyogrio.read_dataframe(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_keeps_columns_geometry_and_crs(tmp_path, suffix):
    path = write_features(detections(), tmp_path / "new" / f"trees{suffix}")
    frame = read(path).sort_values("ClassValue", ignore_index=True)
    assert frame["Class"].tolist() == detections()["Class"].tolist()
    np.testing.assert_allclose(frame["Confidence"], detections()["Confidence"])
    assert frame.crs.to_epsg() == (4326 if suffix == ".geojson" else 32633)
    back = frame.to_crs(32633)
    np.testing.assert_allclose(back.bounds, detections().bounds, atol=1e-4)
    assert not list(path.parent.glob(".*"))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_detections_are_a_layer_with_columns_and_no_rows(tmp_path, suffix):
    frame = read(write_features(detections(0), tmp_path / f"none{suffix}"))
    assert len(frame) == 0
    if suffix != ".geojson":
        assert {"Class", "ClassValue", "Confidence"} <= set(frame.columns)
        assert frame.crs.to_epsg() == 32633


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_older_product_is_replaced(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write_features(detections(4), path)
    write_features(detections(2), path)
    assert len(read(path)) == 2


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_polygons_and_multipolygons_go_together(tmp_path, suffix):
    frame = detections(2)
    frame.loc[1, "geometry"] = MultiPolygon([box(0, 0, 1, 1), box(2, 0, 3, 1)])
    assert len(read(write_features(frame, tmp_path / f"m{suffix}"))) == 2


def test_parquet_has_a_bounding_box_per_feature(tmp_path):
    path = write_features(detections(), tmp_path / "a.parquet")
    assert "bbox" in pq.read_schema(path).names
    window = gpd.read_parquet(path, bbox=(500009, 4999999, 500016, 5000001))
    assert window["ClassValue"].tolist() == [1]


def test_geojson_in_pixels_warns(tmp_path):
    with pytest.warns(DataWarning, match="pixel"):
        write_features(detections(crs=None), tmp_path / "a.geojson")


@pytest.mark.parametrize("suffix", [".parquet", ".gpkg", ".fgb", ".shp"])
def test_pixel_space_has_no_crs(tmp_path, suffix):
    frame = read(write_features(detections(crs=None), tmp_path / f"a{suffix}"))
    assert frame.crs is None


def test_a_shapefile_is_a_whole_set_and_its_names_are_short(tmp_path):
    frame = detections().rename(columns={"Confidence": "ConfidenceScore"})
    write_features(frame, tmp_path / "a.shp")
    assert {p.suffix for p in tmp_path.iterdir()} == {".shp", ".shx", ".dbf", ".prj", ".cpg"}
    assert "Confidence" in read(tmp_path / "a.shp").columns
    frame["ConfidenceOther"] = 1
    with pytest.raises(OutputError, match=r"ConfidenceOther, ConfidenceScore"):
        write_features(frame, tmp_path / "b.shp")
    assert not (tmp_path / "b.shp").exists()


def test_what_a_format_cannot_hold_is_an_output_error(tmp_path):
    frame = gpd.GeoDataFrame(geometry=[Point(0, 0), LineString([(0, 0), (1, 1)])], crs="EPSG:32633")
    with pytest.raises(OutputError, match=r"a\.shp cannot be written"):
        write_features(frame, tmp_path / "a.shp")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="permission"):
            write_features(detections(), tmp_path / "a.gpkg")
    finally:
        tmp_path.chmod(0o700)


def test_a_file_where_a_folder_should_be_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"a\.gpkg"):
        write_features(detections(), tmp_path / "file" / "a.gpkg")


def test_suffixes_without_a_writer_list_the_others(tmp_path):
    for suffix in (".txt", ".tif", ""):
        with pytest.raises(NotSupportedError, match=r"\.gpkg"):
            write_features(detections(), tmp_path / f"a{suffix}")
    assert vector_writer(".GPKG").kind == "vector"


@pytest.mark.parametrize("suffix", list(WRITERS))
def test_every_row_of_the_table_is_a_writer(suffix):
    assert WRITERS[suffix]().kind in ("vector", "raster")
