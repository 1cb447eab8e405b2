"""SQNSeg: a class for every point, learned from few labelled ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from geodl.core.classes import ClassTable
from geodl.models.randla_net import RandLANet, random_encoder, random_task
from geodl.nets.sqn import SemanticQueryNetwork
from geodl.tasks.base import Task


class SQNSeg(RandLANet):
    """SQN point cloud classifier for weak labels (Hu et al. 2022, 2104.04891).

    Only labelled points are learned from: leave the others in a class that the export excludes
    (``excludedClasses``), and a thousandth of the points may suffice.

    Parameters
    ----------
    data
        From ``prepare_data``, of the type PointCloud.
    pretrained_path
        A saved model to start from.
    **kwargs
        As of :class:`geodl.learn.RandLANet`: ``encoder_params``, ``focal_loss``,
        ``class_weights``.

    Raises
    ------
    OptionError, UnknownOptionError
        A keyword outside its domain, or an unknown one.
    ModelDataError
        Data of another kind.
    """

    @classmethod
    def build(
        cls,
        *,
        classes: ClassTable,
        bands: int,
        tile_px: int,
        parameters: Mapping[str, Any],
        pretrained: bool,
        batch_size: int | None,
    ) -> tuple[nn.Module, Task, bool]:
        encoder = random_encoder(parameters["encoder_params"])
        task = random_task(classes, parameters, encoder, "query")
        net = SemanticQueryNetwork(
            bands,
            task.outputs,
            channels=encoder["out_channels"],
            ratios=encoder["sub_sampling_ratio"],
            spacing=float(parameters["spacing"]),
        )
        return net, task, False
