"""MultiTaskRoadExtractor: roads, learned together with their orientation."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from matplotlib.figure import Figure
from torch import nn

from geodl.base.options import check_choice, check_known
from geodl.core.classes import ClassTable
from geodl.models.base import TorchModel
from geodl.models.pixel_options import refuse_more, task_options
from geodl.models.pixel_scores import PixelScores
from geodl.models.score_export import ExportsScores
from geodl.nets.backbones import backbone_names, check_backbone, timm_names
from geodl.nets.encoder import make_encoder
from geodl.nets.roads import HourglassRoads, LinkRoads
from geodl.tasks.base import Task
from geodl.tasks.roads import RoadTask
from geodl.train.optim import WEIGHT_DECAY

_DEFAULT_BACKBONE = "resnet34"
_DEFAULT_MODEL = "hourglass"
_NETWORK = ("backbone", "mtl_model")
_TASK = ("gaussian_thresh", "orient_bin_size", "orient_theta")
# What the definition says of training besides; it builds nothing.
_TOLD: Mapping[str, Any] = {
    "loss": ["cross_entropy", "dice", "orientation_cross_entropy"],
    "opt_func": "AdamW",
    "opt_func_args": {"weight_decay": WEIGHT_DECAY},
    "model_init_kwargs": {},
}


class MultiTaskRoadExtractor(ExportsScores, PixelScores, TorchModel):
    """Road segmentation that also learns orientation (Batra et al. 2019,
    10.1109/CVPR.2019.01063).

    Parameters
    ----------
    data
        From ``prepare_data``.
    backbone
        Encoder of the linknet variant, one of ``supported_backbones``; None is resnet34.
    pretrained_path
        A saved model to start from.
    **kwargs
        ``mtl_model`` (``"hourglass"`` or ``"linknet"``); ``gaussian_thresh`` (0.76): width of
        the lines to learn, 0.76 is the mask's own, less is wider; ``orient_bin_size`` (20):
        degrees of a bin of orientations; ``orient_theta`` (8): width in pixels of the band where
        orientation is learned.

    Raises
    ------
    NotSupportedError
        A backbone that does not exist.
    OptionError, UnknownOptionError
        A keyword outside its domain, or an unknown one.
    ModelDataError
        Data of another kind.
    """

    kind: ClassVar[Literal["pixels"]] = "pixels"
    dataset_types = ("Classified_Tiles",)
    keywords: ClassVar[tuple[str, ...]] = ("mtl_model", *_TASK)
    gives_lines: ClassVar[bool] = True
    raster_arguments: ClassVar[Mapping[str, Any]] = {
        "threshold": 0.5,
        "return_probability_raster": False,
        "merge_policy": "max",
    }

    def __init__(
        self,
        data: Any,
        backbone: str | None = None,
        pretrained_path: str | os.PathLike[str] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        name = type(self).__name__
        refuse_more(args, name)
        check_known(kwargs, ("mtl_model", *_TASK), name, of=type(self))
        parameters = {
            **kwargs,
            "backbone": check_backbone(backbone or _DEFAULT_BACKBONE),
            "mtl_model": kwargs.get("mtl_model", _DEFAULT_MODEL),
        }
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
        told = (*_TOLD, "loss_weights", "learner_params")
        task = RoadTask(classes, **task_options(parameters, (*_NETWORK, *told)))
        model = check_choice(
            parameters.get("mtl_model", _DEFAULT_MODEL), ("linknet", "hourglass"), "mtl_model"
        )
        if model == "hourglass":
            return HourglassRoads(bands, task.outputs, task.bins), task, False
        name = check_backbone(str(parameters.get("backbone", _DEFAULT_BACKBONE)))
        encoder, loaded = make_encoder(name, bands, pretrained)
        return LinkRoads(encoder, task.outputs, task.bins), task, loaded

    @classmethod
    def parameter_keys(cls, parameters: Mapping[str, Any]) -> dict[str, Any]:
        dice = float(RoadTask.option_defaults["dice_loss_fraction"])
        weights = {"loss_weights": [1 - dice, dice, 1.0]}
        return {**_TOLD, **weights, "learner_params": _lines(parameters)}

    @classmethod
    def emd_keys(cls, parameters: Mapping[str, Any]) -> dict[str, Any]:
        # Under the name of the class of its data.
        return {"ChipData": _lines(parameters)}

    def show_results(self, rows: int = 2, **kwargs: Any) -> Figure:
        """Truth and prediction side by side for ``rows`` validation chips."""
        return super().show_results(rows, **kwargs)

    @staticmethod
    def backbones() -> list[str]:
        """Names of usable backbones of the linknet variant; those of timm are experimental."""
        return [*backbone_names(("ResNet",)), *timm_names()]

    @property
    def supported_backbones(self) -> list[str]:
        """Names of usable backbones of the linknet variant."""
        return self.backbones()


def _lines(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """How lines and orientations are made from the mask."""
    return {name: parameters.get(name, RoadTask.option_defaults[name]) for name in _TASK}
