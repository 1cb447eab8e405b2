"""Chips made visible: pictures of any number of bands, with their boxes or classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.patches import Patch, Rectangle

from geodl.base.options import as_int
from geodl.core.classes import ClassEntry, ClassTable
from geodl.core.contract import IGNORE_INDEX, Normalization
from geodl.data.figure import ShownFigure, new_figure, show

if TYPE_CHECKING:
    from geodl.data.chips import ChipData

STRETCH_PERCENT = (2.0, 98.0)
MASK_OPACITY = 0.5
_COLOURS = ("red", "green", "blue")
# A legend longer than this hides the chips.
_LEGEND_ROWS = 20


def rgb_bands(band_names: Sequence[str], bands: int) -> tuple[int, ...]:
    """The bands to show: red, green and blue by name, else the first three, or one for grey."""
    names = [str(name or "").strip().lower() for name in band_names]
    if all(colour in names[:bands] for colour in _COLOURS):
        return tuple(names.index(colour) for colour in _COLOURS)
    return (0, 1, 2) if bands >= 3 else (0,)


def to_picture(
    data: np.ndarray, valid: np.ndarray | None, dtype: str, band_names: Sequence[str] = ()
) -> np.ndarray:
    """Pixels as a picture.

    Parameters
    ----------
    data
        (C, H, W) raw values; NaN allowed.
    valid
        bool (H, W), True where there is data; None: everywhere. Elsewhere the picture is black.
    dtype
        Of the raster: uint8 is shown as it is, all else stretched band by band between the 2nd
        and 98th percentile of its valid pixels.
    band_names
        Of the C bands; may be empty.

    Returns
    -------
    uint8 (H, W, 3)
    """
    chosen = [data[band] for band in rgb_bands(band_names, len(data))]
    inside = np.ones(data.shape[1:], bool) if valid is None else valid
    layers = [_to_bytes(layer, inside, dtype) for layer in chosen]
    picture = np.stack(layers if len(layers) == 3 else layers * 3, axis=-1)
    picture[~inside] = 0
    return picture


def _to_bytes(layer: np.ndarray, inside: np.ndarray, dtype: str) -> np.ndarray:
    values = np.asarray(layer, np.float64)
    finite = np.isfinite(values)
    if dtype == "uint8":
        low, high = 0.0, 255.0
    else:
        seen = values[inside & finite]
        low, high = np.percentile(seen, STRETCH_PERCENT) if seen.size else (0.0, 1.0)
    span = high - low if high > low else 1.0
    scaled = np.where(finite, (values - low) / span, 0.0).clip(0, 1)
    return np.rint(scaled * 255).astype(np.uint8)


def item_picture(
    item: Mapping[str, Any], normalization: Normalization, dtype: str, band_names: Sequence[str]
) -> np.ndarray:
    """uint8 (H, W, 3) of a data set's item, whose image is normalised.

    Pixels outside the image's mask, where the target says so, are black.
    """
    raw = normalization.invert(item["image"].detach().cpu().numpy())
    target = item.get("target")
    valid = None
    if target is not None and not isinstance(target, Mapping) and target.ndim == 2:
        valid = target.cpu().numpy() != IGNORE_INDEX
    return to_picture(raw, valid, dtype, band_names)


def entry_by_index(classes: ClassTable) -> dict[int, ClassEntry]:
    """Network output (1..K) to its class."""
    return dict(enumerate(classes, start=1))


def draw_boxes(axes: Any, boxes: np.ndarray, labels: np.ndarray, classes: ClassTable) -> None:
    """Outline boxes in the colours of their classes.

    Parameters
    ----------
    axes
        Matplotlib axes that hold the picture, drawn with :func:`draw_picture`.
    boxes
        (N, 4) x0, y0, x1, y1 in pixel edges.
    labels
        (N,) network outputs 1..K.
    """
    entries = entry_by_index(classes)
    for (x0, y0, x1, y1), label in zip(boxes.tolist(), labels.tolist(), strict=True):
        colour = _unit(entries[label].color)
        axes.add_patch(
            Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=1.5)
        )


def draw_mask(axes: Any, indices: np.ndarray, classes: ClassTable) -> None:
    """Lay class colours over a picture; background and ignored pixels stay clear.

    Parameters
    ----------
    indices
        int (H, W), network outputs 0..K or ``IGNORE_INDEX``.
    """
    height, width = indices.shape
    layer = np.zeros((height, width, 4), np.float32)
    for index, entry in entry_by_index(classes).items():
        layer[indices == index] = (*_unit(entry.color), MASK_OPACITY)
    axes.imshow(layer, extent=(0, width, height, 0), interpolation="nearest")


def draw_picture(axes: Any, picture: np.ndarray, title: str = "") -> None:
    """Show uint8 (H, W, 3) with pixel edges at whole numbers, x right and y down, without ticks."""
    height, width = picture.shape[:2]
    axes.imshow(picture, extent=(0, width, height, 0), interpolation="nearest")
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    if title:
        axes.set_title(title, fontsize=8)


def draw_legend(figure: Any, classes: ClassTable) -> None:
    """Class names with their colours, to the right of the axes."""
    entries = list(classes)[:_LEGEND_ROWS]
    patches = [Patch(color=_unit(entry.color), label=entry.name) for entry in entries]
    if patches:
        figure.legend(handles=patches, loc="outside right upper", fontsize=8)


def _unit(color: tuple[int, int, int]) -> tuple[float, float, float]:
    red, green, blue = color
    return red / 255, green / 255, blue / 255


def draw_instances(axes: Any, masks: np.ndarray, labels: np.ndarray, classes: ClassTable) -> None:
    """Lay each object over a picture in its class's colour, with a line around it.

    Parameters
    ----------
    masks
        bool (N, H, W), which may overlap.
    labels
        (N,) network outputs 1..K.
    """
    entries = entry_by_index(classes)
    height, width = masks.shape[1:]
    layer = np.zeros((height, width, 4), np.float32)
    for mask, label in zip(masks, labels.tolist(), strict=True):
        colour = _unit(entries[label].color)
        inner = mask.copy()
        for axis in (0, 1):
            for step in (-1, 1):
                inner &= np.roll(mask, step, axis)
        layer[inner] = (*colour, MASK_OPACITY)
        layer[mask & ~inner] = (*colour, 1.0)
    axes.imshow(layer, extent=(0, width, height, 0), interpolation="nearest")


def draw_item(axes: Any, item: Mapping[str, Any], data: ChipData) -> None:
    """One training item with its boxes, classes or objects."""
    names = [data.band_names[band] for band in data.extract_bands] if data.band_names else []
    draw_picture(axes, item_picture(item, data.normalization, data.dtype, names), item["name"])
    target = item["target"]
    if data.kind == "objects":
        boxes, labels = target["boxes"].numpy(), target["labels"].numpy()
        draw_boxes(axes, boxes, labels, data.class_table)
    elif data.kind == "tiles":
        axes.set_title(f"{item['name']}\n{_tile_names(target, data.classes)}", fontsize=8)
    elif data.kind in ("instances", "panoptic"):
        if data.kind == "panoptic":
            draw_mask(axes, target["classes"].numpy(), data.class_table)
        masks, labels = target["masks"].numpy(), target["labels"].numpy()
        draw_instances(axes, masks, labels, data.class_table)
    else:
        draw_mask(axes, target.numpy(), data.class_table)


def _tile_names(target: Any, classes: Sequence[str]) -> str:
    """The class, or the classes, of a whole chip."""
    chosen = [int(target)] if target.ndim == 0 else np.flatnonzero(target.numpy()).tolist()
    return ", ".join(classes[index] for index in chosen) or "no class"


def draw_batch(data: ChipData, rows: int = 3, columns: int = 3) -> ShownFigure:
    """The first training items as the network sees them, augmented, with their labels.

    Parameters
    ----------
    rows, columns
        Of the picture; small sets are drawn again, augmented anew.

    Raises
    ------
    OptionError
        Rows or columns below 1.
    """
    rows, columns = as_int(rows, "rows", minimum=1), as_int(columns, "columns", minimum=1)
    figure = new_figure(2.6 * columns + 1.2, 2.8 * rows)
    grid = figure.subplots(rows, columns, squeeze=False)
    for position, axes in enumerate(grid.flat):
        draw_item(axes, data.train_ds[position % len(data.train_ds)], data)
    draw_legend(figure, data.class_table)
    return show(figure)
