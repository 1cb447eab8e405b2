"""PointCNN: a class for every point, by convolution over transformed neighbourhoods."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from geodl.base.errors import OptionError
from geodl.base.options import as_float, as_int
from geodl.core.classes import ClassTable
from geodl.models.model import check_backend
from geodl.models.point_classifier import (
    PointClassifier,
    level_lists,
    point_emd_keys,
    point_parameters,
)
from geodl.nets.pointcnn import PointCNNetwork
from geodl.tasks.base import Task
from geodl.tasks.points import PointTask

_LISTS = ("out_channels", "P", "K", "D")
_DEFAULTS = {
    "out_channels": [16, 32, 64, 96],
    "P": [-1, 768, 384, 128],
    "K": [12, 16, 16, 16],
    "D": [1, 1, 2, 2],
    "m": 8,
}
# 134 MB of weights in each transform, of which a network has two per layer.
_MOST_NEIGHBOURS = 64
_OWN = ("encoder_params", "dropout", "sample_point_num")


class PointCNN(PointClassifier):
    """PointCNN point cloud classifier (Li et al. 2018, 1801.07791).

    Parameters
    ----------
    data
        From ``prepare_data``, of the type PointCloud.
    pretrained_path
        A saved model to start from.
    **kwargs
        ``encoder_params``: per layer ``out_channels``, ``P`` representative points (-1: all),
        ``K`` neighbours and ``D`` their dilation, as lists of one length, and ``m``, a factor of
        all channels (default ``{"out_channels": [16, 32, 64, 96], "P": [-1, 768, 384, 128], "K":
        [12, 16, 16, 16], "D": [1, 1, 2, 2], "m": 8}``); ``dropout`` (0.5), from 0 to below 1;
        ``sample_point_num``: points of a block that are run at once (the most of the export);
        ``focal_loss`` (False); ``class_weights``: a dict of class code to weight, ``"balanced"``
        or None.

    Raises
    ------
    OptionError, UnknownOptionError
        A keyword outside its domain, or an unknown one.
    ModelDataError
        Data of another kind.
    """

    keywords: ClassVar[tuple[str, ...]] = (*PointClassifier.keywords, "dropout", "sample_point_num")

    def __init__(
        self,
        data: Any,
        pretrained_path: str | os.PathLike[str] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        name = type(self).__name__
        check_backend("pytorch", args, name)
        parameters = point_parameters(name, data, kwargs, _OWN)
        parameters["encoder_params"] = _encoder(kwargs.get("encoder_params"))
        parameters["dropout"] = _dropout(kwargs.get("dropout", 0.5))
        given = kwargs.get("sample_point_num")
        parameters["sample_point_num"] = as_int(
            data.max_points if given is None else given, "sample_point_num", minimum=1
        )
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
        encoder = _encoder(parameters["encoder_params"])
        task = PointTask(
            classes,
            codes=parameters["codes"],
            focal_loss=parameters["focal_loss"],
            class_weights=parameters["class_weights"],
            levels={
                "kind": "farthest",
                "counts": encoder["P"],
                "k": encoder["K"],
                "dilation": encoder["D"],
                "sample": as_int(parameters["sample_point_num"], "sample_point_num", minimum=1),
            },
        )
        net = PointCNNetwork(
            bands,
            task.outputs,
            channels=[encoder["m"] * channels for channels in encoder["out_channels"]],
            counts=encoder["P"],
            k=encoder["K"],
            dilation=encoder["D"],
            spacing=float(parameters["spacing"]),
            dropout=_dropout(parameters["dropout"]),
        )
        return net, task, False

    @classmethod
    def emd_keys(cls, parameters: Mapping[str, Any]) -> dict[str, Any]:
        return point_emd_keys(parameters)


def _encoder(given: Any) -> dict[str, Any]:
    merged = level_lists(given, _DEFAULTS, _LISTS)
    found: dict[str, Any] = {
        key: [as_int(n, key, minimum=1) for n in merged[key]] for key in ("out_channels", "K", "D")
    }
    counts = [as_int(n, "P", minimum=-1) for n in merged["P"]]
    if 0 in counts:
        raise OptionError(f"encoder_params: P={counts} holds 0; give 1 or more, or -1 for all.")
    if max(found["K"]) > _MOST_NEIGHBOURS:
        raise OptionError(
            f"encoder_params: K={found['K']}: the transform of K neighbours has 2 K^4 weights; "
            f"give {_MOST_NEIGHBOURS} or fewer."
        )
    return {**found, "P": counts, "m": as_int(merged["m"], "m", minimum=1)}


def _dropout(value: Any) -> float:
    share = as_float(value, "dropout", minimum=0.0, maximum=1.0)
    if share == 1.0:
        raise OptionError("dropout=1 would leave no feature; it lies from 0 to below 1.")
    return share
