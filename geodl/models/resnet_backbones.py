"""Backbones of the models that are documented for ResNet and timm."""

from __future__ import annotations

from geodl.nets.backbones import (
    backbone_names,
    plain_transformer_names,
    timm_names,
    transformer_names,
)


class ResNetBackbones:
    """The lists of backbones of a model, by its documented names."""

    @staticmethod
    def backbones() -> list[str]:
        """Names of usable backbones; those of timm are experimental."""
        return [*backbone_names(("ResNet",)), *timm_names()]

    @staticmethod
    def transformer_backbones() -> list[str]:
        """Names of usable transformer backbones; experimental."""
        return [*transformer_names(), *plain_transformer_names()]

    @property
    def supported_backbones(self) -> list[str]:
        """Names of usable backbones."""
        return self.backbones()
