"""Instance masks: from features, class rasters or rasters of object numbers, to files and back."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import shapely
from scipy import ndimage

from geodl.base.errors import FormatError
from geodl.core.classes import ClassEntry, ClassTable
from geodl.core.grid import GeoGrid
from geodl.formats.base import ChipContent
from geodl.formats.images import encode, open_image, place
from geodl.formats.label_types import InstanceLabels, no_instances
from geodl.ops.labels import burn

_EIGHT = np.ones((3, 3), bool)
_DTYPES = (np.uint8, np.uint16, np.int32)
# What some file system, or a reader of map.txt, does not bear in the name of a folder.
_UNFIT = re.compile(r'[\x00-\x1f<>:"/\\|?*]+|\s{2,}')


def instances_of(content: ChipContent) -> InstanceLabels:
    """The objects of a chip: each feature, or each connected region or number of a raster.

    A feature that covers no pixel's centre is none.
    """
    size = content.window.height, content.window.width
    if content.class_mask is not None:
        return _of_raster(content.class_mask, content.numbered)
    parts, values = content.parts
    masks = np.zeros((len(parts), *size), bool)
    for mask, part in zip(masks, parts, strict=True):
        _burn_one(mask, part)
    kept = masks.any(axis=(1, 2))
    return InstanceLabels(masks[kept], values[kept])


def _burn_one(mask: np.ndarray, part: shapely.Geometry) -> None:
    """Burn a part within its own bounds: most objects are small beside their chip."""
    x0, y0, x1, y1 = shapely.bounds(part)
    col, row = max(0, int(x0)), max(0, int(y0))
    window = mask[row : int(np.ceil(y1)) + 1, col : int(np.ceil(x1)) + 1]
    moved = shapely.transform(part, lambda xy: xy - np.array([col, row]))
    window |= burn(np.array([moved], object), np.ones(1, np.int64), *window.shape) > 0


def _of_raster(mask: np.ndarray, numbered: bool) -> InstanceLabels:
    masks, values = [], []
    for value in np.unique(mask[mask != 0]).tolist():
        if numbered:
            masks.append(mask == value)
            values.append(1)
            continue
        regions, count = ndimage.label(mask == value, structure=_EIGHT)
        masks += [regions == number for number in range(1, count + 1)]
        values += [value] * count
    if not masks:
        return no_instances(mask.shape)
    return InstanceLabels(np.stack(masks), np.array(values, np.int64))


def pack(masks: np.ndarray) -> np.ndarray:
    """Masks as bands of instance numbers, from 1 in each band; objects that overlap go apart.

    Parameters
    ----------
    masks
        bool (N, H, W), N at least 1.

    Returns
    -------
    (B, H, W) of the smallest dtype.
    """
    bands: list[np.ndarray] = []
    numbers: list[int] = []
    for mask in masks:
        band = next((n for n, ids in enumerate(bands) if not ids[mask].any()), len(bands))
        if band == len(bands):
            bands.append(np.zeros(mask.shape, np.int32))
            numbers.append(0)
        numbers[band] += 1
        bands[band][mask] = numbers[band]
    dtype = next(d for d in _DTYPES if max(numbers) <= np.iinfo(d).max)
    return np.stack(bands).astype(dtype)


def write_instances(path: Path, masks: np.ndarray, grid: GeoGrid) -> None:
    """Write the instances of one class in one chip as a TIFF."""
    path.parent.mkdir(exist_ok=True)
    place(path, encode(pack(masks), "TIFF", grid, compress="DEFLATE", predictor=1))


def read_numbers(path: Path) -> np.ndarray:
    """int (B, H, W) instance numbers of one file, nodata as 0.

    Raises
    ------
    FormatError
        Not whole numbers, or negative ones; names the file.
    """
    with open_image(path) as dataset:
        dtype = np.dtype(dataset.dtypes[0])
        if dtype.kind not in "iu":
            raise FormatError(f"{path} has bands of {dtype}; instances are whole numbers.")
        numbers = dataset.read()
        nodata = dataset.nodata
    if nodata is not None and np.isfinite(nodata):
        numbers = np.where(numbers == nodata, numbers.dtype.type(0), numbers)
    if numbers.min(initial=0) < 0:
        raise FormatError(f"{path} holds the number {numbers.min()}; instances count from 1.")
    return numbers


def masks_of(numbers: np.ndarray) -> list[np.ndarray]:
    """bool (H, W) of each instance, by band and number."""
    return [band == number for band in numbers for number in np.unique(band[band != 0])]


def class_of_folder(folder: Path, classes: ClassTable) -> int:
    """The class value that a label folder is for: by name, else by value.

    Raises
    ------
    FormatError
        No class is named so.
    """
    for entry in classes:
        if entry.name.strip() == folder.name.strip():
            return entry.value
    for entry in classes:
        if str(entry.value) == folder.name:
            return entry.value
    known = ", ".join(f"{entry.value} ({entry.name})" for entry in classes)
    raise FormatError(f"{folder} is named like no class of the export; its classes are {known}.")


def fit_for_folders(classes: ClassTable, *, dots: bool = True) -> ClassTable:
    """Classes whose names can be folders: the export's classes are called as its folders are.

    Parameters
    ----------
    dots
        Whether names may hold dots; some readers cut the name of a folder at its last one.
    """
    taken: set[str] = set()
    entries = []
    for entry in classes:
        name = _UNFIT.sub("_", entry.name).strip(" ." if dots else " ")
        name = name if dots else name.replace(".", "_")
        name = name or str(entry.value)
        if name.lower() in taken:
            name = f"{name}_{entry.value}"
        taken.add(name.lower())
        entries.append(ClassEntry(value=entry.value, name=name, color=entry.color))
    return ClassTable(tuple(entries))
