"""regularize_buildings: from rasters in any blocks, from features with their columns."""

import geopandas as gpd
import numpy as np
import pytest
import shapely
from rasterio import features
from rasterio.transform import from_origin
from shapely import affinity

from geodl.base.errors import DataError, OptionError
from geodl.functions import regularize_buildings

CELL = 0.5
X, Y = 500000.0, 5000000.0
PLANS = [
    affinity.rotate(shapely.box(20, 20, 60, 44), 20),
    affinity.rotate(shapely.box(80, 70, 110, 110), -35),
    shapely.Polygon([(10, 90), (40, 90), (40, 100), (22, 100), (22, 125), (10, 125)]),
]


@pytest.fixture
def raster(write_raster):
    mask = features.rasterize(zip(PLANS, (1, 1, 2), strict=True), (140, 150), dtype="uint8")
    return write_raster(mask[None].astype(np.uint8))


def on_map(plan):
    return affinity.affine_transform(plan, [CELL, 0, 0, -CELL, X, Y])


def square(polygon):
    steps = np.diff(np.array(polygon.exterior.coords), axis=0)
    angle = np.arctan2(steps[:, 1], steps[:, 0])
    return np.allclose(np.abs(np.sin(2 * (np.roll(angle, -1) - angle))), 0, atol=1e-6)


def test_a_class_raster_gives_the_plans_whatever_the_blocks(raster):
    whole = regularize_buildings(raster)
    assert whole["ClassValue"].tolist() == [1, 1, 2]
    for side in (64, 50, 33, 20, 7):
        assert regularize_buildings(raster, block_size=side).equals(whole)
    for plan in map(on_map, PLANS):
        best = max(whole.geometry, key=lambda one: one.intersection(plan).area)
        assert best.intersection(plan).area / best.union(plan).area > 0.92
        assert len(best.exterior.coords) == len(plan.exterior.coords)
    assert all(square(one) for one in whole.geometry)
    assert whole.crs.to_epsg() == 32633
    assert regularize_buildings(raster, values=2)["ClassValue"].tolist() == [2]


def test_features_keep_their_columns_and_index(tmp_path):
    rough = gpd.GeoDataFrame(
        {"name": ["a", "b"]},
        geometry=[
            on_map(PLANS[0]).union(on_map(shapely.box(20, 30, 21, 31))),
            shapely.MultiPolygon([on_map(PLANS[1]), on_map(PLANS[2])]),
        ],
        index=[7, 3],
        crs="EPSG:32633",
    )
    found = regularize_buildings(rough, tolerance=1.0)
    assert found["name"].tolist() == ["a", "b"]
    assert found.index.tolist() == [7, 3]
    assert found.geom_type.tolist() == ["Polygon", "MultiPolygon"]
    assert all(square(part) for shape in found.geometry for part in shapely.get_parts(shape))
    rough.to_file(tmp_path / "b.gpkg")
    again = regularize_buildings(tmp_path / "b.gpkg", tolerance=1.0)
    assert shapely.equals_exact(again.geometry.values, found.geometry.values, 1e-6).all()


def test_right_angles_are_those_of_the_ground_in_degrees_too(write_raster):
    plan = gpd.GeoSeries([on_map(PLANS[0])], crs="EPSG:32633").to_crs(4326)
    west, south, east, north = plan.total_bounds
    cell = (east - west) / 80
    where = from_origin(west - 3 * cell, north + 3 * cell, cell, cell)
    size = (int((north - south) / cell) + 6, 86)
    mask = features.rasterize(plan, size, transform=where, dtype="uint8").astype(np.uint8)
    path = write_raster(mask[None], crs="EPSG:4326", transform=where)
    found = regularize_buildings(path)
    assert found.crs.to_epsg() == 4326
    (shape,) = found.to_crs(32633).geometry
    assert len(shape.exterior.coords) == 5
    steps = np.diff(np.array(shape.exterior.coords), axis=0)
    angle = np.degrees(np.arctan2(steps[:, 1], steps[:, 0]))
    assert np.allclose((np.roll(angle, -1) - angle) % 90 % 89.99, 0, atol=0.1)


def test_what_has_no_buildings_or_no_tolerance(write_raster):
    empty = regularize_buildings(write_raster(np.zeros((1, 20, 20), np.uint8)))
    assert len(empty) == 0
    assert list(empty.columns) == ["ClassValue", "geometry"]
    frame = gpd.GeoDataFrame(geometry=[shapely.Point(0, 0)], crs="EPSG:32633")
    with pytest.raises(DataError, match="hold Point"):
        regularize_buildings(frame, tolerance=1)
    with pytest.raises(OptionError, match="tolerance="):
        regularize_buildings(frame)
    with pytest.raises(OptionError, match="values="):
        regularize_buildings(frame, tolerance=1, values=1)
