"""``Classified_Tiles``: one class raster per chip, pixel for pixel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from geodl.base.errors import FormatError
from geodl.core.classes import ClassTable
from geodl.core.grid import GeoGrid
from geodl.formats.base import (
    ChipContent,
    ChipFolder,
    ChipFrame,
    ChipRef,
    LabelKind,
    MaskLabels,
)
from geodl.formats.chip_format import ChipFormat
from geodl.formats.images import chip_size, encode, place, read_class_raster
from geodl.ops.labels import value_counts


class ClassifiedTiles(ChipFormat):
    """Class values as a lossless TIFF; 0 is background and where labels have no data."""

    name = "Classified_Tiles"
    kind: ClassVar[LabelKind] = "pixels"
    label_suffixes = (".tif", ".tiff", ".png", ".mrf")
    second_raster = True

    def label_of(self, content: ChipContent) -> MaskLabels:
        return MaskLabels(content.mask())

    def is_labelled(self, label: MaskLabels) -> bool:
        return bool(label.values.any())

    def write_label(self, frame: ChipFrame, label: MaskLabels, classes: ClassTable) -> None:
        write_classes(
            frame.folder / self.label_paths(frame.stem)[0], label.values, classes, frame.grid
        )

    def read_label(self, ref: ChipRef, folder: ChipFolder) -> MaskLabels:
        """Read the class value of each pixel; the label's own nodata value becomes 0.

        Raises
        ------
        FormatError
            Not one band of whole numbers, another size than the image, or a value that is no
            class; names the file.
        """
        if not ref.labels:
            return MaskLabels(np.zeros(folder.tile_size[::-1], np.int64))
        return MaskLabels(read_classes(ref.labels[0], ref, folder))

    def classes_of(self, chips: Sequence[ChipRef], path: Path) -> ClassTable:
        """The values in all label rasters, named by their numbers."""
        return classes_in((ref.labels[0] for ref in chips if ref.labels), path)


def classes_in(labels: Iterable[Path], path: Path) -> ClassTable:
    """Classes of the values that class rasters hold beside 0.

    Raises
    ------
    FormatError
        There is none, or a raster that is no class raster; names the folder or the file.
    """
    values: set[int] = set()
    for label in labels:
        values.update(value_counts(read_class_raster(label))[0].tolist())
    values.discard(0)
    if not values:
        raise FormatError(f"The labels of {path} hold nothing but 0; there is nothing to learn.")
    return ClassTable.from_mapping({value: str(value) for value in sorted(values)})


def write_classes(path: Path, values: np.ndarray, classes: ClassTable, grid: GeoGrid) -> None:
    """Write class values (H, W) as a TIFF of the smallest dtype that holds the classes."""
    dtype, _ = classes.raster_dtype()
    place(path, encode(values.astype(dtype)[None], "TIFF", grid, compress="DEFLATE", predictor=1))


def read_classes(path: Path, ref: ChipRef, folder: ChipFolder) -> np.ndarray:
    """int (H, W) class values of a chip, nodata as 0.

    Raises
    ------
    FormatError
        Not one band of whole numbers, another size than the image, or a value that is no class;
        names the file.
    """
    values = read_class_raster(path)
    check_label_size(path, values.shape, ref, folder)
    unknown = sorted(set(value_counts(values)[0].tolist()) - {0, *folder.classes.values})
    if unknown:
        raise FormatError(
            f"{path} holds the values {unknown[:5]}, which are no classes of the export "
            f"(0, {', '.join(map(str, folder.classes.values))})."
        )
    return values


def check_label_size(
    path: Path, shape_yx: tuple[int, ...], ref: ChipRef, folder: ChipFolder
) -> None:
    """Hold a label raster to the size of its image. Raises FormatError."""
    width, height = chip_size(ref, folder)
    if tuple(shape_yx) != (height, width):
        raise FormatError(
            f"{path} has {shape_yx[1]} x {shape_yx[0]} pixels and its image {ref.image.name} "
            f"{width} x {height}; a label has the size of its image."
        )
