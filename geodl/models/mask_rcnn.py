"""MaskRCNN: objects with masks, on torchvision's implementation."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from matplotlib.figure import Figure
from torch import nn

from geodl.base.errors import OptionError
from geodl.base.options import as_bool, as_float, as_int, check_known
from geodl.core.classes import ClassTable
from geodl.core.detections import Detections
from geodl.data.figure import show
from geodl.infer.instances import AugmentedInstances
from geodl.models.base import TorchModel
from geodl.models.contracts import check_data_fits
from geodl.models.detector_export import ExportsDetector
from geodl.models.drawing import results_figure
from geodl.models.image_detection import (
    ImageDetector,
    boxes_figure,
    documented_answer,
    trained_size,
)
from geodl.models.model import check_backend
from geodl.models.precision_scores import PrecisionScores
from geodl.models.region_detectors import REGION_KEYWORDS, build_regions, region_parameters
from geodl.models.region_options import REGION_DEFAULTS, region_options
from geodl.models.resnet_backbones import ResNetBackbones
from geodl.nets.backbones import check_backbone
from geodl.nets.coco import MASK_RCNN
from geodl.nets.masks import MaskRegionNet, PointMaskNet
from geodl.tasks.base import Task
from geodl.tasks.instances import InstanceMeter, InstanceTask
from geodl.tasks.objects import as_share

_DEFAULT_BACKBONE = "resnet50"


class MaskRCNN(ResNetBackbones, PrecisionScores, ExportsDetector, TorchModel):
    """Objects with masks, in two stages (He et al. 2017, 1703.06870), with a feature pyramid.

    Parameters
    ----------
    data
        From ``prepare_data``.
    backbone
        One of ``supported_backbones``; None is resnet50.
    pretrained_path
        A saved model to start from.
    pointrend
        Refine the masks at points (Kirillov et al. 2020, 1912.08193).
    **kwargs
        The ``rpn_`` and ``box_`` keywords of :class:`geodl.learn.FasterRCNN`, and its
        ``coco_weights``.

    Raises
    ------
    NotSupportedError
        A backbone that does not exist.
    OptionError, UnknownOptionError
        A keyword outside its domain, or an unknown one.
    ModelDataError
        Data of another kind.
    """

    kind: ClassVar[Literal["instances"]] = "instances"
    dataset_types = ("RCNN_Masks", "COCO_instances")
    keywords: ClassVar[tuple[str, ...]] = tuple(REGION_DEFAULTS)

    _task: InstanceTask

    def __init__(
        self,
        data: Any,
        backbone: str | None = None,
        pretrained_path: str | os.PathLike[str] | None = None,
        pointrend: bool = False,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        name = type(self).__name__
        check_backend("pytorch", args, name)
        check_known(kwargs, REGION_KEYWORDS, name, of=type(self))
        check_data_fits(data, name, self.kind, self.dataset_types)
        backbone = check_backbone(backbone or _DEFAULT_BACKBONE)
        parameters = region_parameters(data, backbone, kwargs)
        parameters["pointrend"] = as_bool(pointrend, "pointrend")
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
        kind = PointMaskNet if parameters.get("pointrend", False) else MaskRegionNet
        net, loaded = build_regions(
            kind, MASK_RCNN, len(classes), bands, parameters=parameters, pretrained=pretrained
        )
        return net, InstanceTask(classes), loaded

    @classmethod
    def emd_keys(cls, parameters: Mapping[str, Any]) -> dict[str, Any]:
        return {"MaskRCNNkwargs": region_options(parameters)}

    @classmethod
    def from_model(  # type: ignore[override]  # documented with keywords that mean nothing
        cls, emd_path: str | os.PathLike[str], data: Any = None, **kwargs: Any
    ) -> Self:
        check_known(kwargs, (), "from_model()", of=cls.from_model)
        return super().from_model(emd_path, data)

    @property
    def task(self) -> InstanceTask:
        """What turns the network's outputs into losses, scores, boxes and masks."""
        return self._task

    def _seeing(self, tta_prediction: bool, **options: Any) -> InstanceTask:
        task = InstanceTask(self.task.classes, **{**self.task.options, **options})
        if not as_bool(tta_prediction, "tta_prediction"):
            return task
        return AugmentedInstances(task, self.contract.image_space)

    def average_precision_score(
        self,
        detect_thresh: float = 0.5,
        iou_thresh: float = 0.5,
        mean: bool = False,
        show_progress: bool = True,
        tta_prediction: bool = False,
    ) -> dict[str, float] | float:
        """Average precision of masks on the validation set, as COCO defines it (101 recalls).

        Parameters
        ----------
        detect_thresh
            Objects with lower scores do not count, 0..1.
        iou_thresh
            Least overlap with a true mask for an object to be right, 0..1.
        mean
            False: a dict by class name; True: the mean over the classes that occur in the truth.
        show_progress
            Show a bar where the error stream is a terminal.
        tta_prediction
            Merge what is found in all symmetries of the square.

        Returns
        -------
        0..1; NaN for a class that the validation set has no object of.

        Raises
        ------
        ModelDataError
            The model was opened without data.
        """
        task = self._seeing(tta_prediction, threshold=as_share(detect_thresh, "detect_thresh"))
        meter = InstanceMeter(len(task.classes), as_share(iou_thresh, "iou_thresh"))
        return self._precision(task, meter, mean, progress=as_bool(show_progress, "show_progress"))

    def predict(
        self,
        image_path: str | os.PathLike[str],
        threshold: float = 0.5,
        nms_overlap: float = 0.1,
        return_scores: bool = True,
        visualize: bool = False,
        resize: bool = False,
        tta_prediction: bool = False,
        **kwargs: Any,
    ) -> tuple[list[Any], ...]:
        """Find objects in an image file.

        Parameters
        ----------
        image_path
            Any image that GDAL reads, with at least the bands the model takes.
        threshold
            Least score, 0..1.
        nms_overlap
            IoU of two masks of a class above which the weaker is dropped, 0..1.
        return_scores
            Also return the scores.
        visualize
            Show the image with its boxes, in a notebook.
        resize
            Scale the whole image to the size the model was trained on; otherwise windows of that
            size slide over it.
        tta_prediction
            Merge what is found in all symmetries of the square.
        **kwargs
            ``batch_size`` (1), windows at once; ``min_obj_size`` (1): least width and height of
            an object in pixels.

        Returns
        -------
        ``(boxes, labels)`` or ``(boxes, labels, scores)``: boxes ``[xmin, ymin, width, height]``
        in pixels of the image (x right, y down), class names, scores of 0..1; best first.

        Raises
        ------
        SourceNotFoundError, FormatError
            No such file, or one that cannot be read.
        ModelDataError
            The image lacks bands that the model takes.
        """
        check_known(kwargs, ("batch_size", "min_obj_size"), "predict()", of=self.predict)
        batch = as_int(kwargs.get("batch_size", 1), "batch_size", minimum=1)
        least = as_float(kwargs.get("min_obj_size", 1), "min_obj_size", minimum=0.0)
        detector = ImageDetector(
            net=self.net.eval(),
            task=self._seeing(tta_prediction),
            contract=self.contract,
            threshold=as_share(threshold, "threshold"),
            nms_overlap=as_share(nms_overlap, "nms_overlap"),
        )
        size = trained_size(self.data, self.contract) if as_bool(resize, "resize") else None
        picture, found = detector.in_file(image_path, size, batch)
        found = _of_size(found, least)
        if as_bool(visualize, "visualize"):
            show(boxes_figure(picture, found, self.task, self.contract))
        scored = as_bool(return_scores, "return_scores")
        return documented_answer(found, self.contract, scored)

    def show_results(  # type: ignore[override]  # the documented arguments, by name
        self,
        rows: int = 4,
        mode: str = "mask",
        mask_threshold: float = 0.5,
        box_threshold: float = 0.7,
        tta_prediction: bool = False,
        imsize: float = 5,
        index: int = 0,
        alpha: float = 0.5,
        cmap: str = "tab20",
        **kwargs: Any,
    ) -> Figure:
        """Truth on the left and objects on the right, for some validation chips.

        Parameters
        ----------
        rows
            How many chips.
        mode
            ``"mask"``, ``"bbox"`` or ``"bbox_mask"``.
        mask_threshold
            Share from which a pixel belongs to an object, 0..1.
        box_threshold
            Least score of the objects drawn, 0..1.
        tta_prediction
            Merge what is found in all symmetries of the square.
        imsize
            Side of a picture in inches.
        index
            The first chip of the validation set to draw.
        alpha
            How much the masks cover, 0..1.
        cmap
            matplotlib colour map of the masks.
        **kwargs
            ``nms_overlap`` (0.1).
        """
        check_known(kwargs, ("nms_overlap",), "show_results()", of=self.show_results)
        data = self._need_data("show_results()")
        size = as_float(imsize, "imsize", minimum=0.1)
        first = as_int(index, "index", minimum=0)
        if first >= len(data.valid_ds):
            raise OptionError(
                f"index={first}: the validation set has {len(data.valid_ds)} chips, 0 to "
                f"{len(data.valid_ds) - 1}."
            )
        options = {
            "mode": mode,
            "mask_threshold": mask_threshold,
            "box_threshold": box_threshold,
            "alpha": alpha,
            "cmap": cmap,
            **kwargs,
        }
        count = as_int(rows, "rows", minimum=1)
        task = self._seeing(tta_prediction)
        return show(
            results_figure(
                self.net, task, data, self.contract, count, options, first=first, side_in=size
            )
        )


def _of_size(found: Detections, least_px: float) -> Detections:
    """Those at least so wide and high."""
    return found.take(((found.boxes[:, 2:] - found.boxes[:, :2]) >= least_px).all(axis=1))
