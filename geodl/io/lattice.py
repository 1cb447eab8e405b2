"""Target grids: from a CRS, a resolution or another raster, and sources laid onto them."""

from __future__ import annotations

import math

from affine import Affine

from geodl.base.errors import GridMismatchError, OptionError
from geodl.core.blocks import RasterSource
from geodl.core.grid import GeoGrid, Window
from geodl.io.crs import crs_label, full_turn, same_crs, transform_bounds
from geodl.io.raster_warp import WarpedRaster
from geodl.io.warp_geometry import default_grid

# Pixels that lie this close to the lattice's, over the whole raster, are the lattice's own.
_ALIGNED_PX = 0.01
# The Earth's girth in cells of 15 cm; and cells that a raster fits into so many times are in other
# units than was thought.
_SIDE_MOST_PX = 2**28
_CELL_MOST = 1000


def as_resolution(resolution: float | tuple[float, float] | None) -> tuple[float, float] | None:
    """``(x, y)`` pixel sizes, both positive, from one number or two.

    Raises
    ------
    OptionError
        Not one or two positive numbers.
    """
    if resolution is None:
        return None
    try:
        pair = (resolution, resolution) if isinstance(resolution, (int, float)) else resolution
        x, y = (abs(float(value)) for value in pair)
    except (TypeError, ValueError):
        x = y = 0.0
    if not (0 < x < math.inf and 0 < y < math.inf):
        raise OptionError(
            f"resolution={resolution!r} is no pixel size; give a positive number, or two (x, y)."
        )
    return x, y


def target_lattice(
    grid: GeoGrid,
    name: str,
    *,
    crs: str | None,
    resolution: tuple[float, float] | None,
    snap: GeoGrid | None,
) -> GeoGrid:
    """The grid that a source is asked for on; its own where nothing is asked.

    Parameters
    ----------
    grid, name
        Of the source.
    crs
        WKT to reproject to.
    resolution
        Pixel sizes in units of the target CRS.
    snap
        Gives what the other two do not: CRS, pixel size, and the place of the pixels.

    Raises
    ------
    GridMismatchError
        A reprojection without a CRS on one side, or to a CRS where the source has no place.
    OptionError
        A resolution that cannot be meant; ``snap`` in another CRS than ``crs``.
    """
    lattice = _lattice(grid, name, crs, resolution, snap)
    if resolution is not None:
        _check_resolution(lattice, resolution, grid, name)
    return lattice


def _lattice(
    grid: GeoGrid,
    name: str,
    crs: str | None,
    resolution: tuple[float, float] | None,
    snap: GeoGrid | None,
) -> GeoGrid:
    if snap is not None:
        if crs is not None and not same_crs(crs, snap.crs):
            raise OptionError(
                f"The raster to snap to lies in {crs_label(snap.crs)}, but {crs_label(crs)} is "
                "asked for: its pixels are no pixels there. Leave one of the two out, or give a "
                "raster in that CRS."
            )
        return snap if resolution is None else _with_resolution(snap, resolution)
    if crs is not None and not same_crs(crs, grid.crs):
        if grid.crs is None:
            raise GridMismatchError(
                f"{name} has no CRS and cannot be brought to {crs_label(crs)}; state its CRS with "
                "assume_crs."
            )
        return default_grid(grid, crs, resolution, name)
    return grid if resolution is None else _with_resolution(grid, resolution)


def _check_resolution(
    lattice: GeoGrid, resolution: tuple[float, float], grid: GeoGrid, name: str
) -> None:
    there = grid
    if lattice.crs is not None and not same_crs(lattice.crs, grid.crs):
        there = default_grid(grid, lattice.crs, None, name)
    x, y = there.cell_size_xy
    large = resolution[0] > _CELL_MOST * x * there.width
    large |= resolution[1] > _CELL_MOST * y * there.height
    if large or max(lattice.shape) > _SIDE_MOST_PX:
        raise OptionError(
            f"a cell size of {resolution[0]:g} x {resolution[1]:g} cannot be meant for {name}, "
            f"whose {there.width} x {there.height} cells measure {x:g} x {y:g} in "
            f"{crs_label(lattice.crs)}; give it in units of that CRS."
        )


def _with_resolution(grid: GeoGrid, resolution: tuple[float, float]) -> GeoGrid:
    """The same origin, direction and extent with other pixel sizes; part pixels count whole."""
    x, y = grid.cell_size_xy
    scale = resolution[0] / x, resolution[1] / y
    a, b, c, d, e, f = (grid.affine @ Affine.scale(*scale))[:6]
    return GeoGrid(
        width=max(1, math.ceil(grid.width / scale[0] - 1e-3)),
        height=max(1, math.ceil(grid.height / scale[1] - 1e-3)),
        transform=(a, b, c, d, e, f),
        crs=grid.crs,
    )


def aligned_offset(grid: GeoGrid, lattice: GeoGrid) -> tuple[int, int] | None:
    """Row and column of ``grid``'s origin on the lattice where their pixels coincide, else None."""
    if not same_crs(grid.crs, lattice.crs):
        return None
    inverse = ~lattice.affine
    corners = ((0, 0), (grid.width, 0), (0, grid.height))
    (col, row), (right, top), (left, bottom) = (inverse @ (grid.affine @ c) for c in corners)
    offset = round(row), round(col)
    misfit = (
        abs(row - offset[0]),
        abs(col - offset[1]),
        abs(right - offset[1] - grid.width),
        abs(top - offset[0]),
        abs(left - offset[1]),
        abs(bottom - offset[0] - grid.height),
    )
    return offset if max(misfit) < _ALIGNED_PX else None


def cover(lattice: GeoGrid, grid: GeoGrid, name: str) -> Window:
    """The window of the lattice that covers another grid; may leave the lattice's own extent."""
    offset = aligned_offset(grid, lattice)
    if offset is not None:
        return Window(row=offset[0], col=offset[1], height=grid.height, width=grid.width)
    if same_crs(grid.crs, lattice.crs):
        # By its own corners: the bounds of a rotated raster are larger than the raster.
        return _corner_window(grid, lattice)
    west, south, east, north = transform_bounds(grid.bounds, grid.crs, lattice.crs, name)
    turn = full_turn(lattice.crs)
    if turn is not None and west > east:
        # Across the antimeridian: on the side where the lattice lies.
        shift = turn if lattice.bounds[0] + lattice.bounds[2] > 0 else 0.0
        west, east = west - turn + shift, east + shift
    return lattice.window_for_bounds(west, south, east, north, clip=False)


def _corner_window(grid: GeoGrid, lattice: GeoGrid) -> Window:
    inverse = ~lattice.affine
    corners = [
        inverse @ (grid.affine @ (col, row)) for col in (0, grid.width) for row in (0, grid.height)
    ]
    cols, rows = zip(*corners, strict=True)
    row, col = math.floor(min(rows) + 1e-3), math.floor(min(cols) + 1e-3)
    row_stop, col_stop = math.ceil(max(rows) - 1e-3), math.ceil(max(cols) - 1e-3)
    return Window(row=row, col=col, height=max(1, row_stop - row), width=max(1, col_stop - col))


def place(source: RasterSource, lattice: GeoGrid, window: Window, resampling: str) -> RasterSource:
    """A source on a window of the lattice: itself where the pixels coincide, else warped."""
    if aligned_offset(source.grid, lattice) == (window.row, window.col) and (
        source.grid.shape == (window.height, window.width)
    ):
        return source
    return WarpedRaster.of(source, lattice, window, resampling)
