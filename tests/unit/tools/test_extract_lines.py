"""extract_lines: one graph for any blocks, on the ground, without gaps."""

import geopandas as gpd
import numpy as np
import pytest
import shapely
from scipy import ndimage
from shapely import STRtree

from geodl.base.errors import DataError, OptionError
from geodl.functions import extract_lines
from geodl.tools import extract_lines as module

CELL = 0.5
X, Y = 500000.0, 5000000.0


def roads(size=120, seed=0):
    """uint8 (H, W): bands of several widths and two values, a wide place, and small holes."""
    rng = np.random.default_rng(seed)
    yy, xx = np.mgrid[:size, :size]
    mask = np.zeros((size, size), np.uint8)
    for k in range(6):
        angle = rng.uniform(0, np.pi)
        x0, y0 = rng.uniform(0, size, 2)
        bend = 6 * np.sin(xx / 25 + k)
        away = np.abs((xx - x0) * np.sin(angle) - (yy - y0) * np.cos(angle) + bend)
        mask[away < rng.uniform(1.5, 6)] = 1 + k % 2
    mask[40:90, 30:90] = 1
    mask[rng.random(mask.shape) < 0.001] = 0
    return mask


@pytest.fixture(scope="module")
def mask():
    return roads()


def test_blocks_of_five_sizes_give_the_graph_of_the_whole(write_raster, mask):
    path = write_raster(mask[None])
    whole = extract_lines(path)
    assert len(whole) > 10
    for side in (100, 90, 64, 50, 40):
        again = extract_lines(path, block_size=side)
        assert again.equals(whole)
    assert whole.crs.to_epsg() == 32633
    assert set(whole["ClassValue"]) == {1, 2}


def test_wide_places_take_several_rounds_and_stay_exact(write_raster, mask, monkeypatch):
    path = write_raster(mask[None])
    whole = extract_lines(path)
    monkeypatch.setattr(module, "_STEPS", 5)
    assert extract_lines(path, block_size=64).equals(whole)


def test_lines_are_connected_as_the_mask_is_and_lie_in_it(write_raster, mask):
    path = write_raster(mask[None])
    found = extract_lines(path, min_length_px=0, tolerance_px=0, block_size=64)
    tree = STRtree(found.geometry.values)
    pairs = tree.query(found.geometry.values, predicate="intersects")
    parent = list(range(len(found)))

    def root(k):
        while parent[k] != k:
            k = parent[k]
        return k

    for one, two in pairs.T.tolist():
        parent[root(one)] = root(two)
    groups = len({root(k) for k in range(len(found))})
    labels, count = ndimage.label(mask > 0, np.ones((3, 3)))
    sizes = np.bincount(labels.ravel())[1:]
    assert count - (sizes < 20).sum() <= groups <= count
    points = shapely.get_coordinates(found.geometry.values)
    cols, rows = ((points - (X, Y)) / (CELL, -CELL)).T.astype(int)
    assert (mask[rows, cols] > 0).mean() > 0.97  # a node is the mean of its pixels


def test_nodes_bear_one_number_where_lines_meet(write_raster, mask):
    found = extract_lines(write_raster(mask[None]), block_size=64)
    places = {}
    for line, one, two in zip(found.geometry, found["FromNode"], found["ToNode"], strict=True):
        for node, point in ((one, line.coords[0]), (two, line.coords[-1])):
            assert places.setdefault(node, point) == point
    assert len(set(places.values())) == len(places)


def test_a_straight_road_is_its_middle_from_edge_to_edge(write_raster):
    mask = np.zeros((1, 90, 130), np.uint8)
    mask[0, 40:49] = 3
    (row,) = extract_lines(write_raster(mask), block_size=32).itertuples()
    assert row.ClassValue == 3
    assert list(row.geometry.coords) == [
        (X + 0.5 * CELL, Y - 44.5 * CELL),
        (X + 129.5 * CELL, Y - 44.5 * CELL),
    ]


def test_only_the_values_asked_for_and_no_nodata(write_raster):
    mask = np.zeros((1, 60, 60), np.uint8)
    mask[0, 10:15], mask[0, 30:35], mask[0, 50:55] = 1, 2, 255
    path = write_raster(mask, nodata=255)
    assert extract_lines(path)["ClassValue"].tolist() == [1, 2]
    assert extract_lines(path, values=2)["ClassValue"].tolist() == [2]
    assert extract_lines(path, values=[2, 1])["ClassValue"].tolist() == [1, 2]


def test_an_empty_mask_gives_no_lines_and_all_columns(write_raster, tmp_path):
    found = extract_lines(write_raster(np.zeros((1, 20, 20), np.uint8)))
    assert list(found.columns) == ["ClassValue", "FromNode", "ToNode", "geometry"]
    assert len(found) == 0
    found.to_parquet(tmp_path / "none.parquet")
    assert gpd.read_parquet(tmp_path / "none.parquet").crs.to_epsg() == 32633


def test_what_is_no_mask_is_refused(write_raster):
    with pytest.raises(DataError, match="has 2 bands"):
        extract_lines(write_raster(np.zeros((2, 20, 20), np.uint8)))
    path = write_raster(np.zeros((1, 20, 20), np.uint8))
    with pytest.raises(OptionError, match="values"):
        extract_lines(path, values=[])
    with pytest.raises(OptionError, match="block_size"):
        extract_lines(path, block_size=0)
