"""The data object of samples with several images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from geodl.core.contract import Normalization
from geodl.data.figure import ShownFigure
from geodl.data.sample_data import SampleData
from geodl.formats.paired import PairedLayout


def image_facts(
    layout: PairedLayout, titles: tuple[str, ...], parts: Sequence[Normalization]
) -> dict[str, Any]:
    """The arguments of :class:`PairedData` that follow from a layout with one set per image."""
    return {
        "titles": titles,
        "all_bands": tuple(images.bands for images in layout.sets),
        "all_names": tuple(images.band_names for images in layout.sets),
        "all_dtypes": tuple(images.dtype for images in layout.sets),
        "image_space": layout.image_space,
        "cell_size": layout.cell_size,
        **dict(zip(("normalization", "normalization_b", "normalization_c"), parts, strict=False)),
    }


@dataclass(kw_only=True, eq=False, repr=False)
class PairedData(SampleData):
    """Samples with the images ``image``, ``image_b`` and ``image_c``, as many as the type has.

    Attributes
    ----------
    titles
        What the images are, for people: one per image of an item.
    all_bands, all_names, all_dtypes
        Bands of each image, their names (may be empty) and the dtype of its files.
    normalization, normalization_b, normalization_c
        Statistics of each image; None where the type has no such image.
    statistics_name
        Where they come from, for people.
    chip_size
        Side in pixels of the square ``image``.
    downsample_factor
        Super-resolution: side of ``image_b`` per side of ``image``; 1 otherwise.
    image_space, cell_size
        Of the export; least and largest cell size in units of its CRS, or None.
    """

    titles: tuple[str, ...]
    all_bands: tuple[int, ...]
    all_names: tuple[tuple[str, ...], ...]
    all_dtypes: tuple[str, ...]
    normalization: Normalization | None
    normalization_b: Normalization | None = None
    normalization_c: Normalization | None = None
    statistics_name: str
    chip_size: int
    downsample_factor: float = 1.0
    image_space: str = "MAP_SPACE"
    cell_size: tuple[float, float] | None = None
    resize_to: tuple[int, int] | None = None

    @property
    def bands(self) -> int:
        """Bands of ``image``."""
        return self.all_bands[0]

    @property
    def extract_bands(self) -> tuple[int, ...]:
        """0-based bands of the source that ``image`` holds: all of them."""
        return tuple(range(self.bands))

    @property
    def band_names(self) -> tuple[str, ...]:
        """Of ``image``; may be empty."""
        return self.all_names[0]

    @property
    def dtype(self) -> str:
        """Of the files of ``image``."""
        return self.all_dtypes[0]

    @property
    def normalizations(self) -> tuple[Normalization | None, ...]:
        """One per image of an item."""
        found = (self.normalization, self.normalization_b, self.normalization_c)
        return found[: len(self.titles)]

    def draw(self, rows: int) -> ShownFigure:
        from geodl.data.draw_paired import draw_pairs

        return draw_pairs(self, rows)

    def facts(self) -> list[tuple[str, str]]:
        images = ", ".join(
            f"{title} {bands} x {dtype}"
            for title, bands, dtype in zip(
                self.titles, self.all_bands, self.all_dtypes, strict=True
            )
        )
        rows: list[tuple[str, Any]] = [
            ("images", f"{images}; {self.chip_size} x {self.chip_size} px"),
            ("values", f"normalised by {self.statistics_name}"),
        ]
        if self.downsample_factor != 1:
            rows.append(("factor", f"{self.downsample_factor:g}"))
        return rows
