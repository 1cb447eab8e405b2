"""Chip formats: writing and reading folders of training chips. No torch."""

from geodl.formats.base import (
    BandSummary,
    BoxLabels,
    ChipFolder,
    ChipFormat,
    ChipImage,
    ChipRef,
    MaskLabels,
)
from geodl.formats.folder import count_labels, open_export
from geodl.formats.registry import FORMATS

__all__ = [
    "FORMATS",
    "BandSummary",
    "BoxLabels",
    "ChipFolder",
    "ChipFormat",
    "ChipImage",
    "ChipRef",
    "MaskLabels",
    "count_labels",
    "open_export",
]
