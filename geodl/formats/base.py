"""What every chip format shares: the types that pass between formats, tools and data sets."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import shapely

from geodl.base.errors import DataError, FormatError
from geodl.core.classes import ClassTable
from geodl.core.grid import GeoGrid, Window
from geodl.ops.labels import burn, parts_inside, share_inside

if TYPE_CHECKING:
    from geodl.formats.chip_format import ChipFormat

LabelKind = Literal["objects", "pixels", "instances", "tiles", "panoptic", "images"]

ESRI_EMD = "esri_model_definition.emd"
ESRI_STATS = "esri_accumulated_stats.json"
ESRI_MAP = "map.txt"
ESRI_TEXT = "stats.txt"
# Key of a data EMD: by how much points and lines were widened, in units of the CRS.
BUFFER_KEY = "BufferRadius"


@dataclass(frozen=True, slots=True)
class ChipRef:
    """One chip of a folder: its stem, its image, and its label files (none if they are missing)."""

    name: str
    image: Path
    labels: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class ChipImage:
    """Pixels of a chip.

    Parameters
    ----------
    data
        (C, H, W), the file's dtype and values, all bands.
    mask
        bool (H, W), True where at least one band has data.
    """

    data: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True, slots=True)
class BoxLabels:
    """Objects of a chip.

    Parameters
    ----------
    boxes
        float64 (N, 4): x0, y0, x1, y1 in pixel edges of the chip (x right, y down).
    values
        int64 (N,), class values.
    """

    boxes: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True, slots=True)
class MaskLabels:
    """Classes of a chip's pixels.

    Parameters
    ----------
    values
        int (H, W), class values; 0 is background.
    """

    values: np.ndarray


@dataclass(frozen=True, slots=True)
class BandSummary:
    """Statistics of one band over all pixels of all chips; ``std`` is the population's."""

    minimum: float
    maximum: float
    mean: float
    std: float


def counts_pixels(kind: LabelKind) -> bool:
    """Whether statistics of such labels count pixels rather than objects or chips."""
    return kind in ("pixels", "panoptic")


@dataclass(frozen=True, kw_only=True)
class ChipFolder:
    """An opened export. Picklable; holds names and facts, no pixels.

    Parameters
    ----------
    metadata_mode
        Name of the chip format, a key of ``FORMATS``.
    chips
        In the order of ``map.txt``.
    bands, dtype
        Of the chip images, as in the statistics and the first image.
    band_names
        One per band, or empty where the export names none.
    tile_size
        Width and height in pixels.
    fixed_size
        Whether every chip must have ``tile_size``.
    image_space
        ``MAP_SPACE``, ``IMAGE_SPACE`` or ``PIXEL_SPACE``.
    cell_size
        Smallest and largest cell size of the sources as (x, y), in metres on the ground; or None.
    stats
        One per band, or None where the export holds none.
    class_counts
        Objects or pixels per class value, as the export counted them; None where it did not.
    """

    path: Path
    metadata_mode: str
    chips: tuple[ChipRef, ...] = field(repr=False)
    classes: ClassTable
    bands: int
    band_names: tuple[str, ...]
    tile_size: tuple[int, int]
    fixed_size: bool = True
    image_space: str = "MAP_SPACE"
    cell_size: tuple[tuple[float, float], tuple[float, float]] | None = None
    dtype: str = "uint8"
    stats: tuple[BandSummary, ...] | None = None
    class_counts: dict[int, int] | None = None
    emd: dict[str, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.chips)

    @property
    def chip_format(self) -> ChipFormat:
        from geodl.formats.registry import FORMATS

        chosen: ChipFormat = FORMATS[self.metadata_mode]()
        return chosen

    @property
    def kind(self) -> LabelKind:
        return self.chip_format.kind

    def balanced_weights(self) -> np.ndarray:
        """Weights that give every class the same say: inverse to its count, 1 on average.

        Returns
        -------
        float64 (K + 1,) in network order, background first. Background counts the pixels that no
        class has, or takes weight 1 for objects. A class without a single pixel or object takes
        weight 1.

        Raises
        ------
        DataError
            The export holds no counts.
        """
        if self.class_counts is None:
            raise DataError(
                f"{self.path} holds no counts per class; export the chips again, or count the "
                "labels with count_labels(folder)."
            )
        counts = [self.class_counts.get(value, 0) for value in self.classes.values]
        by_pixel = counts_pixels(self.kind)
        if by_pixel:
            width, height = self.tile_size
            counts.insert(0, max(0, width * height * len(self.chips) - sum(counts)))
        number = np.array(counts, np.float64)
        found = number > 0
        weights = np.ones(len(number))
        weights[found] = number[found].sum() / (found.sum() * number[found])
        return weights if by_pixel else np.concatenate([[1.0], weights])


@dataclass(frozen=True, kw_only=True)
class ChipContent:
    """What lies on the ground of one chip, before a format makes its label of it.

    Either features or a class raster, or neither.

    Parameters
    ----------
    window
        Pixels of the chip in the raster's frame.
    features
        object (N,) of valid geometries in pixels of the raster, in the order of the layer.
    values
        int64 (N,), class value of each feature.
    class_mask
        int (H, W) on the chip's pixels, 0 background.
    least_share
        Features of which the chip holds a smaller share are left out, 0..1.
    own_value
        Class of the feature that the chip was cut for, where chips are cut for features.
    instances
        Objects for panoptic labels.
    numbered
        Whether ``class_mask`` holds numbers of objects, all of class 1, rather than classes.
    """

    window: Window
    features: np.ndarray | None = None
    values: np.ndarray | None = None
    class_mask: np.ndarray | None = None
    least_share: float = 0.0
    own_value: int | None = None
    instances: ChipContent | None = None
    numbered: bool = False

    @cached_property
    def parts(self) -> tuple[np.ndarray, np.ndarray]:
        """Parts of the features inside the chip, in the chip's frame, with their class values."""
        if self.features is None or self.values is None:
            return np.zeros(0, object), np.zeros(0, np.int64)
        parts = parts_inside(self.features, self.window)
        kept = ~shapely.is_empty(parts)
        if self.least_share > 0:
            kept &= share_inside(parts, self.features) >= self.least_share
        return parts[kept], self.values[kept]

    def mask(self) -> np.ndarray:
        """int32 (H, W): class value of each pixel."""
        if self.class_mask is not None:
            return self.class_mask
        parts, values = self.parts
        return burn(parts, values, self.window.height, self.window.width)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChipFrame:
    """Names and place of one chip that is being written.

    Parameters
    ----------
    folder
        The export.
    stem
        Nine digits.
    image
        File name of the image.
    bands
        Of the image.
    grid
        Size, transform and CRS of the chip.
    """

    folder: Path
    stem: str
    image: str
    bands: int
    grid: GeoGrid


def check_shape(path: Path, shape: tuple[int, ...], folder: ChipFolder) -> None:
    """Hold a chip of (C, H, W) to the bands and size of its export. Raises FormatError."""
    bands, height, width = shape
    if bands != folder.bands:
        raise FormatError(
            f"{path} has {bands} bands; the export {folder.path} has {folder.bands}. "
            "Remove the chip or export it again."
        )
    if folder.fixed_size and (width, height) != folder.tile_size:
        raise FormatError(
            f"{path} has {width} x {height} pixels; the chips of {folder.path} have "
            f"{folder.tile_size[0]} x {folder.tile_size[1]}. Remove the chip or export it again."
        )
