"""What the edge detectors share: construction, and precision and recall with a tolerance."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from matplotlib.figure import Figure
from torch import nn

from geodl.base.options import as_bool, as_float, check_known
from geodl.core.classes import ClassTable
from geodl.models.base import TorchModel
from geodl.models.score_export import ExportsScores
from geodl.nets.backbones import (
    FAMILIES,
    backbone_names,
    check_backbone,
    timm_names,
    transformer_names,
)
from geodl.nets.encoder import STRIDE, make_encoder
from geodl.tasks.base import Task
from geodl.tasks.edges import EdgeTask, ToleranceMeter

DEFAULT_BACKBONE = "vgg19"
_VGG_STRIDE = 16


class EdgeDetector(ExportsScores, TorchModel):
    """A TorchModel on :class:`geodl.tasks.edges.EdgeTask`; a subclass names network and losses."""

    kind: ClassVar[Literal["pixels"]] = "pixels"
    dataset_types = ("Classified_Tiles",)
    gives_lines: ClassVar[bool] = True
    raster_arguments: ClassVar[Mapping[str, Any]] = {
        "threshold": 0.5,
        "thinning": True,
        "return_probability_raster": False,
    }
    network: ClassVar[type[nn.Module]]
    losses: ClassVar[Mapping[str, float]] = {}

    def _setup_detector(
        self, data: Any, backbone: str, pretrained_path: str | os.PathLike[str] | None
    ) -> None:
        self._setup(data, {"backbone": check_backbone(backbone)}, pretrained_path)

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
        name = check_backbone(str(parameters.get("backbone", DEFAULT_BACKBONE)))
        # The papers take VGG's five stages and leave out what lies behind the last pool.
        deepest = _VGG_STRIDE if name in FAMILIES["VGG"] else STRIDE
        encoder, loaded = make_encoder(name, bands, pretrained, deepest=deepest)
        return cls.network(encoder), EdgeTask(classes, **cls.losses), loaded

    def compute_precision_recall(
        self, thresh: float = 0.5, buffer: int = 3, show_progress: bool = True
    ) -> dict[str, float]:
        """Precision, recall and F1 of the thinned edges on the validation set.

        Parameters
        ----------
        thresh
            Probability from which a pixel counts as edge.
        buffer
            Distance in pixels within which an edge still counts as found.
        show_progress
            Show a bar where the error stream is a terminal.

        Returns
        -------
        ``precision``, ``recall`` and ``f1_score``.

        Raises
        ------
        MissingPackageError
            scikit-image is not installed.
        """
        meter = ToleranceMeter(
            as_float(thresh, "thresh", minimum=0, maximum=1),
            as_float(buffer, "buffer", minimum=0),
        )
        self._score(meter=meter, progress=as_bool(show_progress, "show_progress"))
        return meter.compute()

    def show_results(
        self, rows: int = 5, thresh: float = 0.5, thinning: bool = True, **kwargs: Any
    ) -> Figure:
        """Truth and prediction side by side for some validation chips.

        Parameters
        ----------
        rows
            How many chips.
        thresh
            Probability from which a pixel counts as edge.
        thinning
            Show centre lines only.
        **kwargs
            None are known; others are refused.
        """
        check_known(kwargs, (), "show_results()", of=self.show_results)
        return super().show_results(rows, thresh=thresh, thinning=thinning)

    def score_for_package(self) -> dict[str, Any]:
        found = self._score().meter.compute()
        return {"accuracy": f"{found['accuracy']:.4e}", "f1": found["f1"]}

    @classmethod
    def emd_keys(cls, parameters: Mapping[str, Any]) -> dict[str, Any]:
        return {"IsEdgeDetection": True}

    @staticmethod
    def backbones() -> list[str]:
        """Names of usable backbones; those of timm are experimental."""
        return [*backbone_names(("ResNet", "VGG")), *timm_names()]

    @staticmethod
    def transformer_backbones() -> list[str]:
        """Names of usable transformer backbones; experimental."""
        return list(transformer_names())

    @property
    def supported_backbones(self) -> list[str]:
        """Names of usable backbones."""
        return self.backbones()
