"""Time series of image chips with a class per region: the layout of PSETAE."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from geodl.base.errors import FormatError, OptionError
from geodl.base.options import as_int
from geodl.formats.base import ESRI_EMD
from geodl.formats.image_sets import ImageSet, image_set, list_files, need_folder
from geodl.formats.images import open_image, read_image
from geodl.formats.inference import read_metadata, sub_folders

# Day 0 of spreadsheets, which DimensionValues count from.
_EPOCH = datetime.date(1899, 12, 30)


@dataclass(frozen=True, slots=True)
class Region:
    """The pixels of one class in one chip: its mask has a pixel that is not 0."""

    chip: str
    value: int
    mask: Path

    @property
    def name(self) -> str:
        return f"{self.chip}/{self.value}"


@dataclass(frozen=True, kw_only=True)
class SeriesLayout:
    """Chips of stacked dates, all bands of the first date first.

    Parameters
    ----------
    dates
        One per time step, ascending.
    bands
        Of each time step.
    """

    path: Path
    images: ImageSet
    regions: tuple[Region, ...] = field(repr=False)
    dates: tuple[datetime.date, ...]
    bands: int
    emd: Mapping[str, Any] = field(repr=False)

    @property
    def steps(self) -> int:
        return len(self.dates)

    def read(self, region: Region) -> np.ndarray:
        """Pixels of a region.

        Returns
        -------
        (C, T, P) in the file's dtype, P pixels in the order of rows and columns.

        Raises
        ------
        FormatError
            A chip or mask that does not fit the others; names the file.
        """
        path = self.images.files[region.chip]
        image = read_image(path)
        if len(image.data) != self.images.bands:
            raise FormatError(
                f"{path} has {len(image.data)} bands; the first chip has {self.images.bands}."
            )
        inside = read_region(region.mask)
        if inside.shape != image.mask.shape:
            raise FormatError(
                f"{region.mask} has {inside.shape[1]} x {inside.shape[0]} pixels, its image "
                f"{image.mask.shape[1]} x {image.mask.shape[0]}."
            )
        chosen = inside & image.mask if (inside & image.mask).any() else inside
        pixels = image.data[:, chosen].reshape(self.steps, self.bands, -1)
        return np.ascontiguousarray(pixels.transpose(1, 0, 2))


def read_region(path: Path) -> np.ndarray:
    """bool (H, W): a band of the mask is not 0.

    Raises
    ------
    FormatError
        Unreadable, or without a single such pixel; names the file.
    """
    with open_image(path) as dataset:
        inside = np.asarray((dataset.read() != 0).any(axis=0))
    if not inside.any():
        raise FormatError(f"{path} masks no pixel; remove it, or export the chip again.")
    return inside


def open_series(path: Path, steps: Any, dates: Any) -> SeriesLayout:
    """The chips and regions of a folder.

    Parameters
    ----------
    steps, dates
        ``n_temporal`` and ``n_temporal_dates`` (``YYYY-MM-DD``); None where the export says it.

    Raises
    ------
    FormatError
        Class folders that are no whole numbers or empty, masks without image, bands that the
        dates do not divide.
    OptionError
        Steps and dates that are missing, wrong or contradict each other.
    """
    emd = read_metadata(path / ESRI_EMD)
    # The statistics are of raster bands, one per date and band; merged by the caller.
    images = image_set(need_folder(path, "images"), {})
    known = _dates(path, emd, steps, dates)
    if images.bands % len(known):
        raise FormatError(
            f"{images.folder}: chips have {images.bands} bands, which {len(known)} dates do not "
            "divide. Check n_temporal."
        )
    return SeriesLayout(
        path=path,
        images=images,
        regions=_regions(need_folder(path, "labels"), images),
        dates=known,
        bands=images.bands // len(known),
        emd=emd,
    )


def _dates(path: Path, emd: Mapping[str, Any], steps: Any, dates: Any) -> tuple[datetime.date, ...]:
    listed = emd.get("DimensionValues") if emd.get("IsMultidimensional") is True else None
    if dates is not None:
        found = tuple(_date(text) for text in _as_list(dates))
        where = "n_temporal_dates"
    elif isinstance(listed, list) and listed:
        found = dimension_dates(listed, path / ESRI_EMD)
        where = f"DimensionValues in {path / ESRI_EMD}"
    else:
        raise OptionError(
            f"{path} does not say its dates; give n_temporal, the number of observations, and "
            "n_temporal_dates, a list of YYYY-MM-DD."
        )
    count = len(found) if steps is None else as_int(steps, "n_temporal", minimum=1)
    if count != len(found):
        raise OptionError(f"n_temporal={count}, but {where} has {len(found)} dates.")
    check_ascending(found, where)
    return found


def _as_list(dates: Any) -> Sequence[Any]:
    if isinstance(dates, (str, bytes)) or not isinstance(dates, (list, tuple)):
        raise OptionError(f"n_temporal_dates={dates!r} is no list of YYYY-MM-DD.")
    return dates


def _date(text: Any) -> datetime.date:
    try:
        return datetime.date.fromisoformat(str(text))
    except ValueError:
        raise OptionError(f"n_temporal_dates: {text!r} is no date YYYY-MM-DD.") from None


def dimension_dates(values: Sequence[Any], where: Path) -> tuple[datetime.date, ...]:
    """Dates of ``DimensionValues``, which count days. Raises FormatError."""
    try:
        return tuple(_EPOCH + datetime.timedelta(days=int(float(value))) for value in values)
    except (TypeError, ValueError, OverflowError) as error:
        raise FormatError(f"{where}: DimensionValues must be days as numbers ({error}).") from error


def check_ascending(dates: Sequence[Any], where: str) -> None:
    """Hold dates to their order. Raises FormatError, which names the first that is out of it."""
    for before, after in itertools.pairwise(dates):
        if after <= before:
            raise FormatError(f"{where}: {after} follows {before}; dates must ascend.")


def _regions(labels: Path, images: ImageSet) -> tuple[Region, ...]:
    found: list[Region] = []
    for folder in sub_folders(labels):
        try:
            value = int(folder.name)
        except ValueError:
            raise FormatError(f"{folder} must be named by the whole number of its class.") from None
        if value <= 0:
            raise FormatError(f"{folder}: class values are above 0; 0 is background.")
        for name, mask in list_files(folder).items():
            if name not in images.files:
                raise FormatError(f"{mask} has no image {name!r} in {images.folder}.")
            found.append(Region(name, value, mask))
    if not found:
        raise FormatError(f"{labels} has no folders of classes with masks in them.")
    return tuple(sorted(found, key=lambda region: (region.chip, region.value)))
