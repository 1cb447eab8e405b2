"""A class raster against the truth, streamed window by window."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from geodl.base.errors import DataError, OptionError
from geodl.core.blocks import RasterSource
from geodl.core.grid import GeoGrid, Window
from geodl.io.source import open_source
from geodl.io.vector import features_on_grid, is_features
from geodl.ops.confusion import ConfusionMatrix, PairCounts
from geodl.tools.class_values import class_values

if TYPE_CHECKING:
    import geopandas as gpd

_WINDOW_PX = 2048
# Names that accuracy points and exported labels use, most telling first.
_TRUTH_FIELDS = ("GrndTruth", "ClassValue", "Classvalue", "classvalue", "class_value", "Value")


def compute_confusion_matrix(
    classified: Any, truth: Any, *, field: str | None = None
) -> ConfusionMatrix:
    """Compare a class raster with the truth.

    Memory does not grow with the rasters.

    Parameters
    ----------
    classified
        A class raster: what :func:`geodl.open_raster` takes, one band.
    truth
        A class raster, brought onto the grid of ``classified`` by the nearest pixel; or points:
        a GeoDataFrame or a vector file.
    field
        Of points: the column of true class values; None takes the first of GrndTruth,
        ClassValue, Classvalue, classvalue, class_value and Value.

    Returns
    -------
    ConfusionMatrix
        ``values``, ``counts`` (truth down), ``precision``, ``recall``, ``f1``, ``iou`` per class,
        ``accuracy``, ``mean_iou``, ``kappa``. Only places where both have data count.

    Raises
    ------
    DataError
        No place in common, several bands, values that are not whole, or no points.
    OptionError
        ``field`` with a raster, or a column that is not there.
    """
    source = open_source(classified)
    _check_classes(source)
    counts = PairCounts()
    if is_features(truth):
        _count_points(counts, source, truth, field)
    elif field is not None:
        raise OptionError(f"field={field!r} names a column of points; the truth is a raster.")
    else:
        _count_raster(counts, source, truth)
    if not counts.by_pair:
        raise DataError(
            f"{source.name} and the truth have no place with data in common; check their CRS and "
            "extents."
        )
    return counts.matrix()


def _count_raster(counts: PairCounts, source: RasterSource, truth: Any) -> None:
    other = open_source(truth, snap=source.grid, resampling="nearest")
    _check_classes(other)
    frame = _window_of(other.grid, source.grid)
    for window in _windows(frame.intersect(source.grid.window)):
        one = source.read(window)
        two = other.read(window.shift(-frame.row, -frame.col))
        both = one.mask & two.mask
        if both.any():
            counts.add(
                class_values(two.data[0][both], other.name, bits=64),
                class_values(one.data[0][both], source.name, bits=64),
            )


def _count_points(counts: PairCounts, source: RasterSource, truth: Any, field: str | None) -> None:
    points = features_on_grid(truth, source.grid)
    if not (points.geom_type == "Point").all():
        kinds = ", ".join(sorted(set(points.geom_type)))
        raise DataError(f"The truth holds {kinds}; give points, or a class raster.")
    values = class_values(
        points[_truth_field(points, field)].to_numpy(), "the truth's column", bits=64
    )
    inverse = ~source.grid.affine
    cols, rows = inverse @ (points.geometry.x.to_numpy(), points.geometry.y.to_numpy())
    rows, cols = np.floor(rows).astype(np.int64), np.floor(cols).astype(np.int64)
    height, width = source.grid.shape
    inside = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
    rows, cols, values = rows[inside], cols[inside], values[inside]
    block = rows // _WINDOW_PX * (width // _WINDOW_PX + 1) + cols // _WINDOW_PX
    order = np.argsort(block, kind="stable")
    for part in np.split(order, np.flatnonzero(np.diff(block[order])) + 1):
        if len(part):
            _count_part(counts, source, rows[part], cols[part], values[part])


def _count_part(
    counts: PairCounts, source: RasterSource, rows: np.ndarray, cols: np.ndarray, true: np.ndarray
) -> None:
    row, col = int(rows.min()), int(cols.min())
    window = Window(
        row=row, col=col, height=int(rows.max()) - row + 1, width=int(cols.max()) - col + 1
    )
    found = source.read(window)
    place = (rows - row, cols - col)
    valid = found.mask[place]
    if valid.any():
        seen = class_values(found.data[0][place][valid], source.name, bits=64)
        counts.add(true[valid], seen)


def _windows(frame: Window) -> Iterator[Window]:
    for row in range(frame.row, frame.row_stop, _WINDOW_PX):
        for col in range(frame.col, frame.col_stop, _WINDOW_PX):
            square = Window(row=row, col=col, height=_WINDOW_PX, width=_WINDOW_PX)
            yield square.intersect(frame)


def _window_of(grid: GeoGrid, frame: GeoGrid) -> Window:
    """Where a grid with the same pixels lies in the frame's pixels; may leave it."""
    col, row = ~frame.affine @ (grid.affine @ (0, 0))
    return Window(row=round(row), col=round(col), height=grid.height, width=grid.width)


def _check_classes(source: RasterSource) -> None:
    if source.count != 1:
        raise DataError(f"{source.name} has {source.count} bands; a class raster has one.")


def _truth_field(points: gpd.GeoDataFrame, field: str | None) -> str:
    if field is None:
        field = next((name for name in _TRUTH_FIELDS if name in points), None)
    if field is None or field not in points:
        columns = ", ".join(map(str, points.columns.drop("geometry", errors="ignore")))
        raise OptionError(
            f"The truth has no column {field or _TRUTH_FIELDS[0]!r}; it has {columns}."
        )
    return field
