"""Models whose answers are known beforehand and cost almost nothing, for tests of the engine.

``TinyPixels`` gives class k where the first band is brightest for it, by one 3 x 3 convolution;
``TinyChange`` compares two images in the same way; ``TinyObjects`` boxes every connected patch of
bright pixels exactly. All are packed and loaded like any other model, so that a test runs the real
path; :func:`register_tiny_models` makes their names known to this process.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from geodl.base.models import MODELS
from geodl.bundle.schema import definition
from geodl.bundle.weights import write_weights
from geodl.bundle.write import package_files, write_package
from geodl.core.classes import ClassTable
from geodl.core.contract import ModelContract, Normalization, TaskKind
from geodl.core.detections import Detections
from geodl.tasks.base import Batch, Meter, Task
from geodl.tasks.instances import Instances
from geodl.tasks.pixels import PixelTask

BRIGHT = 128
"""Raw value from which a pixel of the first band belongs to an object of ``TinyObjects``."""


class TinyPixels:
    """Splits 0..255 of the mean over bands and 3 x 3 pixels into K + 1 equal ranges."""

    @classmethod
    def build(cls, *, classes: ClassTable, bands: int, **_: Any) -> tuple[nn.Module, Task, bool]:
        outputs = len(classes) + 1
        net = nn.Conv2d(bands, outputs, 3, padding=1, padding_mode="replicate")
        with torch.no_grad():
            # Parabolas over the value, written as lines: 2 c x - c^2 is largest for the nearest c.
            centre = (torch.arange(outputs) + 0.5) / outputs
            net.weight[:] = (2 * centre / (9 * bands)).view(-1, 1, 1, 1) * 200
            net.bias[:] = -(centre**2) * 200  # type: ignore[index]
        return net, PixelTask(classes), False


class TinyChange:
    """Change is where the mean over bands and 3 x 3 pixels has grown by a quarter of 0..255."""

    images = 2

    @classmethod
    def build(cls, *, classes: ClassTable, bands: int, **_: Any) -> tuple[nn.Module, Task, bool]:
        net = nn.Conv2d(bands, len(classes) + 1, 3, padding=1, padding_mode="replicate")
        half = bands // 2
        with torch.no_grad():
            net.weight.zero_()
            net.weight[1, :half], net.weight[1, half:] = -200 / (9 * half), 200 / (9 * half)
            net.bias[:] = torch.tensor([0.0, -50.0])  # type: ignore[index]
        return net, PixelTask(classes), False


class _Patches(Task):
    """Connected patches of bright pixels as boxes; nothing to train."""

    kind: ClassVar[TaskKind] = "objects"
    metric_names = ()

    def detect(
        self, net: nn.Module, x: Tensor, *, threshold: float, nms_overlap: float
    ) -> list[Detections]:
        return [self._one(image, threshold) for image in net(x)[:, 0].float().cpu().numpy()]

    def _one(self, image: np.ndarray, threshold: float) -> Detections:
        patches, _ = ndimage.label(image >= BRIGHT / 255)
        found = ndimage.find_objects(patches)
        boxes = [(c.start, r.start, c.stop, r.stop) for r, c in found]
        scores = np.array([image[place].max() for place in found], np.float32)
        # By area, so that an object keeps its class however the image is turned.
        areas = np.array([(r.stop - r.start) * (c.stop - c.start) for r, c in found], np.int64)
        labels = 1 + areas % len(self.classes)
        every = Detections(np.array(boxes, np.float64).reshape(-1, 4), scores, labels)
        return every.take(scores >= threshold)

    def loss(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return {"loss": net(batch["image"]).sum() * 0}

    def validate(self, net: nn.Module, batch: Batch) -> dict[str, Any]:
        return {"loss": torch.zeros(()), "state": None}

    def new_meter(self) -> Meter:
        raise TypeError("TinyObjects are not trained")

    def predict(self, net: nn.Module, x: Tensor, **options: Any) -> list[Detections]:
        return self.detect(net, x, threshold=0.0, nms_overlap=1.0)

    def draw(self, *_: Any) -> None:
        raise TypeError("TinyObjects are not drawn")


class TinyObjects:
    """Boxes of connected patches of the first band from ``BRIGHT`` on; score is the brightest."""

    @classmethod
    def build(cls, *, classes: ClassTable, bands: int, **_: Any) -> tuple[nn.Module, Task, bool]:
        net = nn.Conv2d(bands, bands, 1, groups=bands, bias=False)
        nn.init.ones_(net.weight)
        return net, _Patches(classes), False


class _Outlined(_Patches):
    """The patches with their masks."""

    kind = "instances"

    def instances(
        self, net: nn.Module, x: Tensor, *, threshold: float, nms_overlap: float
    ) -> list[Instances]:
        images = net(x)[:, 0].cpu().numpy()
        return [self._masked(image, threshold) for image in images]

    def _masked(self, image: np.ndarray, threshold: float) -> Instances:
        patches, count = ndimage.label(image >= BRIGHT / 255)
        numbers = np.arange(1, count + 1)
        masks = (patches == numbers[:, None, None]).astype(np.float32)
        found = self._one(image, 0.0)
        return Instances(found, masks).take(found.scores >= threshold)


class TinyInstances:
    """As :class:`TinyObjects`, with a mask of each patch."""

    @classmethod
    def build(cls, *, classes: ClassTable, bands: int, **_: Any) -> tuple[nn.Module, Task, bool]:
        net = TinyObjects.build(classes=classes, bands=bands)[0]
        return net, _Outlined(classes), False


_CLASSES: Mapping[TaskKind, type] = {
    "pixels": TinyPixels,
    "objects": TinyObjects,
    "instances": TinyInstances,
}


def register_tiny_models() -> None:
    """Make the tiny models loadable from packages in this process."""
    for found in (*_CLASSES.values(), TinyChange):
        MODELS.register(found.__name__, f"{__name__}:{found.__name__}")


def tiny_model(
    folder: Path,
    kind: TaskKind,
    *,
    classes: Mapping[int, str] | None = None,
    bands: int = 3,
    tile_px: int = 64,
    dtype: str = "uint8",
    **contract: Any,
) -> Path:
    """Write the package of a tiny model into the folder ``folder``; returns it.

    Parameters
    ----------
    classes
        Value to name; by default two, ``{1: "one", 2: "two"}``.
    **contract
        Further fields of :class:`geodl.core.contract.ModelContract`.
    """
    return _tiny(
        folder, _CLASSES[kind], kind, classes=classes, bands=bands, tile_px=tile_px, dtype=dtype,
        **contract,
    )  # fmt: skip


def tiny_change_model(folder: Path, *, bands: int = 3, tile_px: int = 64, **contract: Any) -> Path:
    """Write the package of a ``TinyChange`` of two images of so many bands; returns the folder."""
    return _tiny(
        folder, TinyChange, "pixels", classes={1: "change"}, bands=2 * bands, tile_px=tile_px,
        **contract,
    )  # fmt: skip


def _tiny(folder: Path, model: type, kind: TaskKind, *, bands: int, **contract: Any) -> Path:
    register_tiny_models()
    contract = {
        "normalization": Normalization(
            minimum=(0.0,) * bands,
            maximum=(255.0,) * bands,
            scaled_mean=(0.0,) * bands,
            scaled_std=(1.0,) * bands,
        ),
        **contract,
    }
    return random_model(folder, model.__name__, kind, {}, bands=bands, **contract)


def random_model(
    folder: Path,
    name: str,
    kind: TaskKind,
    parameters: Mapping[str, Any],
    *,
    classes: Mapping[int, str] | None = None,
    bands: int = 3,
    tile_px: int = 64,
    dtype: str = "uint8",
    seed: int = 0,
    **contract: Any,
) -> Path:
    """Write the package of a model class with random weights into ``folder``; returns it.

    Parameters
    ----------
    name, parameters
        A class of ``geodl.learn`` and what its ``build`` takes.
    **contract
        Further fields of :class:`geodl.core.contract.ModelContract`.
    """
    table = ClassTable.from_mapping(classes or {1: "one", 2: "two"})
    given = ModelContract(
        **{
            "model_name": name,
            "kind": kind,
            "classes": table,
            "extract_bands": tuple(range(bands)),
            "band_names": (),
            "source_bands": bands,
            "tile_px": tile_px,
            "normalization": Normalization.imagenet(),
            "dtype": dtype,
            **contract,
        }
    )
    torch.manual_seed(seed)
    net, _, _ = MODELS[name].build(
        classes=table,
        bands=bands,
        tile_px=tile_px,
        parameters=parameters,
        pretrained=False,
        batch_size=None,
    )
    files = package_files(
        folder.name,
        definition(given, parameters),
        write_weights(net),
        contract=given,
    )
    write_package(folder, files)
    return folder
