"""Images with captions, and objects in two frames."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.patches import Rectangle

from geodl.data.draw import draw_picture, to_picture
from geodl.data.figure import ShownFigure, new_figure, show

if TYPE_CHECKING:
    from geodl.data.captioning import CaptionData
    from geodl.data.tracking import TrackData

_COLUMNS = 3
_LINE = 38


def draw_captions(data: CaptionData, rows: int) -> ShownFigure:
    """Images with a sentence below each."""
    figure = new_figure(2.8 * _COLUMNS, 3.4 * rows)
    grid = figure.subplots(rows, _COLUMNS, squeeze=False)
    count = len(data.train_ds)  # type: ignore[arg-type]
    for position, axes in enumerate(grid.flat):
        item = data.train_ds[position % count]
        raw = data.normalization.invert(item["image"].numpy())
        draw_picture(axes, to_picture(raw, None, data.dtype, data.band_names), item["name"])
        axes.set_xlabel(textwrap.fill(item["caption"], _LINE), fontsize=8)
    return show(figure)


def draw_tracks(data: TrackData, rows: int) -> ShownFigure:
    """Two frames per row with the object in them: its pixels tinted, its bounds drawn."""
    figure = new_figure(7, 3.2 * rows)
    grid = figure.subplots(rows, 2, squeeze=False)
    count = len(data.train_ds)  # type: ignore[arg-type]
    for row, pair in enumerate(grid):
        item = data.train_ds[row % count]
        for axes, suffix in zip(pair, ("", "_b"), strict=True):
            raw = data.normalization.invert(item[f"image{suffix}"].numpy())
            picture = to_picture(raw, None, data.dtype)
            inside = item[f"target{suffix}"].numpy() == 1
            picture[inside] = (0.5 * picture[inside] + np.array([127, 0, 0])).astype(np.uint8)
            draw_picture(axes, picture, item[f"name{suffix}"])
            x0, y0, x1, y1 = item[f"box{suffix}"].tolist()
            axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor="red"))
    return show(figure)
