"""DeepLab: a class for every pixel, by atrous spatial pyramid pooling."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from geodl.core.classes import ClassTable
from geodl.models.pixel_classifier import PixelClassifier
from geodl.models.pixel_options import PIXEL_KEYWORDS, refuse_more, task_options
from geodl.nets.backbones import check_backbone, transformer_names
from geodl.nets.encoder import STRIDE, encoder_channels, make_encoder
from geodl.nets.segmenter import DeepLabHead, Segmenter
from geodl.tasks.base import Task
from geodl.tasks.pixels import PixelTask

_DEFAULT_BACKBONE = "resnet101"
_DILATED_STRIDE = 8
_NETWORK = ("backbone", "pointrend", "keep_dilation")


class DeepLab(PixelClassifier):
    """DeepLab v3 pixel classifier (Chen et al. 2017, 1706.05587).

    Parameters
    ----------
    data
        From ``prepare_data``.
    backbone
        Encoder, one of ``supported_backbones``; None is resnet101.
    pretrained_path
        A saved model to start from.
    pointrend
        Refine borders at points (1912.08193).
    **kwargs
        ``class_balancing`` (False), ``mixup`` (False), ``focal_loss`` (False),
        ``dice_loss_fraction`` (0), ``dice_loss_average`` (``"micro"`` or ``"macro"``),
        ``ignore_classes`` (class values that add no loss and are never predicted),
        ``keep_dilation`` (False; with ``pointrend``: keep the encoder dilated, for more accuracy
        and memory).

    Raises
    ------
    NotSupportedError
        A backbone that does not exist.
    OptionError, UnknownOptionError
        A keyword outside its domain, or an unknown one.
    ModelDataError
        Data of another kind.
    """

    keywords: ClassVar[tuple[str, ...]] = (*PIXEL_KEYWORDS, "keep_dilation")

    def __init__(
        self,
        data: Any,
        backbone: str | None = None,
        pretrained_path: str | os.PathLike[str] | None = None,
        pointrend: bool = False,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        refuse_more(args, type(self).__name__)
        self._setup_classifier(
            data,
            backbone or _DEFAULT_BACKBONE,
            pretrained_path,
            kwargs,
            switches={"pointrend": pointrend},
            own={"keep_dilation": False},
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
        task = PixelTask(classes, **task_options(parameters, _NETWORK))
        pointrend = bool(parameters.get("pointrend", False))
        dilated = not pointrend or parameters.get("keep_dilation", False)
        encoder, loaded = make_encoder(
            check_backbone(str(parameters.get("backbone", _DEFAULT_BACKBONE))),
            bands,
            pretrained,
            _DILATED_STRIDE if dilated else STRIDE,
        )
        head = DeepLabHead(encoder_channels(encoder), task.outputs)
        return Segmenter(encoder, head, task.outputs, pointrend=pointrend), task, loaded

    @staticmethod
    def transformer_backbones() -> list[str]:
        """Names of usable transformer backbones; experimental."""
        return list(transformer_names())
