"""YOLOv3: boxes from priors on three grids, in one pass."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.cluster.vq import kmeans2
from torch import nn

from geodl.base.errors import DataWarning, ModelDataError
from geodl.base.options import check_known
from geodl.bundle.read import read_bundle
from geodl.core.classes import ClassTable
from geodl.core.contract import ModelContract, Normalization
from geodl.models.contracts import check_data_fits
from geodl.models.detector import DetectorModel
from geodl.models.object_sizes import box_sizes
from geodl.nets.anchors import positive_numbers
from geodl.nets.backbones import STRIDES, check_backbone, make_backbone
from geodl.nets.yolo import PER_CELL, YoloNet
from geodl.tasks.base import Task
from geodl.tasks.objects import ObjectTask

DARKNET = "timm:darknet53"
# 2.3 of the paper, in pixels of an image of 416.
PRIORS = (
    (10, 13), (16, 30), (33, 23), (30, 61), (62, 45), (59, 119), (116, 90), (156, 198), (373, 326),
)  # fmt: skip
PRIORS_PX = 416
# Sides, in pixels, up to which an object belongs to the finest and to the middle grid.
_LIMITS_PX = (36.0, 88.0)
# The classes of a model that is made without data: those of COCO, in its order.
COCO_NAMES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
    "traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog",
    "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella",
    "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite",
    "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange",
    "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant",
    "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone",
    "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors",
    "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip


class YOLOv3(DetectorModel):
    """One-pass detector on three grids (Redmon and Farhadi 2018, 1804.02767).

    Parameters
    ----------
    data
        From ``prepare_data``, with a ``chip_size`` that is a multiple of 32. None opens the model
        of ``pretrained_path``; without that, an untrained network for the classes of COCO, to
        which :meth:`load` may give weights.
    pretrained_path
        A saved model to start from.
    **kwargs
        ``backbone``: another one than Darknet-53, by its name in timm; experimental.

    Raises
    ------
    NotSupportedError
        A backbone that does not exist.
    UnknownOptionError
        An unknown keyword.
    ModelDataError
        Data of another kind, or chips of another size.
    """

    def __init__(
        self,
        data: Any = None,
        pretrained_path: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> None:
        name = type(self).__name__
        check_known(kwargs, ("backbone",), name, of=type(self))
        backbone = check_backbone(kwargs.get("backbone") or DARKNET)
        if data is None:
            self._without_data(backbone, pretrained_path)
            return
        check_data_fits(data, name, self.kind, self.dataset_types)
        if data.chip_size % STRIDES[-1]:
            nearest = max(1, round(data.chip_size / STRIDES[-1])) * STRIDES[-1]
            raise ModelDataError(
                f"{name} takes chips whose side is a multiple of {STRIDES[-1]} px; the data gives "
                f"{data.chip_size}. Give chip_size={nearest} to prepare_data()."
            )
        priors = fitting_priors(box_sizes(data), data.chip_size, data.seed)
        self._setup(
            data,
            {"backbone": backbone, "anchors": priors, "n_bands": len(data.extract_bands)},
            pretrained_path,
        )

    def _without_data(self, backbone: str, path: str | os.PathLike[str] | None) -> None:
        if path is not None:
            bundle = read_bundle(path, verify=False)
            bundle.require_class(type(self).__name__)
            self._restore(bundle, None)
            return
        warnings.warn(
            "YOLOv3 without data is an untrained network for the 80 classes of COCO. Give data to "
            "train it, or pretrained_path, or call load().",
            DataWarning,
            stacklevel=3,
        )
        self._data = None
        self._contract = ModelContract(
            model_name=type(self).__name__,
            kind=self.kind,
            classes=ClassTable.from_mapping(dict(enumerate(COCO_NAMES, start=1))),
            extract_bands=(0, 1, 2),
            band_names=(),
            source_bands=3,
            tile_px=PRIORS_PX,
            normalization=Normalization.imagenet(),
            image_space="PIXEL_SPACE",
        )
        self._parameters = {"backbone": backbone, "anchors": _scaled(PRIORS_PX), "n_bands": 3}
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            net, task, _ = self.build(
                classes=self._contract.classes,
                bands=3,
                tile_px=PRIORS_PX,
                parameters=self._parameters,
                pretrained=False,
                batch_size=None,
            )
        self._take(net, task)

    @classmethod
    def emd_keys(cls, parameters: Mapping[str, Any]) -> dict[str, Any]:
        return {"n_bands": parameters["n_bands"]}

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
        backbone, loaded = make_backbone(str(parameters["backbone"]), bands, pretrained)
        priors = [positive_numbers(pair, "anchors") for pair in parameters["anchors"]]
        return YoloNet(backbone, len(classes), priors), ObjectTask(classes), loaded

    @property
    def supported_backbones(self) -> list[str]:
        """Names of usable backbones."""
        return [DARKNET.partition(":")[2]]

    def average_precision_score(
        self,
        detect_thresh: float = 0.1,
        iou_thresh: float = 0.1,
        mean: bool = False,
        show_progress: bool = True,
    ) -> dict[str, float] | float:
        return super().average_precision_score(detect_thresh, iou_thresh, mean, show_progress)

    def predict(
        self,
        image_path: str | os.PathLike[str],
        threshold: float = 0.1,
        nms_overlap: float = 0.1,
        return_scores: bool = True,
        visualize: bool = False,
        resize: bool = False,
        batch_size: int = 1,
    ) -> tuple[list[Any], ...]:
        return super().predict(
            image_path, threshold, nms_overlap, return_scores, visualize, resize, batch_size
        )

    def predict_video(
        self,
        input_video_path: str | os.PathLike[str],
        metadata_file: str | os.PathLike[str],
        threshold: float = 0.1,
        nms_overlap: float = 0.1,
        track: bool = False,
        visualize: bool = False,
        output_file_path: str | os.PathLike[str] | None = None,
        multiplex: bool = False,
        multiplex_file_path: str | os.PathLike[str] | None = None,
        tracker_options: Mapping[str, Any] = {
            "assignment_iou_thrd": 0.3,
            "vanish_frames": 40,
            "detect_frames": 10,
        },
        visual_options: Mapping[str, Any] = {
            "show_scores": True,
            "show_labels": True,
            "thickness": 2,
            "fontface": 0,
            "color": (255, 255, 255),
        },
        resize: bool = False,
    ) -> None:
        super().predict_video(
            input_video_path,
            metadata_file,
            threshold,
            nms_overlap,
            track,
            visualize,
            output_file_path,
            multiplex,
            multiplex_file_path,
            tracker_options,
            visual_options,
            resize,
        )

    def show_results(  # type: ignore[override]  # the documented arguments, by name
        self, rows: int = 5, thresh: float = 0.1, nms_overlap: float = 0.1
    ) -> Figure:
        return super().show_results(rows, thresh, nms_overlap)


def fitting_priors(sizes: np.ndarray, tile_px: int, seed: int = 0) -> list[list[float]]:
    """Nine priors, three of each grid, from the sizes (N, 2) of a data set's objects.

    Each grid's are the centres of clusters (k-means, as in the paper) of the objects of its size;
    a grid with fewer than three of those keeps the paper's, for tiles of this size.
    """
    side = np.sqrt(sizes.prod(axis=1)) if len(sizes) else np.zeros(0)
    level = np.digitize(side, _LIMITS_PX)
    priors = []
    for grid, fallback in enumerate(np.array(_scaled(tile_px)).reshape(-1, PER_CELL, 2)):
        own = np.log(sizes[level == grid])
        chosen = fallback
        if len(np.unique(own, axis=0)) >= PER_CELL:
            centres, _ = kmeans2(own, PER_CELL, minit="++", seed=seed)
            chosen = np.exp(centres)
        order = np.argsort(chosen.prod(axis=1))
        priors += chosen[order].round(2).tolist()
    return priors


def _scaled(tile_px: int) -> list[list[float]]:
    return [[side * tile_px / PRIORS_PX for side in pair] for pair in PRIORS]
