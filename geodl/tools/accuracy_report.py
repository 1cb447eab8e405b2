"""The PDF report of an accuracy: table, precision-recall curves, pictures of right and wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import shapely
from matplotlib.backends.backend_pdf import PdfPages

from geodl.core.blocks import RasterSource
from geodl.core.grid import GeoGrid, Window
from geodl.data.draw import draw_picture, to_picture
from geodl.data.figure import new_figure
from geodl.io.source import open_source
from geodl.io.staging import staged
from geodl.ops.detection_accuracy import RECALLS

if TYPE_CHECKING:
    import geopandas as gpd
    from matplotlib.figure import Figure

    from geodl.tools.accuracy_sides import Sides
    from geodl.tools.object_accuracy import Judged

_PAGE_IN = (8.3, 11.7)
_ROWS_PER_PAGE = 40
# More curves in one picture cannot be told apart.
_MOST_CURVES = 12
_SAMPLES = 12
_SIDE_PX = 64
# Larger objects are shown by every n-th pixel.
_MOST_PX = 512
_TRUTH_COLOUR, _FOUND_COLOUR = "#2ca02c", "#ff7f0e"


def write_report(
    path: Path, sides: Sides, judged: Sequence[Judged], table: pd.DataFrame, raster: Any
) -> None:
    """Write the report, whole or not at all.

    Parameters
    ----------
    path
        Of the PDF file.
    sides
        Detections and truth.
    judged
        What is right, for each least IoU.
    table
        The accuracy table.
    raster
        Image for sample pictures, or None for a report without them.
    """
    with staged(path) as place, PdfPages(place) as pdf:
        pdf.infodict()["Title"] = "Accuracy of object detection"
        for figure in _pages(sides, judged, table, raster):
            pdf.savefig(figure)


def _pages(
    sides: Sides, judged: Sequence[Judged], table: pd.DataFrame, raster: Any
) -> Iterator[Figure]:
    for start in range(0, len(table), _ROWS_PER_PAGE):
        yield _table_page(sides, table.iloc[start : start + _ROWS_PER_PAGE])
    for one in judged:
        yield _curves(sides, one)
    if raster is not None:
        yield from _pictures(sides, judged[0], open_source(raster))


def _table_page(sides: Sides, table: pd.DataFrame) -> Figure:
    figure = new_figure(*_PAGE_IN)
    counts = f"{len(sides.found)} detections, {len(sides.truth)} true objects"
    figure.suptitle(f"Accuracy of object detection\n{counts}", fontsize=13)
    axes = figure.add_subplot()
    axes.set_axis_off()
    names = {"True_Positive": "TP", "False_Positive": "FP", "False_Negative": "FN"}
    texts = [
        [f"{value:.3f}" if isinstance(value, float) else str(value) for value in row]
        for row in table.itertuples(index=False)
    ]
    columns = [names.get(name, name).replace("_", " ") for name in table.columns]
    drawn = axes.table(texts, colLabels=columns, loc="upper center", cellLoc="center")
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(7)
    drawn.auto_set_column_width(list(range(len(columns))))
    return figure


def _curves(sides: Sides, one: Judged) -> Figure:
    figure = new_figure(_PAGE_IN[0], _PAGE_IN[0])
    axes = figure.add_subplot()
    known = [k for k, part in enumerate(one.parts) if not np.isnan(part.curve).any()]
    for k in known[:_MOST_CURVES]:
        part = one.parts[k]
        label = f"{sides.classes[k]} (AP {part.average_precision:.3f})"
        axes.plot(RECALLS, part.curve, label=label, linewidth=1.5)
    if known:
        label = f"all (AP {one.whole.average_precision:.3f})"
        axes.plot(RECALLS, one.whole.curve, "k--", label=label, linewidth=1.5)
        axes.legend(fontsize=8)
    more = f"; {len(known) - _MOST_CURVES} more classes" if len(known) > _MOST_CURVES else ""
    axes.set(
        title=f"Precision and recall, IoU of at least {one.min_iou:g}{more}",
        xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02),
    )  # fmt: skip
    axes.grid(alpha=0.3)
    return figure


def _pictures(sides: Sides, one: Judged, source: RasterSource) -> Iterator[Figure]:
    """Surest hits and false alarms, largest misses; each with all that lies around it."""
    found, truth = (_in_pixels(side, source.grid) for side in (sides.found, sides.truth))
    best_first = np.argsort(-sides.scores, kind="stable")
    missed = np.setdiff1d(np.arange(len(truth)), one.matched)
    kinds = (
        ("Hits", found, best_first[one.matched[best_first] >= 0]),
        ("False alarms", found, best_first[one.matched[best_first] < 0]),
        ("Misses", truth, missed[np.argsort(-shapely.area(truth[missed]), kind="stable")]),
    )
    for title, shapes, chosen in kinds:
        windows = [_window(shapes[k], source.grid) for k in chosen[: 4 * _SAMPLES].tolist()]
        windows = [w for w in windows if not w.empty][:_SAMPLES]
        if windows:
            heading = f"{title}: {len(chosen)} (IoU of at least {one.min_iou:g})"
            yield _picture_page(heading, source, windows, found, truth)


def _picture_page(
    title: str,
    source: RasterSource,
    windows: Sequence[Window],
    found: np.ndarray,
    truth: np.ndarray,
) -> Figure:
    figure = new_figure(*_PAGE_IN)
    figure.suptitle(f"{title}\ngreen: truth, orange: detections", fontsize=12)
    for number, window in enumerate(windows, start=1):
        axes = figure.add_subplot(4, 3, number)
        step = -(-max(window.height, window.width) // _MOST_PX)
        block = source.read(window)
        data, mask = block.data[:, ::step, ::step], block.mask[::step, ::step]
        draw_picture(axes, to_picture(data, mask, str(source.dtype), source.band_names))
        for shapes, colour in ((truth, _TRUTH_COLOUR), (found, _FOUND_COLOUR)):
            _outline(axes, shapes, window, step, colour)
    return figure


def _outline(axes: Any, shapes: np.ndarray, window: Window, step: int, colour: str) -> None:
    frame = shapely.box(window.col, window.row, window.col_stop, window.row_stop)
    near = shapely.STRtree(shapes).query(frame, predicate="intersects")
    for ring in shapely.get_parts(shapely.boundary(shapes[near])):
        corners = (shapely.get_coordinates(ring) - [window.col, window.row]) / step
        axes.plot(*corners.T, color=colour, linewidth=1.2)


def _in_pixels(features: gpd.GeoDataFrame, grid: GeoGrid) -> np.ndarray:
    """Polygons (N,) in columns and rows of a raster."""
    if features.crs is not None and grid.crs is not None:
        features = features.to_crs(grid.crs)
    back = ~grid.affine

    def to_pixels(points: np.ndarray) -> np.ndarray:
        return np.stack(back @ (points[:, 0], points[:, 1]), axis=1)

    shapes: np.ndarray = shapely.transform(features.geometry.to_numpy(), to_pixels)
    return shapes


def _window(shape: Any, grid: GeoGrid) -> Window:
    """Around an object, twice its size; empty where the raster does not reach."""
    x0, y0, x1, y1 = shapely.bounds(shape)
    side = int(max(_SIDE_PX, 2 * (x1 - x0), 2 * (y1 - y0)))
    row, col = int((y0 + y1 - side) // 2), int((x0 + x1 - side) // 2)
    return Window(row=row, col=col, height=side, width=side).intersect(grid.window)
