"""Chip formats: writing and reading folders of training chips. No torch."""

from geodl.formats.base import (
    BandSummary,
    BoxLabels,
    ChipFolder,
    ChipImage,
    ChipRef,
    MaskLabels,
)
from geodl.formats.chip_format import ChipFormat
from geodl.formats.folder import count_labels, open_export
from geodl.formats.label_types import InstanceLabels, NoLabel, PanopticLabels, TileLabels
from geodl.formats.registry import FORMATS
from geodl.formats.validate import validate_export

__all__ = [
    "FORMATS",
    "BandSummary",
    "BoxLabels",
    "ChipFolder",
    "ChipFormat",
    "ChipImage",
    "ChipRef",
    "InstanceLabels",
    "MaskLabels",
    "NoLabel",
    "PanopticLabels",
    "TileLabels",
    "count_labels",
    "open_export",
    "validate_export",
]
