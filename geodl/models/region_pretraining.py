"""Between DETReg and the training engine: its first stage, without labels."""

from __future__ import annotations

from typing import Any

import torch

from geodl.bundle.weights import load_matching
from geodl.core.classes import ClassTable
from geodl.models.query_detector import DEFORMABLE_DEFAULTS, query_options
from geodl.nets.queries import QueryNet, deformable_detr
from geodl.nets.region_queries import RegionQueryNet
from geodl.tasks.region_proposals import RegionTask
from geodl.train.engine import FitOptions, train
from geodl.train.optim import group_rates
from geodl.train.record import TrainingRecord

# Scores of classes are learned from labels only.
_CLASS_HEADS = ".class_embed."


def pretrain(
    net: QueryNet,
    data: Any,
    parameters: dict[str, Any],
    *,
    epochs: int,
    lr: float | slice,
    regions: int,
) -> TrainingRecord:
    """Train all of a network but its backbone and its class scores on region proposals.

    Parameters
    ----------
    net
        Changed in place.
    data
        Its images are used, its labels not.
    parameters
        Of the model.

    Returns
    -------
    Losses by epoch.
    """
    backbone = net.backbone
    trainable = {name: p.requires_grad for name, p in backbone.named_parameters()}
    backbone.requires_grad_(False)
    try:
        with torch.random.fork_rng([]):
            torch.manual_seed(data.seed)
            options = query_options(parameters, DEFORMABLE_DEFAULTS)
            stage = RegionQueryNet(backbone, deformable_detr(backbone, 1, options))
        load_matching(stage, _without_classes(net))
        record = _trained(stage, data, epochs, lr, regions)
        load_matching(net, _without_classes(stage))
    finally:
        for name, p in backbone.named_parameters():
            p.requires_grad_(trainable[name])
    net.eval()
    return record


def _trained(
    stage: RegionQueryNet, data: Any, epochs: int, lr: float | slice, regions: int
) -> TrainingRecord:
    task = RegionTask(ClassTable.from_mapping({1: "region"}), regions=regions)
    record = TrainingRecord()
    train(
        stage,
        task,
        data.train_loader(task.train_collate, generator=torch.Generator().manual_seed(data.seed)),
        data.valid_loader(task.collate),
        FitOptions(epochs=epochs, rates=group_rates(lr, len(stage.layer_groups())), seed=data.seed),
        record,
    )
    return record


def _without_classes(net: QueryNet) -> dict[str, torch.Tensor]:
    return {name: value for name, value in net.state_dict().items() if _CLASS_HEADS not in name}
