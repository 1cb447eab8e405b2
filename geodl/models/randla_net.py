"""RandLANet: a class for every point, by random sampling and local aggregation."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from torch import nn

from geodl.base.options import as_int
from geodl.core.classes import ClassTable
from geodl.models.model import check_backend
from geodl.models.point_classifier import (
    PointClassifier,
    level_lists,
    point_emd_keys,
    point_parameters,
)
from geodl.nets.randlanet import RandLANetwork
from geodl.tasks.base import Task
from geodl.tasks.points import PointTask

_DEFAULTS = {
    "out_channels": [16, 64, 128, 256],
    "sub_sampling_ratio": [4, 4, 4, 4],
    "k_n": 16,
}


class RandLANet(PointClassifier):
    """RandLA-Net point cloud classifier (Hu et al. 2020, 1911.11236).

    Parameters
    ----------
    data
        From ``prepare_data``, of the type PointCloud.
    pretrained_path
        A saved model to start from.
    **kwargs
        ``encoder_params``: ``out_channels`` and ``sub_sampling_ratio``, lists with a number per
        level, and ``k_n``, neighbours of each point (default ``{"out_channels": [16, 64, 128,
        256], "sub_sampling_ratio": [4, 4, 4, 4], "k_n": 16}``); ``focal_loss`` (False);
        ``class_weights``: a dict of class code to weight, ``"balanced"`` or None.

    Raises
    ------
    OptionError, UnknownOptionError
        A keyword outside its domain, or an unknown one.
    ModelDataError
        Data of another kind.
    """

    def __init__(
        self,
        data: Any,
        pretrained_path: str | os.PathLike[str] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        name = type(self).__name__
        check_backend("pytorch", args, name)
        parameters = point_parameters(name, data, kwargs, ("encoder_params",))
        parameters["encoder_params"] = random_encoder(kwargs.get("encoder_params"))
        self._setup(data, parameters, pretrained_path)

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
        task = random_task(classes, parameters, encoder)
        net = RandLANetwork(
            bands,
            task.outputs,
            channels=encoder["out_channels"],
            ratios=encoder["sub_sampling_ratio"],
            spacing=float(parameters["spacing"]),
        )
        return net, task, False

    @classmethod
    def emd_keys(cls, parameters: Mapping[str, Any]) -> dict[str, Any]:
        return point_emd_keys(parameters)


def random_encoder(given: Any) -> dict[str, Any]:
    """``encoder_params`` of networks with random sampling, checked. Raises OptionError."""
    lists = ("out_channels", "sub_sampling_ratio")
    merged = level_lists(given, _DEFAULTS, lists)
    return {
        **{key: [as_int(n, key, minimum=1) for n in merged[key]] for key in lists},
        "k_n": as_int(merged["k_n"], "k_n", minimum=1),
    }


def random_task(
    classes: ClassTable,
    parameters: Mapping[str, Any],
    encoder: Mapping[str, Any],
    kind: str = "random",
) -> PointTask:
    """The task of a network with random sampling; ``kind`` names its levels."""
    return PointTask(
        classes,
        codes=parameters["codes"],
        focal_loss=parameters["focal_loss"],
        class_weights=parameters["class_weights"],
        levels={"kind": kind, "ratios": encoder["sub_sampling_ratio"], "k": encoder["k_n"]},
    )
