"""UnetClassifier: a class for every pixel, by a U-Net."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from torch import nn

from geodl.core.classes import ClassTable
from geodl.models.model import check_backend
from geodl.models.pixel_classifier import PixelClassifier
from geodl.models.pixel_options import task_options
from geodl.nets.backbones import check_backbone
from geodl.nets.unet import make_unet
from geodl.tasks.base import Task
from geodl.tasks.pixels import PixelTask

_DEFAULT_BACKBONE = "resnet34"


class UnetClassifier(PixelClassifier):
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
        self._setup_classifier(
            data, backbone or _DEFAULT_BACKBONE, pretrained_path, kwargs, switches={}, own={}
        )

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
