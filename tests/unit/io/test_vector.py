from __future__ import annotations

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from shapely.geometry import Point, Polygon, box

from geodl.base.errors import (
    DataError,
    DataWarning,
    GridMismatchError,
    OptionError,
    SourceError,
    SourceNotFoundError,
)
from geodl.core.grid import GeoGrid
from geodl.io.crs import crs_text
from geodl.io.vector import features_identity, features_on_grid, read_features
from geodl.io.writers import write_features

UTM = crs_text(32633)
GRID = GeoGrid(width=10, height=10, transform=(1, 0, 500000, 0, -1, 5000000), crs=UTM)


def squares(crs: str | None = "EPSG:32633") -> gpd.GeoDataFrame:
    boxes = [box(500000 + 3 * n, 4999990, 500002 + 3 * n, 4999995) for n in range(3)]
    return gpd.GeoDataFrame({"kind": ["a", "b", "a"], "n": [1, 2, 3]}, geometry=boxes, crs=crs)


def save(frame: gpd.GeoDataFrame, path: Path) -> Path:
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        write_features(frame, path)
    return path


@pytest.mark.parametrize("suffix", [".gpkg", ".parquet", ".shp", ".fgb", ".geojson"])
def test_any_format_is_read_in_the_crs_that_is_asked_for(tmp_path, suffix):
    frame = squares() if suffix != ".geojson" else squares().to_crs(4326)
    read = read_features(save(frame, tmp_path / f"a{suffix}"), crs=UTM)
    assert crs_text(read.crs) == UTM
    np.testing.assert_allclose(
        np.sort(read.bounds.to_numpy(), axis=0), squares().bounds.to_numpy(), atol=1e-5
    )
    assert set(read["kind"]) == {"a", "b"}


def test_a_frame_is_read_as_its_own_copy():
    frame = squares()
    read = read_features(frame)
    read.loc[0, "kind"] = "changed"
    assert frame.loc[0, "kind"] == "a"
    assert read_features(frame.geometry).crs == frame.crs


def test_features_without_a_crs_say_how_to_state_one(tmp_path):
    path = save(squares(None), tmp_path / "a.gpkg")
    with pytest.raises(GridMismatchError, match=r"a\.gpkg states no CRS.*assume_crs"):
        read_features(path, crs=UTM)
    stated = read_features(path, crs=4326, assume_crs="EPSG:32633")
    np.testing.assert_allclose(stated.total_bounds, squares().to_crs(4326).total_bounds)
    assert read_features(path).crs is None
    with pytest.raises(GridMismatchError, match="the GeoDataFrame states no CRS"):
        read_features(squares(None), crs=UTM)


def test_a_stated_crs_wins_over_an_assumed_one():
    read = read_features(squares(), crs=UTM, assume_crs=4326)
    np.testing.assert_allclose(read.total_bounds, squares().total_bounds)


def test_geojson_in_metres_without_a_crs_is_not_taken_for_degrees(tmp_path):
    path = tmp_path / "m.geojson"
    features = json.loads(squares(None).to_json())
    features.pop("crs", None)
    path.write_text(json.dumps(features))
    with pytest.raises(GridMismatchError, match="assume_crs"):
        read_features(path, crs=UTM)
    stated = read_features(path, crs=UTM, assume_crs=32633)
    np.testing.assert_allclose(stated.total_bounds, squares().total_bounds)


def test_geojson_in_degrees_needs_no_crs(tmp_path):
    path = tmp_path / "d.geojson"
    features = json.loads(squares().to_crs(4326).to_json())
    features.pop("crs", None)
    path.write_text(json.dumps(features))
    read = read_features(path, crs=UTM)
    np.testing.assert_allclose(read.total_bounds, squares().total_bounds, atol=1e-3)


def test_pixel_space_takes_features_without_a_crs_only():
    pixels = GeoGrid(width=10, height=10, transform=(1, 0, 0, 0, 1, 0))
    assert features_on_grid(squares(None), pixels).crs is None
    with pytest.raises(GridMismatchError, match=r"EPSG:32633.*pixel space"):
        features_on_grid(squares(), pixels)
    on_grid = features_on_grid(squares().to_crs(4326), GRID)
    np.testing.assert_allclose(on_grid.total_bounds, squares().total_bounds, atol=1e-5)
    with pytest.raises(GridMismatchError, match="assume_crs"):
        features_on_grid(squares(None), GRID)


def test_no_features_and_no_geometry_are_errors(tmp_path):
    with pytest.raises(DataError, match=r"e\.gpkg has no features"):
        read_features(save(squares().iloc[:0], tmp_path / "e.gpkg"))
    with pytest.raises(DataError, match="no geometry"):
        read_features(gpd.GeoDataFrame({"a": [1]}))
    table = tmp_path / "t.csv"
    table.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"t\.csv has no geometry"):
        read_features(table)
    nothing = gpd.GeoDataFrame({"a": [1]}, geometry=[None], crs=UTM)
    with pytest.raises(DataError, match="None of the 1"):
        read_features(nothing)


def test_rows_without_geometry_are_left_out_with_a_warning():
    frame = squares()
    frame.loc[1, "geometry"] = None
    frame.loc[2, "geometry"] = Polygon()
    with pytest.warns(DataWarning, match="2 of 3"):
        read = read_features(frame)
    assert read["n"].tolist() == [1]


def test_layers_are_listed_and_chosen(tmp_path):
    path = tmp_path / "two.gpkg"
    squares().to_file(path, layer="fields")
    squares().iloc[:1].to_file(path, layer="roads")
    with pytest.raises(DataError, match=r"layer=: fields, roads"):
        read_features(path)
    assert len(read_features(path, layer="roads")) == 1
    with pytest.raises(OptionError, match=r"no layer 'road'.*roads"):
        read_features(path, layer="road")


def test_unreadable_sources_are_named(tmp_path):
    with pytest.raises(SourceNotFoundError, match=r"none\.gpkg"):
        read_features(tmp_path / "none.gpkg")
    for name in ("bad.gpkg", "bad.parquet", "bad.geojson"):
        (tmp_path / name).write_text("no features")
        with pytest.raises(SourceError, match=name):
            read_features(tmp_path / name)
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "plain.parquet")
    with pytest.raises(SourceError, match=r"plain\.parquet"):
        read_features(tmp_path / "plain.parquet")
    with pytest.raises(OptionError, match="int"):
        read_features(5)


def test_features_that_have_no_place_in_the_crs_are_refused():
    frame = gpd.GeoDataFrame(geometry=[Point(1e9, 1e12)], crs="EPSG:32633")
    with pytest.raises(GridMismatchError, match="no place"):
        read_features(frame, crs=4326)


def test_identity_follows_geometry_columns_and_crs():
    first = features_identity(squares())
    assert features_identity(squares()) == first
    assert features_identity(squares().assign(n=[1, 2, 4])) != first
    moved = squares()
    moved.geometry = shapely.transform(moved.geometry.values, lambda c: c + 1)
    assert features_identity(moved) != first
    assert features_identity(squares(None)) != first
