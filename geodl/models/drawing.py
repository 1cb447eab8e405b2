"""Pictures of what a model does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from geodl.core.contract import ModelContract
from geodl.data.draw import draw_legend, item_picture
from geodl.data.figure import ShownFigure, new_figure
from geodl.tasks.base import Task
from geodl.train.device import net_device, to_device

_ROW_IN = 2.8


def results_figure(
    net: nn.Module,
    task: Task,
    data: Any,
    contract: ModelContract,
    rows: int,
    options: Mapping[str, Any],
    *,
    first: int = 0,
    side_in: float = _ROW_IN,
) -> ShownFigure:
    """Truth on the left, prediction on the right, for ``rows`` validation chips from ``first``."""
    count = min(rows, len(data.valid_ds) - first)
    figure = new_figure(2 * side_in + 1.5, side_in * count)
    axes = figure.subplots(count, 2, squeeze=False)
    names = (
        [contract.band_names[band] for band in contract.extract_bands]
        if (contract.band_names)
        else []
    )
    net.eval()
    for row in range(count):
        item = data.valid_ds[first + row]
        x = to_device(task.collate([item])["image"], net_device(net))
        prediction = task.predict(net, x, **{**task.predict_defaults, **options})[0]
        picture = item_picture(item, contract.normalization, contract.dtype, names)
        task.draw(axes[row, 0], axes[row, 1], item, prediction, picture)
        for column, title in enumerate(("truth", "prediction")):
            axes[row, column].set(xticks=[], yticks=[])
            axes[row, column].set_title(f"{item['name']}: {title}", fontsize=8)
    draw_legend(figure, contract.classes)
    return figure
