"""What the pixel classifiers share: construction, the classes left out, and the backbones."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from geodl.base.options import as_bool
from geodl.models.base import TorchModel
from geodl.models.pixel_options import PIXEL_KEYWORDS, ignored_classes, loss_parameters
from geodl.models.pixel_scores import PixelScores
from geodl.models.score_export import ExportsScores
from geodl.nets.backbones import backbone_names, check_backbone, timm_names


class PixelClassifier(ExportsScores, PixelScores, TorchModel):
    """A TorchModel on :class:`geodl.tasks.pixels.PixelTask`; a subclass builds the network."""

    kind: ClassVar[Literal["pixels"]] = "pixels"
    dataset_types = ("Classified_Tiles",)
    keywords: ClassVar[tuple[str, ...]] = PIXEL_KEYWORDS

    def _setup_classifier(
        self,
        data: Any,
        backbone: str,
        pretrained_path: str | os.PathLike[str] | None,
        given: Mapping[str, Any],
        *,
        switches: Mapping[str, Any],
        own: Mapping[str, bool],
        **network: Any,
    ) -> None:
        """Check the arguments of a constructor and build.

        Parameters
        ----------
        given
            Its keywords: those of the loss, and those that ``own`` names with their defaults.
        switches
            Arguments that are True or False.
        **network
            Further parameters of the network, checked already.

        Raises
        ------
        NotSupportedError
            A backbone that does not exist.
        OptionError, UnknownOptionError
            A keyword outside its domain, or an unknown one.
        ModelDataError
            Data of another kind.
        """
        parameters = loss_parameters(type(self), data, given, own)
        asked = {**switches, **{name: given.get(name, default) for name, default in own.items()}}
        parameters |= {"backbone": check_backbone(backbone), **network}
        parameters |= {name: as_bool(value, name) for name, value in asked.items()}
        self._setup(data, parameters, pretrained_path)

    @classmethod
    def emd_keys(cls, parameters: Mapping[str, Any]) -> dict[str, Any]:
        return ignored_classes(parameters)

    @staticmethod
    def backbones() -> list[str]:
        """Names of usable backbones; those of timm are experimental."""
        return [*backbone_names(("ResNet", "DenseNet", "VGG")), *timm_names()]

    @property
    def supported_backbones(self) -> list[str]:
        """Names of usable backbones."""
        return self.backbones()
