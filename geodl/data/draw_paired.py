"""Pairs and triplets of images side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps

from geodl.core.contract import IGNORE_INDEX
from geodl.data.draw import draw_legend, draw_mask, draw_picture, to_picture
from geodl.data.figure import ShownFigure, new_figure, show
from geodl.data.paired import IMAGE_KEYS

if TYPE_CHECKING:
    from geodl.data.paired_data import PairedData


def draw_pairs(data: PairedData, rows: int) -> ShownFigure:
    """One sample per row: its images, and its label where it has one.

    Raises
    ------
    FormatError
        A sample that cannot be read; names the file.
    """
    columns = len(data.titles) + bool(len(data.class_table) and data.kind == "change")
    figure = new_figure(2.8 * columns + 0.8, 2.9 * rows)
    grid = figure.subplots(rows, columns, squeeze=False)
    count = len(data.train_ds)  # type: ignore[arg-type]
    for row, axes in enumerate(grid):
        item = data.train_ds[row % count]
        draw_images(axes, item, data)
        if columns > len(data.titles):
            _draw_label(axes[-1], item, data)
    draw_legend(figure, data.class_table)
    return show(figure)


def draw_images(axes: Any, item: Mapping[str, Any], data: PairedData) -> None:
    """The images of one item on as many axes."""
    valid = _valid(item)
    for position, title in enumerate(data.titles):
        draw_picture(
            axes[position], image_picture(item, position, data, valid), f"{title} {item['name']}"
        )


def image_picture(
    item: Mapping[str, Any], position: int, data: PairedData, valid: np.ndarray | None = None
) -> np.ndarray:
    """uint8 (H, W, 3) of one image of an item; classes one-hot are shown in colours.

    Parameters
    ----------
    position
        Of the image: 0 for ``image``, 1 for ``image_b``.
    valid
        bool (H, W), True where there is data, or None; passed over where the sizes differ.
    """
    values = item[IMAGE_KEYS[position]].detach().cpu().numpy()
    normalization = data.normalizations[position]
    if normalization is None:
        shades = values.argmax(axis=0) / max(1, len(values) - 1)
        return np.rint(colormaps["nipy_spectral"](shades)[..., :3] * 255).astype(np.uint8)
    if valid is not None and valid.shape != values.shape[1:]:
        valid = None
    return to_picture(
        normalization.invert(values), valid, data.all_dtypes[position], data.all_names[position]
    )


def _valid(item: Mapping[str, Any]) -> np.ndarray | None:
    if "valid" in item:
        return np.asarray(item["valid"].numpy())
    return np.asarray(item["target"].numpy() != IGNORE_INDEX) if "target" in item else None


def _draw_label(axes: Any, item: Mapping[str, Any], data: PairedData) -> None:
    target = item["target"].numpy()
    blank = np.full((*target.shape, 3), 255, np.uint8)
    blank[target == IGNORE_INDEX] = 0
    draw_picture(axes, blank, "label")
    draw_mask(axes, target, data.class_table)
