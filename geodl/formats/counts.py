"""Counts of an export: bands, classes, objects and pixels, merged exactly in any order."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from geodl.formats.base import BandSummary, BoxLabels, LabelKind, MaskLabels, counts_pixels
from geodl.formats.label_types import InstanceLabels, PanopticLabels
from geodl.ops.labels import value_counts
from geodl.ops.statistics import BandState, Summary, band_state


@dataclass(frozen=True, slots=True)
class ClassCount:
    """One class over some chips.

    Parameters
    ----------
    images
        Chips that hold it.
    total
        Objects, or pixels.
    sizes
        Of features their areas in squared map units; of pixel classes their pixels in each chip
        that holds some.
    """

    images: int = 0
    total: int = 0
    sizes: Summary = field(default_factory=Summary)

    def __add__(self, other: ClassCount) -> ClassCount:
        return ClassCount(
            self.images + other.images, self.total + other.total, self.sizes + other.sizes
        )

    def to_json(self) -> list[Any]:
        return [self.images, self.total, self.sizes.to_json()]

    @classmethod
    def from_json(cls, value: list[Any]) -> ClassCount:
        images, total, sizes = value
        return cls(images, total, Summary.from_json(sizes))


@dataclass(frozen=True, slots=True)
class ExportCounts:
    """All counts over some chips; ``+`` merges, and neither order nor grouping matters.

    Parameters
    ----------
    chips
        Number of chips.
    bands
        State of each band over all pixels of all chips; empty while there is no chip.
    classes
        By class value, background left out.
    per_image
        Objects per chip, or classes per chip.
    bands2
        Of the second raster; empty without one.
    """

    chips: int = 0
    bands: tuple[BandState, ...] = ()
    classes: Mapping[int, ClassCount] = field(default_factory=dict)
    per_image: Summary = field(default_factory=Summary)
    bands2: tuple[BandState, ...] = ()

    def __add__(self, other: ExportCounts) -> ExportCounts:
        none = ClassCount()
        return ExportCounts(
            self.chips + other.chips,
            _merged(self.bands, other.bands),
            {
                value: self.classes.get(value, none) + other.classes.get(value, none)
                for value in sorted({*self.classes, *other.classes})
            },
            self.per_image + other.per_image,
            _merged(self.bands2, other.bands2),
        )

    def totals(self) -> dict[int, int]:
        """Objects or pixels per class value."""
        return {value: count.total for value, count in self.classes.items()}

    def to_json(self) -> dict[str, Any]:
        return {
            "chips": self.chips,
            "bands": [band.to_json() for band in self.bands],
            "classes": [[value, count.to_json()] for value, count in self.classes.items()],
            "per_image": self.per_image.to_json(),
            "bands2": [band.to_json() for band in self.bands2],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ExportCounts:
        return cls(
            value["chips"],
            tuple(BandState.from_json(band) for band in value["bands"]),
            {number: ClassCount.from_json(count) for number, count in value["classes"]},
            Summary.from_json(value["per_image"]),
            tuple(BandState.from_json(band) for band in value["bands2"]),
        )


def _merged(ours: tuple[BandState, ...], theirs: tuple[BandState, ...]) -> tuple[BandState, ...]:
    if ours and theirs:
        return tuple(a + b for a, b in zip(ours, theirs, strict=True))
    return ours or theirs


def summaries(bands: Iterable[BandState]) -> tuple[BandSummary, ...]:
    """Extremes, mean and standard deviation of each band; 0 where no pixel is finite."""
    return tuple(
        BandSummary(b.minimum, b.maximum, b.mean, b.std)
        if b.count
        else BandSummary(0.0, 0.0, 0.0, 0.0)
        for b in bands
    )


def count_chip(
    data: np.ndarray | None,
    label: Any,
    cell_area: float = 1.0,
    second: np.ndarray | None = None,
) -> ExportCounts:
    """Counts of one chip.

    Parameters
    ----------
    data
        (C, H, W) of the image; None counts the label only.
    label
        As a chip format makes it.
    cell_area
        Of one pixel in squared map units.
    second
        (C2, H2, W2) of the second raster's chip, where there is one.
    """
    bands = () if data is None else tuple(band_state(band) for band in data)
    bands2 = () if second is None else tuple(band_state(band) for band in second)
    if isinstance(label, MaskLabels | PanopticLabels):
        classes = _count_pixels(label)
        return ExportCounts(1, bands, classes, Summary.of([len(classes)]), bands2)
    areas = _areas_px(label, 0 if data is None else data[0].size) * cell_area
    return ExportCounts(1, bands, _count_objects(label, areas), Summary.of([len(label)]), bands2)


def _areas_px(label: Any, chip_px: int) -> np.ndarray:
    """float64 (N,): size of each object in pixels; a class of the whole chip has all of them."""
    if isinstance(label, BoxLabels):
        return (label.boxes[:, 2:] - label.boxes[:, :2]).prod(axis=1)
    if isinstance(label, InstanceLabels):
        return label.masks.sum(axis=(1, 2), dtype=np.float64)
    return np.full(len(label), float(chip_px))


def _count_objects(label: Any, areas: np.ndarray) -> dict[int, ClassCount]:
    return {
        int(value): ClassCount(1, int(mine.sum()), Summary.of(areas[mine]))
        for value in np.unique(label.values)
        for mine in [label.values == value]
    }


def _count_pixels(label: MaskLabels | PanopticLabels) -> dict[int, ClassCount]:
    found, numbers = value_counts(label.values)
    return {
        int(value): ClassCount(1, int(number), Summary.of([number]))
        for value, number in zip(found, numbers, strict=True)
        if value != 0
    }


def padded(sizes: Summary, chips: int) -> Summary:
    """Pixels of a class per chip, with 0 for the chips that hold none, as Esri counts them."""
    if chips <= sizes.count:
        return sizes
    return sizes + dataclasses.replace(Summary.of([0]), count=chips - sizes.count)


def unit_of(kind: LabelKind) -> str:
    return "pixels" if counts_pixels(kind) else "features"
