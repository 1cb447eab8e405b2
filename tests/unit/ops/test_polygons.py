"""Polygons of regions: those of the whole raster, for any cut into blocks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from geodl.core.grid import Window
from geodl.ops import polygons as module
from geodl.ops.outlines import Corners, trace
from geodl.ops.polygons import Polygonizer, RegionPolygons
from geodl.ops.region_labels import label_regions


def cut(
    values: np.ndarray, valid: np.ndarray, block: tuple[int, int], **options: object
) -> RegionPolygons:
    height, width = values.shape
    work = Polygonizer(height, width, **options)  # type: ignore[arg-type]
    for row, col in itertools.product(range(0, height, block[0]), range(0, width, block[1])):
        window = Window(row=row, col=col, height=block[0], width=block[1])
        window = window.intersect(Window(row=0, col=0, height=height, width=width))
        here = np.s_[row : window.row_stop, col : window.col_stop]
        work.add(values[here], valid[here], window)
    return work.finish()


def counted(values: np.ndarray, valid: np.ndarray, connectivity: int) -> dict[int, list[int]]:
    """Sizes of the regions by value, by scipy's labels of each value."""
    structure = ndimage.generate_binary_structure(2, 2 if connectivity == 8 else 1)
    sizes = {}
    for value in np.unique(values[valid]):
        labels, _ = ndimage.label((values == value) & valid, structure)
        sizes[int(value)] = sorted(np.bincount(labels.reshape(-1))[1:].tolist())
    return sizes


def covers(found: RegionPolygons, values: np.ndarray, valid: np.ndarray) -> bool:
    """Whether each pixel's centre lies in the one polygon that has its value, and no other does."""
    rows, cols = np.indices(values.shape)
    points = shapely.points(cols.reshape(-1) + 0.5, rows.reshape(-1) + 0.5)
    point, polygon = shapely.STRtree(found.polygons).query(points, predicate="within")
    back = np.full(values.size, -1, np.int64)
    back[point] = found.values[polygon]
    once = len(np.unique(point)) == len(point)
    return once and np.array_equal(back, np.where(valid, values, -1).reshape(-1))


@st.composite
def rasters(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    height, width = draw(st.integers(1, 13)), draw(st.integers(1, 13))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    values = rng.integers(0, draw(st.integers(1, 4)), (height, width)).astype(np.int32)
    valid = rng.random((height, width)) >= draw(st.sampled_from([0.0, 0.1, 0.6]))
    return values, valid


@settings(max_examples=60)
@given(
    rasters(), st.integers(1, 14), st.integers(1, 14), st.sampled_from([4, 8]), st.booleans(),
    st.sampled_from([1, 20, 10**6]),
)  # fmt: skip
def test_any_cut_gives_the_regions_of_the_whole(
    raster: tuple[np.ndarray, np.ndarray],
    rows: int,
    cols: int,
    connectivity: int,
    junctions: bool,
    sweep_at: int,
) -> None:
    values, valid = raster
    whole = cut(values, valid, values.shape, connectivity=connectivity, junctions=junctions)
    with pytest.MonkeyPatch.context() as patch:
        # So that open regions are carried over many sweeps.
        patch.setattr(module, "_SWEEP_AT", sweep_at)
        patch.setattr(module, "_TRACED", sweep_at)
        again = cut(
            values, valid, (rows, cols), connectivity=connectivity, junctions=junctions,
            _sweep_at=sweep_at,
        )  # fmt: skip
    for name in ("values", "first", "areas"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))
    assert shapely.equals_exact(again.polygons, whole.polygons, 0).all()
    assert shapely.is_valid(whole.polygons).all()
    sizes: dict[int, list[int]] = {}
    for value, area in zip(whole.values.tolist(), whole.areas.tolist(), strict=True):
        sizes.setdefault(value, []).append(area)
    assert {value: sorted(found) for value, found in sizes.items()} == counted(
        values, valid, connectivity
    )
    np.testing.assert_array_equal(shapely.area(whole.polygons), whole.areas)
    assert covers(whole, values, valid)


def test_order_and_first_pixels() -> None:
    values = np.array([[1, 0, 1], [0, 0, 1]], np.int32)
    found = cut(values, np.ones((2, 3), bool), (1, 2), connectivity=4)
    assert found.values.tolist() == [0, 1, 1]
    assert found.first.tolist() == [[0, 1], [0, 0], [0, 2]]
    assert found.areas.tolist() == [3, 1, 2]


def test_neighbours_share_all_vertices_with_junctions() -> None:
    rng = np.random.default_rng(1)
    values = np.digitize(ndimage.gaussian_filter(rng.random((40, 40)), 2), [0.48, 0.52])
    valid = np.ones((40, 40), bool)
    valid[7:11, 3:20] = False
    found = cut(values.astype(np.int32), valid, (9, 16), junctions=True)
    assert shapely.coverage_is_valid(found.polygons)
    plain = cut(values.astype(np.int32), valid, (9, 16))
    # Else only corners are kept, and a straight edge beside two regions has no vertex there.
    assert not shapely.coverage_is_valid(plain.polygons)
    assert shapely.equals(plain.polygons, found.polygons).all()


def test_small_and_unwanted_regions_are_left_out() -> None:
    values = np.zeros((6, 6), np.int32)
    values[1:3, 1:3] = 5
    values[3, 3] = 5
    values[5, 5] = 7
    found = cut(values, np.ones((6, 6), bool), (2, 2), least_px=5, dropped=(0,))
    # Four pixels and one that joins at a corner are five.
    assert (found.values.tolist(), found.areas.tolist()) == ([5], [5])
    assert found.polygons[0].geom_type == "MultiPolygon"


def test_labels_are_edge_connected_regions() -> None:
    rng = np.random.default_rng(2)
    values = rng.integers(-3, 3, (30, 41)).astype(np.int32)
    valid = rng.random((30, 41)) > 0.2
    regions, of_region = label_regions(values, valid)
    assert np.array_equal(regions >= 0, valid)
    np.testing.assert_array_equal(of_region[regions[valid]], values[valid])
    sizes = [size for found in counted(values, valid, 4).values() for size in found]
    assert sorted(np.bincount(regions[valid]).tolist()) == sorted(sizes)


def test_nothing_to_trace() -> None:
    rings = trace(Corners.concatenate([]))
    assert len(rings.xy) == len(rings.region) == 0
    empty = cut(np.zeros((3, 3), np.int32), np.zeros((3, 3), bool), (2, 2))
    assert len(empty.values) == len(empty.polygons) == 0
