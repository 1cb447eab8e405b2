"""FeatureClassifier: one class, or several, for the chip around each feature."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from geodl.base.errors import OptionError
from geodl.base.options import as_bool, as_float, as_int, check_known
from geodl.bundle.read import Bundle
from geodl.core.blocks import RasterBlock
from geodl.core.classes import ClassTable
from geodl.data.draw import to_picture
from geodl.data.figure import ShownFigure, new_figure, show
from geodl.data.tiles import chip_cut, oversampled
from geodl.models.base import TorchModel
from geodl.models.feature_layers import FeatureLayers
from geodl.models.image_detection import read_picture
from geodl.models.label_pictures import confusion_figure, hard_examples_figure
from geodl.models.model import check_backend
from geodl.models.score_export import ExportsScores
from geodl.nets.backbones import backbone_names, timm_names
from geodl.nets.resize import resized_chip
from geodl.nets.tile_net import (
    TileNet,
    activation_maps,
    check_tile_backbone,
    image_transformers,
    make_tile_net,
)
from geodl.tasks.base import Task
from geodl.tasks.labels import THRESHOLD, LabelMeter, LabelTask, label_counts
from geodl.train.device import net_device

_PICTURE_IN = 5.0
_SEVERAL = "MultiLabeled_Tiles"


class FeatureClassifier(ExportsScores, FeatureLayers, TorchModel):
    """Classifier of chips around features, of one class each or of several.

    Chips of ``MultiLabeled_Tiles`` have any number of classes, those of other formats one.

    Parameters
    ----------
    data
        From ``prepare_data``.
    backbone
        One of ``supported_backbones``, or any other model of timm.
    pretrained_path
        A saved model to start from.
    mixup
        Mix pairs of images in training (Zhang et al. 2018, 1710.09412).
    oversample
        Repeat chips of rare classes in training until all classes have as many; for chips of one
        class each.
    backend
        ``"pytorch"``.

    Raises
    ------
    NotSupportedError
        Another backend, or a backbone that does not exist.
    OptionError, UnknownOptionError
        An argument outside its domain, or an unknown one.
    ModelDataError
        Data of another kind.
    """

    kind: ClassVar[Literal["tiles"]] = "tiles"
    dataset_types = ("Labeled_Tiles", "MultiLabeled_Tiles", "Imagenet")
    variable_tile = False

    _task: LabelTask
    _net: TileNet

    def __init__(
        self,
        data: Any,
        backbone: str = "resnet34",
        pretrained_path: str | os.PathLike[str] | None = None,
        mixup: bool = False,
        oversample: bool = False,
        backend: str = "pytorch",
        *args: Any,
        **kwargs: Any,
    ) -> None:
        name = type(self).__name__
        check_backend(backend, args, name)
        check_known(kwargs, (), name, of=type(self))
        parameters = {
            "backbone": check_tile_backbone(backbone or "resnet34"),
            "mixup": as_bool(mixup, "mixup"),
            "oversample": as_bool(oversample, "oversample"),
            "multilabel": getattr(data, "dataset_type", "") == _SEVERAL,
        }
        if parameters["oversample"] and parameters["multilabel"]:
            raise OptionError(
                "oversample=True is for chips of one class; these have any number. Leave it out."
            )
        self._setup(data, parameters, pretrained_path)
        # Chips are cut from the raster as it is, and resized then.
        self._contract = dataclasses.replace(
            self._contract, pixel_scale=1.0, chip=chip_cut(self._data)
        )
        self._balance()

    def _restore(self, bundle: Bundle, data: Any) -> None:
        super()._restore(bundle, data)
        self._balance()

    def _balance(self) -> None:
        if self._data is not None and self._parameters.get("oversample"):
            self._data = oversampled(self._data)

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
        check_known(parameters, ("backbone", "mixup", "oversample", "multilabel"), cls.__name__)
        options = {key: parameters[key] for key in ("multilabel", "mixup") if key in parameters}
        task = LabelTask(classes, **options)
        name = check_tile_backbone(str(parameters["backbone"]))
        net, loaded = make_tile_net(name, bands, task.outputs, tile_px, pretrained)
        return net, task, loaded

    @classmethod
    def emd_keys(cls, parameters: Mapping[str, Any]) -> dict[str, Any]:
        several = bool(parameters.get("multilabel"))
        return {"MetaDataMode": _SEVERAL if several else "Labeled_Tiles", "ExpMap": True}

    @staticmethod
    def backbones() -> list[str]:
        """Names of usable backbones; those of timm are experimental, and all of it may be named."""
        return [*backbone_names(), *timm_names()]

    @staticmethod
    def transformer_backbones() -> list[str]:
        """Names of usable transformer backbones; experimental."""
        return list(image_transformers())

    @property
    def supported_backbones(self) -> list[str]:
        """Names of usable backbones."""
        return [*self.backbones(), *self.transformer_backbones()]

    @property
    def task(self) -> LabelTask:
        """What turns the network's outputs into losses, scores and labels."""
        return self._task

    # ---- scores

    def score_for_package(self) -> dict[str, Any]:
        found = self._score().meter.compute()
        return {"accuracy": f"{found['accuracy']:.4e}", "score": found["f1"]}

    def plot_confusion_matrix(self, **kwargs: Any) -> Figure:
        """Truth against prediction on the validation set.

        Parameters
        ----------
        **kwargs
            ``thresh`` (0.5): least score of a class where chips have several; each class has a
            matrix of its own then.

        Raises
        ------
        ModelDataError
            The model was opened without data.
        """
        check_known(kwargs, ("thresh",), "plot_confusion_matrix()", of=self.plot_confusion_matrix)
        limit = as_float(kwargs.get("thresh", THRESHOLD), "thresh", minimum=0, maximum=1)
        meter = self._counts(limit)
        counts = meter.binary() if self.task.multilabel else meter.matrix()
        return show(confusion_figure(counts, self.contract.classes.names))

    def _counts(self, threshold: float) -> LabelMeter:
        data, task = self._need_data("plot_confusion_matrix()"), self.task
        meter = task.new_meter()
        for batch, scores in self._validation(data):
            state = label_counts(task.chosen(scores, threshold), task.truth(batch))
            meter.update({"state": state}, batch)
        return meter

    def _validation(self, data: Any) -> Any:
        """(batch, float32 (B, K) scores), on the CPU, of the validation set."""
        device = net_device(self.net)
        self.net.eval()
        for batch in data.valid_loader(self.task.collate):
            with torch.inference_mode():
                yield batch, self.task.scores(self.net, batch["image"].to(device)).cpu()

    def plot_hard_examples(self, num_examples: int) -> Figure:
        """The validation chips with the largest losses, with maps of what spoke for the answer.

        Parameters
        ----------
        num_examples
            How many.

        Raises
        ------
        ModelDataError
            The model was opened without data.
        """
        count = as_int(num_examples, "num_examples", minimum=1)
        data = self._need_data("plot_hard_examples()")
        return show(hard_examples_figure(self._net, self.task, data, self.contract, count))

    # ---- one image

    def predict(
        self, img_path: str | os.PathLike[str], visualize: bool = False, gradcam: bool = False
    ) -> tuple[Any, Any]:
        """Classify an image file.

        Parameters
        ----------
        img_path
            Any image that GDAL reads, with at least the bands the model takes.
        visualize
            Show the image with its label, in a notebook.
        gradcam
            With ``visualize``: also show what in the image spoke for the label.

        Returns
        -------
        The class name and its score, 0..1; lists of them, best first and possibly empty, where
        chips have several classes.

        Raises
        ------
        OptionError
            ``gradcam`` without ``visualize``.
        SourceNotFoundError, FormatError
            No such file, or one that cannot be read.
        ModelDataError
            The image lacks bands that the model takes.
        """
        drawn, heat = as_bool(visualize, "visualize"), as_bool(gradcam, "gradcam")
        if heat and not drawn:
            raise OptionError("gradcam=True is drawn, so it needs visualize=True too.")
        block = read_picture(img_path, self.contract)
        x = self.prepared(block)
        scores = self.scores_of(x)[0]
        places = self.task.decode(scores)
        if drawn:
            show(self._drawn(block, x, places, scores, heat))
        names = [self.contract.classes.names[place] for place in places]
        found = [float(scores[place]) for place in places]
        return (names, found) if self.task.multilabel else (names[0], found[0])

    def prepared(self, block: RasterBlock) -> Tensor:
        """float32 (1, C, T, T), normalised: an image as the network takes it."""
        size = (self.contract.tile_px, self.contract.tile_px)
        data, valid = block.data, None if block.mask.all() else block.mask
        if data.shape[1:] != size:
            data, valid = resized_chip(data, valid, size)
        return torch.from_numpy(self.contract.normalization.apply(data, valid))[None]

    def scores_of(self, x: Tensor) -> np.ndarray:
        """float32 (B, K) of a prepared batch."""
        self.net.eval()
        with torch.inference_mode():
            found = self.task.scores(self.net, x.to(net_device(self.net)))
        return found.cpu().numpy()

    def _drawn(
        self, block: RasterBlock, x: Tensor, places: list[int], scores: np.ndarray, heat: bool
    ) -> ShownFigure:
        names = self.contract.band_names
        shown = [names[band] for band in self.contract.extract_bands] if names else []
        picture = to_picture(block.data, block.mask, str(block.data.dtype), shown)
        figure = new_figure(_PICTURE_IN * (1 + heat), _PICTURE_IN)
        axes = figure.subplots(1, 1 + heat, squeeze=False)[0]
        known = self.contract.classes.names
        text = ", ".join(f"{known[place]} {scores[place]:.0%}" for place in places)
        axes[0].set_title(text or "no class")
        for one in axes:
            one.set_axis_off()
            one.imshow(picture)
        if heat:
            output = torch.tensor([places[0] if places else int(scores.argmax())])
            device = net_device(self.net)
            found = activation_maps(self._net, x.to(device), output.to(device))[0]
            extent = (-0.5, picture.shape[1] - 0.5, picture.shape[0] - 0.5, -0.5)
            axes[1].imshow(
                found.cpu().numpy(), cmap="magma", alpha=0.5, extent=extent, vmin=0, vmax=1
            )
            axes[1].set_title(f"what speaks for {known[int(output)]}")
        return figure
