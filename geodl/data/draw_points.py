"""Blocks of points in three dimensions: plotly where it is installed, else matplotlib."""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from geodl.core.classes import ClassTable
from geodl.core.contract import IGNORE_INDEX
from geodl.data.draw import draw_legend
from geodl.data.figure import ShownFigure, new_figure, show

if TYPE_CHECKING:
    from geodl.data.point_data import PointData

_COLUMNS = 2
_ROW_PX = 450
_GREY = (150, 150, 150)
# Corners of a box in the order of _corners, joined by its twelve edges.
_RING = ((0, 1), (1, 2), (2, 3), (3, 0))
_EDGES = (*_RING, *((a + 4, b + 4) for a, b in _RING), *((a, a + 4) for a in range(4)))


@dataclass(frozen=True, slots=True, kw_only=True)
class PointPicture:
    """How blocks are drawn.

    Parameters
    ----------
    colours
        Class value to red, green, blue of 0..255, in place of the table's own.
    hidden
        Class values whose points are left out.
    width, height
        In pixels, of a picture and of a row of it; None leaves the size to the content.
    most_points
        Of one block; of more, some are drawn by chance.
    """

    colours: Mapping[int, tuple[int, int, int]] = field(default_factory=dict)
    hidden: tuple[int, ...] = ()
    width: int | None = None
    height: int | None = None
    most_points: int = 20_000

    def classes(self, table: ClassTable) -> ClassTable:
        """The classes in the picture's colours."""
        return ClassTable(
            tuple(replace(e, color=self.colours.get(e.value, e.color)) for e in table)
        )


def draw_blocks(data: PointData, rows: int) -> Any:
    """Training blocks in the colours of their classes, with the boxes of objects.

    Returns
    -------
    A plotly Figure where plotly is installed, else one of matplotlib.
    """
    count = len(data.train_ds)  # type: ignore[arg-type]
    shown = min(rows * _COLUMNS, count)
    return draw_items([data.train_ds[i] for i in range(shown)], data.class_table)


def draw_items(
    items: list[dict[str, Any]], classes: ClassTable, picture: PointPicture | None = None
) -> Any:
    """Items side by side, two in a row.

    Returns
    -------
    A plotly Figure where plotly is installed, else one of matplotlib.
    """
    if importlib.util.find_spec("plotly") is not None:
        return with_plotly(items, classes, picture)
    return show(with_matplotlib(items, classes, picture))


def block_colours(
    item: Mapping[str, Any], classes: ClassTable, zero: tuple[int, int, int] = _GREY
) -> np.ndarray:
    """uint8 (N, 3) of each point: its class's colour, ``zero`` for code 0, grey without one."""
    count = len(item["points"])
    colours = np.full((count, 3), _GREY, np.uint8)
    if isinstance(item["target"], Mapping):
        return colours
    palette = np.array([zero, *(entry.color for entry in classes)], np.uint8)
    target = np.asarray(item["target"])
    known = target != IGNORE_INDEX
    colours[known] = palette[target[known]]
    return colours


def box_lines(boxes: np.ndarray) -> np.ndarray:
    """float (M, 12, 2, 3): both ends of the edges of boxes.

    Parameters
    ----------
    boxes
        (M, 7) x, y, z of the bottom, length, width, height, yaw.
    """
    corners = np.stack([_corners(box) for box in boxes]) if len(boxes) else np.zeros((0, 8, 3))
    return np.asarray(corners[:, np.array(_EDGES)])


def _corners(box: np.ndarray) -> np.ndarray:
    x, y, z, length, width, height, yaw = box.tolist()
    flat = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * (length / 2, width / 2)
    turn = np.array([[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]])
    ground = flat @ turn.T + (x, y)
    return np.concatenate(
        [np.column_stack([ground, np.full(4, level)]) for level in (z, z + height)]
    )


def _thinned(
    item: Mapping[str, Any], classes: ClassTable, picture: PointPicture
) -> tuple[np.ndarray, np.ndarray]:
    """Points to show (n, 3) and their colours."""
    xyz = np.asarray(item["points"])[:, :3]
    colours = block_colours(item, classes, picture.colours.get(0, _GREY))
    shown = np.arange(len(xyz))
    if picture.hidden and not isinstance(item["target"], Mapping):
        target = np.asarray(item["target"])
        value = classes.value_of_index()[np.maximum(target, 0)]
        shown = np.flatnonzero((target == IGNORE_INDEX) | ~np.isin(value, picture.hidden))
    if len(shown) > picture.most_points:
        chosen = np.random.default_rng(0).permutation(len(shown))[: picture.most_points]
        shown = shown[np.sort(chosen)]
    return xyz[shown], colours[shown]


def _boxes(item: Mapping[str, Any]) -> np.ndarray:
    target = item["target"]
    return target["boxes"].numpy() if isinstance(target, Mapping) else np.zeros((0, 7))


def with_matplotlib(
    items: list[dict[str, Any]], classes: ClassTable, picture: PointPicture | None = None
) -> ShownFigure:
    """The blocks as a matplotlib Figure; a batch log and a package can hold it."""
    picture = picture or PointPicture()
    classes = picture.classes(classes)
    rows = math.ceil(len(items) / _COLUMNS)
    figure = new_figure(4.2 * _COLUMNS + 1.2, 4 * rows)
    for position, item in enumerate(items, start=1):
        axes = figure.add_subplot(rows, _COLUMNS, position, projection="3d")
        xyz, colours = _thinned(item, classes, picture)
        axes.scatter(*xyz.T, c=colours / 255, s=1)
        for edge in box_lines(_boxes(item)).reshape(-1, 2, 3):
            axes.plot(*edge.T, color="black", linewidth=1)
        axes.set_aspect("equal")
        axes.set_title(item["name"], fontsize=8)
    draw_legend(figure, classes)
    return figure


def with_plotly(
    items: list[dict[str, Any]], classes: ClassTable, picture: PointPicture | None = None
) -> Any:
    """The blocks as a plotly Figure that can be turned with the mouse."""
    picture = picture or PointPicture()
    classes = picture.classes(classes)
    graph_objects = importlib.import_module("plotly.graph_objects")
    subplots = importlib.import_module("plotly.subplots")
    rows = math.ceil(len(items) / _COLUMNS)
    figure = subplots.make_subplots(
        rows=rows,
        cols=_COLUMNS,
        specs=[[{"type": "scene"}] * _COLUMNS] * rows,
        subplot_titles=[item["name"] for item in items],
    )
    for position, item in enumerate(items):
        place = {"row": position // _COLUMNS + 1, "col": position % _COLUMNS + 1}
        xyz, colours = _thinned(item, classes, picture)
        marker = {"size": 1.5, "color": [f"rgb({r},{g},{b})" for r, g, b in colours.tolist()]}
        cloud = graph_objects.Scatter3d(
            x=xyz[:, 0], y=xyz[:, 1], z=xyz[:, 2], mode="markers", marker=marker, showlegend=False
        )
        figure.add_trace(cloud, **place)
        for start, end in box_lines(_boxes(item)).reshape(-1, 2, 3).tolist():
            ends = [[a, b] for a, b in zip(start, end, strict=True)]
            edge = graph_objects.Scatter3d(
                x=ends[0], y=ends[1], z=ends[2], mode="lines", line={"color": "black"},
                showlegend=False,
            )  # fmt: skip
            figure.add_trace(edge, **place)
    figure.update_scenes(aspectmode="data")
    figure.update_layout(height=(picture.height or _ROW_PX) * rows, width=picture.width)
    return figure
