"""Networks in formats that run without geodl: what classifiers and detectors share of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor, nn

from geodl.bundle.export import to_onnx, to_torchscript
from geodl.core.contract import ModelContract
from geodl.models.onnx_description import described
from geodl.nets.exported import INPUT
from geodl.train.device import net_device

if TYPE_CHECKING:
    from geodl.models.base import TorchModel


@dataclass(frozen=True)
class Traced:
    """What is written of a model.

    Parameters
    ----------
    module
        Raw pixels float32 (B, C, H, W) to the outputs.
    outputs
        Their names, in order.
    facts
        As of :func:`geodl.models.onnx_description.described`.
    """

    module: nn.Module
    outputs: Sequence[str]
    facts: Mapping[str, Any]


class ExportsNetwork(ABC):
    """``torchscript`` writes ``<name>.torchscript.pt``, ``ONNX`` writes ``<name>.onnx``.

    The ONNX file says in its metadata what it is, in geodl's words and in those of the QGIS plugin
    Deepness; the inferencing tools take it as a model. A subclass says what is traced.
    """

    frameworks: ClassVar[tuple[str, ...]] = ("PyTorch", "torchscript", "ONNX", "TF-ONNX", "TF-ONXX")

    @abstractmethod
    def _traced(self) -> Traced:
        """The model's network with what its file says of it."""

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
        device, traced = net_device(model.net), self._traced()
        module, pixels = traced.module.eval(), _example(model.contract)
        try:
            module.cpu()
            if framework == "torchscript":
                return {".torchscript.pt": to_torchscript(module, pixels)}
            content = to_onnx(module, pixels, INPUT, traced.outputs)
            return {".onnx": described(content, model, traced.facts)}
        finally:
            model.net.to(device)


def _example(contract: ModelContract) -> Tensor:
    """Raw pixels float32 (1, C, H, W) of noise: detectors find something, every branch is seen."""
    shape = (len(contract.extract_bands), contract.tile_px, contract.tile_px)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).numpy()
    return torch.from_numpy(contract.normalization.invert(noise))[None]
