"""Series in time: curves of pixels, and fields with their future."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps

from geodl.data.draw import entry_by_index
from geodl.data.figure import ShownFigure, new_figure, show

if TYPE_CHECKING:
    from geodl.data.forecast import ForecastData
    from geodl.data.series import SeriesData

_COLUMNS = 3


def draw_series(data: SeriesData, rows: int) -> ShownFigure:
    """Mean and spread of the pixels of regions over time, one curve per band."""
    figure = new_figure(3.4 * _COLUMNS, 2.6 * rows)
    grid = figure.subplots(rows, _COLUMNS, squeeze=False)
    entries = entry_by_index(data.class_table)
    count = len(data.train_ds)  # type: ignore[arg-type]
    shades = colormaps["viridis"](np.linspace(0, 0.9, data.bands))
    for position, axes in enumerate(grid.flat):
        item = data.train_ds[position % count]
        pixels = item["pixels"].numpy()[:, :, item["valid"].numpy()]
        mean, spread = pixels.mean(axis=2), pixels.std(axis=2)
        for band, shade in enumerate(shades):
            axes.plot(data.days, mean[:, band], color=shade, marker=".", linewidth=1)
            low, high = mean[:, band] - spread[:, band], mean[:, band] + spread[:, band]
            axes.fill_between(data.days, low, high, color=shade, alpha=0.15)
        axes.set_title(f"{entries[int(item['target'])].name} {item['name']}", fontsize=8)
        axes.set_xlabel(f"days from {data.dates[0]}", fontsize=7)
    return show(figure)


def draw_fields(data: ForecastData, rows: int) -> ShownFigure:
    """The first variable at a time step, and as many steps later as is to be forecast."""
    figure = new_figure(6.4, 3 * rows)
    grid = figure.subplots(rows, 2, squeeze=False)
    count = len(data.train_ds)  # type: ignore[arg-type]
    for row, axes in enumerate(grid):
        item = data.train_ds[row % count]
        pair = [
            np.where(item["valid"][0], data.normalization.invert(item[key].numpy())[0], np.nan)
            for key in ("image", "target")
        ]
        known = np.concatenate([part[np.isfinite(part)] for part in pair])
        low, high = (known.min(), known.max()) if known.size else (0.0, 1.0)
        for one, values, title in zip(axes, pair, ("now", "then"), strict=True):
            shown = one.imshow(values, vmin=low, vmax=high)
            one.set(xticks=[], yticks=[])
            one.set_title(f"{data.variables[0]} {title} {item['name']}", fontsize=8)
        figure.colorbar(shown, ax=axes)
    return show(figure)
