"""Labels inside a chip, held to shapely and rasterio called directly."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.features import rasterize

from geodl.core.grid import Window
from geodl.ops.labels import (
    boxes_of,
    boxes_of_regions,
    burn,
    parts_inside,
    repaired,
    share_inside,
    to_pixels,
    value_counts,
)

CHIP = Window(row=20, col=10, height=32, width=48)
NUMBERS = st.floats(-1000, 1000, allow_nan=False)


def objects(*geometries: shapely.Geometry) -> np.ndarray:
    out = np.empty(len(geometries), object)
    out[:] = geometries
    return out


@pytest.mark.parametrize(
    "transform",
    [
        Affine(0.5, 0, 432100, 0, -0.5, 4567900),
        Affine(2.7e-6, 0, -115.3, 0, -2.7e-6, 36.1),
        Affine.translation(5000, 8000) @ Affine.rotation(30) @ Affine.scale(0.3, -0.3),
        Affine(1, 0, 0, 0, 1, 0),
    ],
    ids=["utm", "degrees", "rotated", "pixels"],
)
@given(box=st.tuples(NUMBERS, NUMBERS, st.floats(0.5, 500), st.floats(0.5, 500)))
@settings(max_examples=30)
def test_boxes_go_to_the_map_and_back(transform: Affine, box: tuple[float, ...]) -> None:
    col, row, width, height = box
    corners = [(col, row), (col + width, row), (col + width, row + height), (col, row + height)]
    there = shapely.Polygon([transform @ corner for corner in corners])
    back = to_pixels(objects(there), transform)[0]
    assert back.bounds == pytest.approx((col, row, col + width, row + height), abs=1e-4)


def test_parts_are_the_intersections_in_the_chips_frame() -> None:
    rng = np.random.default_rng(0)
    shapes = objects(
        *(
            shapely.Point(x, y).buffer(r)
            for x, y, r in zip(
                rng.uniform(0, 70, 60), rng.uniform(0, 70, 60), rng.uniform(1, 15, 60), strict=True
            )
        )
    )
    parts = parts_inside(shapes, CHIP)
    frame = shapely.box(10, 20, 58, 52)
    for shape, part in zip(shapes, parts, strict=True):
        expected = shape.intersection(frame)
        moved = shapely.transform(expected, lambda xy: xy - [10, 20])
        assert part.symmetric_difference(moved).area < 1e-9


def test_what_only_touches_the_chip_leaves_no_part() -> None:
    beside = shapely.box(58, 20, 70, 40)
    # One part inside, and an edge that runs along the chip's own.
    around = shapely.Polygon([(50, 30), (54, 30), (54, 52), (70, 52), (70, 60), (50, 60)])
    parts = parts_inside(objects(beside, around), CHIP)
    assert parts[0].is_empty
    assert parts[1].bounds == (40.0, 10.0, 44.0, 32.0)


def test_parts_thinner_than_two_hundredths_are_no_labels() -> None:
    shapes = objects(
        shapely.box(0, 20, 10.02, 40), shapely.box(0, 20, 10.0199, 40), shapely.box(20, 25, 21, 26)
    )
    boxes, kept = boxes_of(parts_inside(shapes, CHIP))
    assert kept.tolist() == [True, False, True]
    assert boxes[2].tolist() == [10, 5, 11, 6]


def test_lines_keep_lines_and_collections_their_own_kind() -> None:
    line = shapely.LineString([(0, 30), (30, 30), (30, 40)])
    assert parts_inside(objects(line), CHIP)[0].equals(
        shapely.LineString([(0, 10), (20, 10), (20, 20)])
    )


def test_the_share_is_of_area_of_length_or_of_the_point() -> None:
    wholes = objects(
        shapely.box(0, 20, 20, 40),
        shapely.LineString([(2, 30), (18, 30)]),
        shapely.Point(12, 25),
        shapely.Point(5, 25),
    )
    assert share_inside(parts_inside(wholes, CHIP), wholes).tolist() == [0.5, 0.5, 1.0, 0.0]


def test_burning_is_rasterios_and_the_last_part_lies_on_top() -> None:
    rng = np.random.default_rng(1)
    shapes = objects(
        *(shapely.Point(x, y).buffer(9, quad_segs=3) for x, y in rng.uniform(0, 70, (25, 2)))
    )
    values = rng.integers(1, 6, 25)
    direct = rasterize(
        list(zip(shapes, values.tolist(), strict=True)), out_shape=(80, 80), dtype="int32"
    )
    mask = burn(parts_inside(shapes, CHIP), values, 32, 48)
    assert np.array_equal(mask, direct[20:52, 10:58])
    assert mask.dtype == np.int32


def test_nothing_burns_to_background() -> None:
    assert not burn(objects(shapely.Polygon()), np.array([3]), 4, 5).any()
    assert burn(objects(), np.zeros(0, np.int64), 4, 5).shape == (4, 5)


def test_invalid_rings_are_repaired_and_counted() -> None:
    bow = shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])
    fine = shapely.Polygon([(0, 0, 7), (1, 0, 7), (1, 1, 7)])
    whole, count = repaired(objects(bow, fine))
    assert count == 1
    assert whole[0].is_valid
    assert whole[0].area == pytest.approx(2.0)
    assert not whole[1].has_z


def test_a_polygon_that_falls_into_areas_and_lines_keeps_its_areas() -> None:
    spike = shapely.Polygon([(0, 0), (4, 0), (4, 4), (4, 9), (4, 4), (0, 4)])
    whole, _ = repaired(objects(spike))
    assert whole[0].bounds == (0, 0, 4, 4)
    mixed = shapely.GeometryCollection([shapely.box(0, 0, 1, 1), shapely.Point(9, 9)])
    assert repaired(objects(mixed))[0][0].bounds == (0, 0, 1, 1)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "int64"])
@pytest.mark.parametrize("high", [5, 100, 30000])
def test_values_are_counted_as_numpy_counts_them(dtype: str, high: int) -> None:
    rng = np.random.default_rng(0)
    for low in (0, 3, -4):
        values = rng.integers(low, high, (40, 50)).astype(dtype)
        found, numbers = value_counts(values)
        expected = np.unique(values, return_counts=True)
        assert np.array_equal(found, expected[0])
        assert np.array_equal(numbers, expected[1])
    assert [len(part) for part in value_counts(np.zeros((0, 3), dtype))] == [0, 0]


def test_regions_of_a_class_become_boxes_at_pixel_edges() -> None:
    mask = np.zeros((6, 8), np.uint8)
    mask[0, 0] = mask[1, 1] = 2  # touch at a corner: one object
    mask[4:6, 3:8] = 1
    mask[4, 5] = 3
    boxes, values = boxes_of_regions(mask)
    assert values.tolist() == [1, 2, 3]
    assert boxes.tolist() == [[3, 4, 8, 6], [0, 0, 2, 2], [5, 4, 6, 5]]
    assert boxes_of_regions(np.zeros((3, 3), int))[0].shape == (0, 4)
