"""RetinaNet: boxes in one stage with a focal loss, on torchvision's implementation."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn

from geodl.base.options import check_known
from geodl.core.classes import ClassTable
from geodl.models.coco_weights import COCO_WEIGHTS, build_over, coco_option
from geodl.models.contracts import check_data_fits
from geodl.models.detector import DetectorModel
from geodl.models.model import check_backend
from geodl.models.object_sizes import finest_anchor_px
from geodl.models.resnet_backbones import ResNetBackbones
from geodl.nets.anchors import positive_numbers
from geodl.nets.backbones import check_backbone
from geodl.nets.coco import RETINA_NET
from geodl.nets.regions import RATIOS
from geodl.nets.retina import CELLS_PER_SCALE, RETINA_STRIDES, RetinaPyramidNet
from geodl.tasks.base import Task
from geodl.tasks.objects import ObjectTask

_DEFAULT_BACKBONE = "resnet50"
# Three sides within an octave, as in the paper.
_OCTAVE = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))


class RetinaNet(ResNetBackbones, DetectorModel):
    """Dense detector with a focal loss (Lin et al. 2017, 1708.02002).

    Parameters
    ----------
    data
        From ``prepare_data``.
    scales
        Sides of the anchors of each cell, in four cells: 1 is 32 px on the finest of the five
        levels. None takes three sides within an octave from about that of the small objects on.
    ratios
        Heights of the anchors over their widths; None is 0.5, 1 and 2.
    backbone
        One of ``supported_backbones``; None is resnet50.
    pretrained_path
        A saved model to start from.
    **kwargs
        ``coco_weights`` (False): start from the weights that torchvision's second version of the
        network has learned from COCO; for resnet50, which then starts frozen.

    Raises
    ------
    NotSupportedError
        A backbone that does not exist.
    OptionError, UnknownOptionError
        An argument outside its domain, or an unknown one.
    ModelDataError
        Data of another kind.
    """

    def __init__(
        self,
        data: Any,
        scales: Sequence[float] | None = None,
        ratios: Sequence[float] | None = None,
        backbone: str | None = None,
        pretrained_path: str | os.PathLike[str] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        name = type(self).__name__
        check_backend("pytorch", args, name)
        known = ("scales", "ratios", "backbone", "pretrained_path", COCO_WEIGHTS)
        check_known(kwargs, known, name, of=type(self))
        check_data_fits(data, name, self.kind, self.dataset_types)
        backbone = check_backbone(backbone or _DEFAULT_BACKBONE)
        parameters = {
            "backbone": backbone,
            **coco_option(kwargs, backbone),
            "scales": _fitting_scales(data)
            if scales is None
            else positive_numbers(scales, "scales"),
            "ratios": list(RATIOS) if ratios is None else positive_numbers(ratios, "ratios"),
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
        make = partial(
            RetinaPyramidNet,
            classes=len(classes),
            scales=positive_numbers(parameters["scales"], "scales"),
            ratios=positive_numbers(parameters["ratios"], "ratios"),
            plain=bool(parameters.get(COCO_WEIGHTS, False)),
        )
        net, loaded = build_over(
            make, RETINA_NET, parameters=parameters, bands=bands, pretrained=pretrained
        )
        return net, ObjectTask(classes), loaded

    def average_precision_score(
        self,
        detect_thresh: float = 0.5,
        iou_thresh: float = 0.1,
        mean: bool = False,
        show_progress: bool = True,
    ) -> dict[str, float] | float:
        return super().average_precision_score(detect_thresh, iou_thresh, mean, show_progress)

    def predict(
        self,
        image_path: str | os.PathLike[str],
        threshold: float = 0.5,
        nms_overlap: float = 0.1,
        return_scores: bool = True,
        visualize: bool = False,
        resize: bool = False,
        batch_size: int = 1,
    ) -> tuple[list[Any], ...]:
        return super().predict(
            image_path, threshold, nms_overlap, return_scores, visualize, resize, batch_size
        )


def _fitting_scales(data: Any) -> list[float]:
    """An octave of scales from about that of the small objects on."""
    first = finest_anchor_px(data) / (CELLS_PER_SCALE * RETINA_STRIDES[0])
    return [round(first * step, 4) for step in _OCTAVE]
