"""UnetClassifier: a class for every pixel, by a U-Net."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from torch import nn

from geodl.core.classes import ClassTable
from geodl.models.base import TorchModel
from geodl.models.model import check_backend
from geodl.models.pixel_options import ignored_classes, loss_parameters, task_options
from geodl.models.pixel_scores import PixelScores
from geodl.nets.backbones import backbone_names, check_backbone, timm_names
from geodl.nets.unet import make_unet
from geodl.tasks.base import Task
from geodl.tasks.pixels import PixelTask

_DEFAULT_BACKBONE = "resnet34"


class UnetClassifier(PixelScores, TorchModel):
    """U-Net pixel classifier with a pretrained encoder.

    Parameters
    ----------
    data
        From ``prepare_data``.
    backbone
        Encoder, one of ``supported_backbones``; None is resnet34.
    pretrained_path
        A saved model to start from.
    backend
        ``"pytorch"``.
    **kwargs
        ``class_balancing`` (False), ``mixup`` (False), ``focal_loss`` (False),
        ``dice_loss_fraction`` (0), ``dice_loss_average`` (``"micro"`` or ``"macro"``),
        ``ignore_classes`` (class values that add no loss and are never predicted).

    Raises
    ------
    NotSupportedError
        Another backend, or a backbone that does not exist.
    OptionError, UnknownOptionError
        A keyword outside its domain, or an unknown one.
    ModelDataError
        Data of another kind.
    """

    kind: ClassVar[Literal["pixels"]] = "pixels"
    dataset_types = ("Classified_Tiles",)

    def __init__(
        self,
        data: Any,
        backbone: str | None = None,
        pretrained_path: str | os.PathLike[str] | None = None,
        backend: str = "pytorch",
        *args: Any,
        **kwargs: Any,
    ) -> None:
        check_backend(backend, args, type(self).__name__)
        parameters = loss_parameters(type(self).__name__, data, kwargs)
        parameters["backbone"] = check_backbone(backbone or _DEFAULT_BACKBONE)
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
        task = PixelTask(classes, **task_options(parameters, ("backbone",)))
        name = check_backbone(str(parameters.get("backbone", _DEFAULT_BACKBONE)))
        net, loaded = make_unet(name, bands, task.outputs, pretrained)
        return net, task, loaded

    @classmethod
    def emd_keys(cls, parameters: Mapping[str, Any]) -> dict[str, Any]:
        return ignored_classes(parameters)

    @staticmethod
    def backbones() -> list[str]:
        """Names of usable backbones; those of timm are experimental."""
        return [*backbone_names(("ResNet", "DenseNet", "VGG")), *timm_names()]

    @property
    def supported_backbones(self) -> list[str]:
        """Names of usable backbones."""
        return self.backbones()
