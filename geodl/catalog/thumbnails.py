"""Small pictures of products and models for the catalog's page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from geodl.base.errors import GeodlError
from geodl.catalog.chip_items import first_chip
from geodl.catalog.items import Described
from geodl.data.draw import to_picture
from geodl.data.figure import ShownFigure, new_figure
from geodl.io.vector import read_features

SIDE_PX = 256
_SIDE_IN = 2.56
# More would only blacken the picture.
_MOST_FEATURES = 5000


def thumbnail(found: Described) -> bytes | None:
    """A PNG picture, or None of what there is nothing to draw."""
    if found.kind == "model":
        shown = [path for name, path in found.files.items() if name.endswith("show_results.png")]
        return shown[0].read_bytes() if shown else None
    try:
        if found.kind == "raster" and found.main.suffix.lower() in (".tif", ".tiff"):
            return _raster(found.main)
        if found.kind == "chips":
            return _raster(first_chip(found.main))
        if found.kind == "features":
            return _features(found.main)
    except (GeodlError, rasterio.errors.RasterioError):
        # A product without a picture is still a product.
        return None
    return None


def _raster(path: Path) -> bytes:
    with rasterio.open(path) as file:
        factor = max(1.0, max(file.width, file.height) / SIDE_PX)
        size = max(1, round(file.height / factor)), max(1, round(file.width / factor))
        data = file.read(out_shape=(file.count, *size))
        mask = file.dataset_mask(out_shape=size) > 0
        colours = file.colormap(1) if file.colorinterp[0].name == "palette" else None
        names = [name or "" for name in file.descriptions]
    if colours is not None:
        table = np.zeros((max(colours) + 1, 3), np.uint8)
        for value, colour in colours.items():
            table[value] = colour[:3]
        picture = table[np.clip(data[0], 0, len(table) - 1)]
        picture[~mask] = 255
    else:
        picture = to_picture(data, mask, str(data.dtype), names)
    figure, axes = _canvas(picture.shape[0] / picture.shape[1])
    axes.imshow(picture)
    return figure.to_png()


def _features(path: Path) -> bytes | None:
    frame = read_features(str(path), may_be_empty=True)
    if not len(frame):
        return None
    step = max(1, len(frame) // _MOST_FEATURES)
    figure, axes = _canvas(1.0)
    frame.iloc[::step].plot(ax=axes, color="#c0392b", markersize=3, linewidth=0.8)
    return figure.to_png()


def _canvas(height_by_width: float) -> tuple[ShownFigure, Any]:
    """A figure that its axes fill."""
    figure = new_figure(_SIDE_IN, _SIDE_IN * height_by_width)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    return figure, axes
