"""FasterRCNN: boxes in two stages, on torchvision's implementation."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from geodl.base.options import check_known
from geodl.core.classes import ClassTable
from geodl.models.contracts import check_data_fits
from geodl.models.detector import DetectorModel
from geodl.models.region_detectors import REGION_KEYWORDS, build_regions, region_parameters
from geodl.models.region_options import REGION_DEFAULTS, region_options
from geodl.models.resnet_backbones import ResNetBackbones
from geodl.nets.backbones import check_backbone
from geodl.nets.coco import FASTER_RCNN
from geodl.nets.regions import RegionNet
from geodl.tasks.base import Task
from geodl.tasks.objects import ObjectTask


class FasterRCNN(ResNetBackbones, DetectorModel):
    """Two-stage detector (Ren et al. 2015, 1506.01497) with a feature pyramid (1612.03144).

    The smallest anchors are as large as small objects of the data; they grow by octaves.

    Parameters
    ----------
    data
        From ``prepare_data``.
    backbone
        One of ``supported_backbones``.
    pretrained_path
        A saved model to start from.
    **kwargs
        Of the regions: ``rpn_pre_nms_top_n_train`` (2000), ``rpn_pre_nms_top_n_test`` (1000),
        ``rpn_post_nms_top_n_train`` (2000), ``rpn_post_nms_top_n_test`` (1000): how many are kept
        before and after suppression; ``rpn_nms_thresh`` (0.7); ``rpn_fg_iou_thresh`` (0.7) and
        ``rpn_bg_iou_thresh`` (0.3): IoU from which an anchor is object, below which background;
        ``rpn_batch_size_per_image`` (256) anchors in the loss, ``rpn_positive_fraction`` (0.5) of
        them objects. Of the boxes: ``box_score_thresh`` (0.05) least score, ``box_nms_thresh``
        (0.5), ``box_detections_per_img`` (100) at most, ``box_fg_iou_thresh`` (0.5),
        ``box_bg_iou_thresh`` (0.5), ``box_batch_size_per_image`` (512),
        ``box_positive_fraction`` (0.25).
        ``coco_weights`` (False): start from the weights that torchvision's second version of the
        network has learned from COCO, with deeper heads; for resnet50, which then starts frozen.

    Raises
    ------
    NotSupportedError
        A backbone that does not exist.
    OptionError, UnknownOptionError
        A keyword outside its domain, or an unknown one.
    ModelDataError
        Data of another kind.
    """

    keywords: ClassVar[tuple[str, ...]] = tuple(REGION_DEFAULTS)

    def __init__(
        self,
        data: Any,
        backbone: str = "resnet50",
        pretrained_path: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> None:
        name = type(self).__name__
        check_known(kwargs, REGION_KEYWORDS, name, of=type(self))
        check_data_fits(data, name, self.kind, self.dataset_types)
        backbone = check_backbone(backbone or "resnet50")
        self._setup(data, region_parameters(data, backbone, kwargs), pretrained_path)

    @classmethod
    def emd_keys(cls, parameters: Mapping[str, Any]) -> dict[str, Any]:
        return {"Kwargs": region_options(parameters)}

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
        net, loaded = build_regions(
            RegionNet,
            FASTER_RCNN,
            len(classes),
            bands,
            parameters=parameters,
            pretrained=pretrained,
        )
        return net, ObjectTask(classes), loaded
