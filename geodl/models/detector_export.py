"""Detectors in formats that run without geodl."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from geodl.models.network_export import ExportsNetwork, Traced
from geodl.nets.exported import ExportedDetector

if TYPE_CHECKING:
    from geodl.models.base import TorchModel


class ExportsDetector(ExportsNetwork):
    """What ``save(framework=...)`` adds to the package of a detector.

    The network takes float32 ``pixels`` (1, C, H, W), the raw values of one tile of the training
    size, to ``boxes`` float32 (N, 4) x0, y0, x1, y1, ``scores``, ``labels`` 1..K and, of
    instances, ``masks`` (N, H, W); from score 0.05 on, two of a class overlapping by an IoU of 0.5
    at most. Of such a file the tools find no more than that.
    """

    def _traced(self) -> Traced:
        model = cast("TorchModel", self)
        contract = model.contract
        module = ExportedDetector(
            model.net, *contract.normalization.scale_offset(), masks=contract.kind == "instances"
        )
        names = dict(enumerate(contract.classes.names))
        return Traced(module, module.outputs, {"model_type": "Detector", "class_names": names})
