"""Classifiers of pixels and of whole images in formats that run without geodl."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor, nn

from geodl.base.packages import require
from geodl.bundle.export import to_onnx, to_torchscript
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
    file says in its metadata what it is, in the words of the QGIS plugin Deepness.
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
            return {".onnx": _with_metadata(to_onnx(module, pixels, INPUT, [SCORES]), model)}
        finally:
            model.net.to(device)


def _with_metadata(content: bytes, model: TorchModel) -> bytes:
    """The ONNX model with the keys that say what it takes and gives."""
    onnx = require("onnx", "export")
    loaded = onnx.load_from_string(content)
    contract = model.contract
    pixels = contract.kind == "pixels"
    names = [*(["background"] if pixels else []), *contract.classes.names]
    facts: dict[str, Any] = {
        "model_type": "Segmentor" if pixels else "Classifier",
        "class_names": dict(enumerate(names)),
        "tile_size": contract.tile_px,
        "tiles_size": contract.tile_px,
        "bands": [band + 1 for band in contract.extract_bands],
        "standardization_mean": [0.0] * len(contract.extract_bands),
        "standardization_std": [1.0] * len(contract.extract_bands),
        "geodl_class_values": [*([0] if pixels else []), *contract.classes.values],
    }
    if contract.cell_size is not None:
        # In centimetres, as that plugin counts.
        facts["resolution"] = 100 * sum(contract.cell_size) / 2
    for key, value in facts.items():
        entry = loaded.metadata_props.add()
        entry.key, entry.value = key, json.dumps(value)
    return bytes(loaded.SerializeToString())
