"""Detectors in formats that run without geodl."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

import torch

from geodl.bundle.export import to_onnx, to_torchscript
from geodl.models.onnx_description import described
from geodl.nets.exported import INPUT, ExportedDetector
from geodl.train.device import net_device

if TYPE_CHECKING:
    from geodl.models.base import TorchModel


class ExportsDetector:
    """What ``save(framework=...)`` adds to the package of a detector.

    ``torchscript`` writes ``<name>.torchscript.pt``, ``ONNX`` writes ``<name>.onnx``: float32
    ``pixels`` (1, C, H, W), the raw values of one tile of the training size, to ``boxes`` float32
    (N, 4) x0, y0, x1, y1, ``scores``, ``labels`` 1..K and, of instances, ``masks`` (N, H, W); from
    score 0.05 on, two of a class overlapping by an IoU of 0.5 at most. The ONNX file says in its
    metadata what it is; the inferencing tools take it as a model, and find no more than that.
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
        module = ExportedDetector(
            model.net, *contract.normalization.scale_offset(), masks=contract.kind == "instances"
        ).eval()
        # Noise, so that something is found and every branch is seen.
        generator = torch.Generator().manual_seed(0)
        shape = (1, len(contract.extract_bands), contract.tile_px, contract.tile_px)
        noise = torch.randn(shape, generator=generator).numpy()[0]
        pixels = torch.from_numpy(contract.normalization.invert(noise))[None]
        try:
            module.cpu()
            if framework == "torchscript":
                return {".torchscript.pt": to_torchscript(module, pixels)}
            facts = {
                "model_type": "Detector",
                "class_names": dict(enumerate(contract.classes.names)),
            }
            content = to_onnx(module, pixels, INPUT, module.outputs)
            return {".onnx": described(content, model, facts)}
        finally:
            model.net.to(device)
