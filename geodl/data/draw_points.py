"""Blocks of points in three dimensions: plotly where it is installed, else matplotlib."""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from geodl.core.classes import ClassTable
from geodl.core.contract import IGNORE_INDEX
from geodl.data.draw import draw_legend
from geodl.data.figure import ShownFigure, new_figure, show

if TYPE_CHECKING:
    from geodl.data.point_data import PointData

# A picture gains nothing from more, and browsers slow down.
_MOST_POINTS = 20_000
_COLUMNS = 2
_GREY = (150, 150, 150)
# Corners of a box in the order of _corners, joined by its twelve edges.
_RING = ((0, 1), (1, 2), (2, 3), (3, 0))
_EDGES = (*_RING, *((a + 4, b + 4) for a, b in _RING), *((a, a + 4) for a in range(4)))


def draw_blocks(data: PointData, rows: int) -> Any:
    """Training blocks in the colours of their classes, with the boxes of objects.

    Returns
    -------
    A plotly Figure where plotly is installed, else one of matplotlib.
    """
    count = len(data.train_ds)  # type: ignore[arg-type]
    shown = min(rows * _COLUMNS, count)
    items = [data.train_ds[i] for i in range(shown)]
    if importlib.util.find_spec("plotly") is not None:
        return _with_plotly(items, data.class_table)
    return with_matplotlib(items, data.class_table)


def block_colours(item: Mapping[str, Any], classes: ClassTable) -> np.ndarray:
    """uint8 (N, 3) of each point: its class's colour, grey without one."""
    count = len(item["points"])
    colours = np.full((count, 3), _GREY, np.uint8)
    if isinstance(item["target"], Mapping):
        return colours
    palette = np.array([_GREY, *(entry.color for entry in classes)], np.uint8)
    target = item["target"].numpy()
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


def _thinned(item: Mapping[str, Any], classes: ClassTable) -> tuple[np.ndarray, np.ndarray]:
    """Points to show (n, 3) and their colours."""
    step = max(1, math.ceil(len(item["points"]) / _MOST_POINTS))
    return item["points"][::step, :3].numpy(), block_colours(item, classes)[::step]


def _boxes(item: Mapping[str, Any]) -> np.ndarray:
    target = item["target"]
    return target["boxes"].numpy() if isinstance(target, Mapping) else np.zeros((0, 7))


def with_matplotlib(items: list[dict[str, Any]], classes: ClassTable) -> ShownFigure:
    """The blocks as a matplotlib Figure."""
    rows = math.ceil(len(items) / _COLUMNS)
    figure = new_figure(4.2 * _COLUMNS + 1.2, 4 * rows)
    for position, item in enumerate(items, start=1):
        axes = figure.add_subplot(rows, _COLUMNS, position, projection="3d")
        xyz, colours = _thinned(item, classes)
        axes.scatter(*xyz.T, c=colours / 255, s=1)
        for edge in box_lines(_boxes(item)).reshape(-1, 2, 3):
            axes.plot(*edge.T, color="black", linewidth=1)
        axes.set_aspect("equal")
        axes.set_title(item["name"], fontsize=8)
    draw_legend(figure, classes)
    return show(figure)


def _with_plotly(items: list[dict[str, Any]], classes: ClassTable) -> Any:
    """The blocks as a plotly Figure that can be turned with the mouse."""
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
        xyz, colours = _thinned(item, classes)
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
    figure.update_layout(height=450 * rows)
    return figure
