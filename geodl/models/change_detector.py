"""ChangeDetector: where two images of the same ground differ."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, cast

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from geodl.base.options import as_bool, check_choice, check_known
from geodl.bundle.read import Bundle
from geodl.core.classes import ClassTable
from geodl.models.base import TorchModel
from geodl.models.change_pairs import PairPrediction, as_stack, classify_pair
from geodl.models.score_export import ExportsScores
from geodl.nets.backbones import backbone_names, check_backbone
from geodl.nets.encoder import make_encoder
from geodl.nets.stanet import STANet
from geodl.tasks.base import Task
from geodl.tasks.change import ChangeTask
from geodl.tasks.pixel_metrics import precision_recall_f1

_DEFAULT_BACKBONE = "resnet18"


class ChangeDetector(ExportsScores, TorchModel):
    """Change between two images with spatial-temporal attention (STANet, Chen and Shi 2020,
    10.3390/rs12101662).

    Parameters
    ----------
    data
        From ``prepare_data``, of the type ChangeDetection.
    backbone
        Encoder, one of ``supported_backbones``; None is resnet18.
    attention_type
        ``"PAM"``: within regions of several sizes; ``"BAM"``: over the whole image.
    pretrained_path
        A saved model to start from.
    **kwargs
        None are known; others are refused.

    Raises
    ------
    NotSupportedError
        A backbone that does not exist.
    OptionError, UnknownOptionError
        Another attention, or a keyword.
    ModelDataError
        Data of another kind, or images with different numbers of bands.
    """

    kind: ClassVar[Literal["pixels"]] = "pixels"
    dataset_types = ("ChangeDetection",)
    images: ClassVar[int] = 2
    raster_arguments: ClassVar[Mapping[str, Any]] = {"threshold": 0.5}

    def __init__(
        self,
        data: Any,
        backbone: str | None = None,
        attention_type: str = "PAM",
        pretrained_path: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> None:
        name = type(self).__name__
        check_known(kwargs, (), name, of=type(self))
        parameters = {
            "backbone": check_backbone(backbone or _DEFAULT_BACKBONE),
            "attention_type": attention_type,
        }
        self._setup(as_stack(data, name), parameters, pretrained_path)

    def _restore(self, bundle: Bundle, data: Any) -> None:
        super()._restore(bundle, None if data is None else as_stack(data, type(self).__name__))

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
        attention = check_choice(
            parameters.get("attention_type", "PAM"), ("PAM", "BAM"), "attention_type"
        )
        name = check_backbone(str(parameters.get("backbone", _DEFAULT_BACKBONE)))
        encoder, loaded = make_encoder(name, bands // cls.images, pretrained)
        return STANet(encoder, pyramid=attention == "PAM"), ChangeTask(classes), loaded

    @classmethod
    def emd_keys(cls, parameters: Mapping[str, Any]) -> dict[str, Any]:
        return {"DataAttributes": {"dataset_type": cls.dataset_types[0], "images": cls.images}}

    def precision_recall_score(self) -> dict[str, float]:
        """``precision``, ``recall`` and ``f1`` of change on the validation set."""
        meter = self._change_task.new_meter()
        self._score(meter=meter)
        scores = (float(values[1]) for values in precision_recall_f1(meter.counts()))
        return dict(zip(("precision", "recall", "f1"), scores, strict=True))

    @property
    def _change_task(self) -> ChangeTask:
        return cast("ChangeTask", self.task)

    def score_for_package(self) -> dict[str, Any]:
        return self.precision_recall_score()

    def predict(
        self,
        before_image: str | os.PathLike[str],
        after_image: str | os.PathLike[str],
        **kwargs: Any,
    ) -> Tensor:
        """The change mask of two images with the same pixels.

        Parameters
        ----------
        before_image, after_image
            What :func:`geodl.open_raster` takes. Images on different grids are for
            ``detect_change_using_deep_learning``, which brings them onto one.
        **kwargs
            ``crop_predict`` (False): run windows of the training size over the images instead of
            all at once; ``visualize`` (False): draw images and mask; ``save`` (False): write
            the mask as ``<name of before_image>_change.tif`` to the working folder.

        Returns
        -------
        uint8 (H, W): 1 change, 0 none, 255 where one of the images has no data.

        Raises
        ------
        ModelDataError
            Sizes that differ, or other bands than in training.
        UnknownOptionError
            Another keyword.
        """
        check_known(kwargs, ("crop_predict", "visualize", "save"), "predict()", of=self.predict)
        crop = as_bool(kwargs.get("crop_predict", False), "crop_predict")
        found: PairPrediction = classify_pair(
            self.net, self._change_task, self.contract, before_image, after_image, crop=crop
        )
        if as_bool(kwargs.get("save", False), "save"):
            found.save()
        if as_bool(kwargs.get("visualize", False), "visualize"):
            found.show()
        return torch.from_numpy(found.mask)

    def show_results(self, rows: int = 4, **kwargs: Any) -> Figure:
        """Truth and prediction over the earlier image, for ``rows`` validation chips."""
        return super().show_results(rows, **kwargs)

    @property
    def supported_backbones(self) -> list[str]:
        """Names of usable backbones."""
        return backbone_names(("ResNet",))
