"""Pictures of a classifier of whole images: confusion, and what it finds hard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geodl.core.contract import ModelContract
from geodl.data.draw import item_picture
from geodl.data.figure import ShownFigure, new_figure
from geodl.nets.tile_net import TileNet, activation_maps
from geodl.tasks.labels import LabelTask
from geodl.train.device import net_device

_CELL_IN = 0.55
_MATRIX_IN = 2.6
_COLUMNS = 4
# Numbers in a matrix of more classes could not be read.
_MOST_NUMBERED = 25


def confusion_figure(counts: np.ndarray, names: Sequence[str]) -> ShownFigure:
    """Truth down, prediction across.

    Parameters
    ----------
    counts
        int64 (K, K); or (K, 2, 2), a matrix for each class, absence first.
    names
        Of the K classes.
    """
    if counts.ndim == 2:
        side = max(3.5, _CELL_IN * len(names) + 1.5)
        figure = new_figure(side, side)
        _matrix(figure.add_subplot(), counts, list(names), "confusion")
        return figure
    columns = min(_COLUMNS, len(names))
    rows = -(-len(names) // columns)
    figure = new_figure(_MATRIX_IN * columns, _MATRIX_IN * rows)
    grid = figure.subplots(rows, columns, squeeze=False).flat
    for axes in list(grid)[len(names) :]:
        axes.set_axis_off()
    for axes, one, name in zip(grid, counts, names, strict=False):
        _matrix(axes, one, ["no", "yes"], name)
    return figure


def _matrix(axes: Any, counts: np.ndarray, names: list[str], title: str) -> None:
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    places = np.arange(len(names))
    axes.set_xticks(places, names, rotation=90 if len(names) > 2 else 0, fontsize=8)
    axes.set_yticks(places, names, fontsize=8)
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_title(title, fontsize=9)
    if len(names) > _MOST_NUMBERED:
        return
    for row, col in np.ndindex(counts.shape):
        colour = "white" if shares[row, col] > 0.5 else "black"
        axes.text(col, row, str(counts[row, col]), ha="center", va="center", color=colour)


def hard_examples_figure(
    net: TileNet, task: LabelTask, data: Any, contract: ModelContract, count: int
) -> ShownFigure:
    """The validation chips with the largest losses, each beside its map of the predicted class."""
    losses, scores = _validation_losses(net, task, data)
    hardest = torch.argsort(losses, descending=True, stable=True)[:count].tolist()
    figure = new_figure(2 * _MATRIX_IN, (_MATRIX_IN + 0.4) * len(hardest))
    axes = figure.subplots(len(hardest), 2, squeeze=False)
    names = [contract.band_names[b] for b in contract.extract_bands] if contract.band_names else []
    for row, index in enumerate(hardest):
        item = data.valid_ds[index]
        picture = item_picture(item, contract.normalization, contract.dtype, names)
        places = task.decode(scores[index].numpy())
        output = places[0] if places else int(scores[index].argmax())
        truth = item["target"].nonzero()[:, 0] if task.multilabel else item["target"][None]
        axes[row, 0].set_title(
            f"{item['name']}\nis {task.names(truth.tolist()) or 'no class'}\n"
            f"taken for {task.names(places) or 'no class'}, loss {losses[index]:.2f}",
            fontsize=8,
        )
        axes[row, 1].set_title(f"speaks for {task.names([output])}", fontsize=8)
        for one in axes[row]:
            one.imshow(picture)
            one.set_axis_off()
        heat = _heat(net, item["image"], output)
        axes[row, 1].imshow(heat, cmap="magma", alpha=0.5, vmin=0, vmax=1)
    return figure


def _heat(net: TileNet, image: Tensor, output: int) -> np.ndarray:
    device = net_device(net)
    chosen = torch.tensor([output], device=device)
    return activation_maps(net, image[None].to(device), chosen)[0].cpu().numpy()


def _validation_losses(net: TileNet, task: LabelTask, data: Any) -> tuple[Tensor, Tensor]:
    """float32 (N,) losses and (N, K) scores of the validation set, on the CPU."""
    device = net_device(net)
    net.eval()
    losses, scores = [], []
    with torch.inference_mode():
        for batch in data.valid_loader(task.collate):
            logits = net(batch["image"].to(device)).float()
            losses.append(task.losses(logits, batch["target"].to(device)).cpu())
            scores.append(task.scores_of(logits).cpu())
    return torch.cat(losses), torch.cat(scores)
