"""Classifiers of pixels and of whole images in formats that run without geodl."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from geodl.models.network_export import ExportsNetwork, Traced

if TYPE_CHECKING:
    from geodl.models.base import TorchModel

SCORES = "scores"


class ExportedScores(nn.Module):
    """Raw pixels (B, C, H, W) to class scores.

    Parameters
    ----------
    net
        In eval mode.
    task
        Gives scores of the network's answers.
    scale, offset
        float32 (C, 1, 1): the model's normalisation, ``pixels * scale + offset``.
    """

    def __init__(self, net: nn.Module, task: Any, scale: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.net = net
        self.task = task
        self.scale: Tensor
        self.offset: Tensor
        self.register_buffer("scale", scale)
        self.register_buffer("offset", offset)

    def forward(self, pixels: Tensor) -> Tensor:
        scores: Tensor = self.task.scores(self.net, pixels * self.scale + self.offset)
        return scores


class ExportsScores(ExportsNetwork):
    """What ``save(framework=...)`` adds to the package of a classifier.

    The network takes float32 ``pixels`` (1, C, H, W), the raw values of one tile of the training
    size, to ``scores``: of a pixel classifier (1, K + 1, H, W), background first, of a classifier
    of images (1, K).
    """

    def _traced(self) -> Traced:
        model = cast("TorchModel", self)
        scale, offset = map(torch.from_numpy, model.contract.normalization.scale_offset())
        module = ExportedScores(model.net, model.task, scale, offset)
        return Traced(module, [SCORES], _facts(model))


def _facts(model: TorchModel) -> dict[str, Any]:
    """What the QGIS plugin Deepness reads of a classifier, besides what it reads of all."""
    contract = model.contract
    pixels = contract.kind == "pixels"
    bands = len(contract.extract_bands)
    names = [*(["background"] if pixels else []), *contract.classes.names]
    return {
        "model_type": "Segmentor" if pixels else "Classifier",
        "class_names": dict(enumerate(names)),
        # It divides by 255 first; so the network gets the values as they are.
        "standardization_mean": [0.0] * bands,
        "standardization_std": [1 / 255] * bands,
        "geodl_class_values": [*([0] if pixels else []), *contract.classes.values],
    }
