"""Extents in degrees mean places on a round Earth; rasters across the antimeridian stay whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pyproj import Transformer
from rasterio.transform import from_origin

from geodl.base.errors import OptionError, PlanError
from geodl.core.grid import GeoGrid
from geodl.io.crs import crs_text
from geodl.io.extent import extent_window, read_extent, split_extent
from geodl.io.source import open_source

DEGREES = crs_text(4326)
UTM_60 = crs_text(32660)


def around(west: float, width: int) -> GeoGrid:
    """Cells of one degree from ``west`` on, rows from 40 N to 40 S."""
    return GeoGrid(width=width, height=80, transform=(1, 0, west, 0, -1, 40), crs=DEGREES)


def columns(grid: GeoGrid, xmin: float, xmax: float, reference: Any = None) -> tuple[int, int]:
    sides = {"xmin": xmin, "xmax": xmax, "ymin": -10, "ymax": 10, "spatialReference": reference}
    bounds, crs = read_extent(sides)
    assert bounds is not None
    window = extent_window(bounds, crs, grid, "the raster")
    assert (window.row, window.height) == (30, 20)
    return window.col, window.col_stop


@pytest.mark.parametrize("reference", [None, {"wkid": 4326}])
@pytest.mark.parametrize(
    ("grid", "extent", "expected"),
    [
        (around(178, 4), (-180, -179), (2, 3)),
        (around(178, 4), (179, -179), (1, 3)),
        (around(178, 4), (179, 181), (1, 3)),
        (around(178, 4), (-180, 180), (0, 4)),
        (around(-182, 4), (178, 179), (0, 1)),
        (around(0, 360), (-90, -30), (270, 330)),
        (around(0, 360), (-180, 180), (0, 360)),
        (around(0, 360), (170, -170), (170, 190)),
        (around(-180, 360), (-180, 180), (0, 360)),
        (around(-180, 360), (180, 200), (0, 20)),
    ],
)
def test_longitudes_mean_the_same_place_a_turn_further(
    grid: GeoGrid, extent: tuple[float, float], expected: tuple[int, int], reference: Any
) -> None:
    assert columns(grid, *extent, reference) == expected


@pytest.mark.parametrize(
    ("grid", "extent"), [(around(0, 360), (-10, 10)), (around(-180, 360), (170, -170))]
)
def test_two_ends_of_a_raster_are_no_one_extent(grid: GeoGrid, extent: tuple[float, float]) -> None:
    with pytest.raises(PlanError, match="at both of its ends"):
        columns(grid, *extent)


def test_ground_in_metres_crosses_the_antimeridian() -> None:
    """UTM zone 60 goes on where the longitudes begin anew."""
    east = Transformer.from_crs(4326, 32660, always_xy=True).transform(180, 9)[0]
    sides = {"xmin": east - 50, "xmax": east + 50, "ymin": 995_000, "ymax": 995_100}
    grid = GeoGrid(
        width=400, height=400, transform=(1e-5, 0, 179.998, 0, -1e-5, 8.991), crs=DEGREES
    )
    bounds, crs = read_extent({**sides, "spatialReference": {"wkid": 32660}})
    assert bounds is not None
    window = extent_window(bounds, crs, grid, "the raster")
    assert 80 < window.width < 110
    assert abs(window.col + window.width / 2 - 200) < 10


def test_metres_have_no_other_side() -> None:
    sides = {"xmin": 10, "xmax": 5, "ymin": 0, "ymax": 1}
    with pytest.raises(OptionError, match="extent is empty"):
        read_extent({**sides, "spatialReference": {"wkid": 32660}})
    bounds, crs = read_extent(sides)
    assert bounds is not None
    grid = GeoGrid(width=20, height=20, transform=(1, 0, 0, 0, -1, 20), crs=UTM_60)
    with pytest.raises(OptionError, match="extent is empty"):
        extent_window(bounds, crs, grid, "the raster")


def test_an_extent_beside_says_in_which_crs_it_was_taken() -> None:
    with pytest.raises(PlanError, match=r"in EPSG:4326\. An extent without a spatialReference"):
        columns(around(0, 20), 100, 110)


def test_an_extent_is_split_at_the_antimeridian() -> None:
    assert split_extent((170, 0, -170, 1), DEGREES) == [(170, 0, 180, 1), (-180, 0, -170, 1)]
    assert split_extent((1, 0, 2, 1), None) == [(1, 0, 2, 1)]


def test_a_raster_across_the_antimeridian_is_whole_in_degrees(make_tif: Any) -> None:
    """GDAL would lay a grid around the Earth, of one row of a degree per pixel."""
    east = Transformer.from_crs(4326, 32660, always_xy=True).transform(180, 9)[0]
    data = np.zeros((100, 120), np.uint8)
    data[40:60, 50:70] = 200
    place = from_origin(east - 30, 995_000, 0.5, 0.5)
    path = make_tif(data, crs="EPSG:32660", transform=place)
    turned = open_source(path, crs=4326)
    west, _, right, _ = turned.grid.bounds
    assert 179.99 < west < 180 < right < 180.01
    block = turned.read(turned.grid.window)
    rows, cols = np.nonzero(block.data[0] > 100)
    x, y = turned.grid.affine @ (cols.mean() + 0.5, rows.mean() + 0.5)
    # The middle of the bright patch is the antimeridian itself, 25 m below the upper edge.
    back = Transformer.from_crs(4326, 32660, always_xy=True).transform(x, y)
    np.testing.assert_allclose(back, (east, 995_000 - 25), atol=0.3)
    # A mosaic on its grid reaches no further than it.
    same = open_source([turned, path])
    assert same.grid.width < turned.grid.width + 4
