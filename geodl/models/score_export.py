"""Classifiers of pixels and of whole images in formats that run without geodl."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor, nn

from geodl.bundle.export import to_onnx, to_torchscript
from geodl.models.onnx_description import described
from geodl.nets.exported import INPUT
from geodl.train.device import net_device

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


class ExportsScores:
    """What ``save(framework=...)`` adds to the package of a classifier.

    ``torchscript`` writes ``<name>.torchscript.pt``, ``ONNX`` writes ``<name>.onnx``: float32
    ``pixels`` (1, C, H, W), the raw values of one tile of the training size, to ``scores``: of a
    pixel classifier (1, K + 1, H, W), background first, of a classifier of images (1, K). The ONNX
    file says in its metadata what it is, in geodl's words and in those of the QGIS plugin
    Deepness; the inferencing tools take it as a model.
    """

    frameworks: ClassVar[tuple[str, ...]] = ("PyTorch", "torchscript", "ONNX", "TF-ONNX", "TF-ONXX")

    def exported(self, framework: str) -> dict[str, bytes]:
        """Content by the file's suffix.

        Raises
        ------
        OutputError
            The network cannot be traced.
        MissingPackageError
            onnx is not installed.
        """
        if framework == "PyTorch":
            return {}
        model = cast("TorchModel", self)
        contract, device = model.contract, net_device(model.net)
        scale, offset = map(torch.from_numpy, contract.normalization.scale_offset())
        module = ExportedScores(model.net, model.task, scale, offset).eval()
        generator = torch.Generator().manual_seed(0)
        shape = (1, len(contract.extract_bands), contract.tile_px, contract.tile_px)
        pixels = (torch.randn(shape, generator=generator) - offset) / scale
        try:
            module.cpu()
            if framework == "torchscript":
                return {".torchscript.pt": to_torchscript(module, pixels)}
            return {
                ".onnx": described(to_onnx(module, pixels, INPUT, [SCORES]), model, _facts(model))
            }
        finally:
            model.net.to(device)


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
