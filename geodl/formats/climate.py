"""Weather and climate rasters: one export per variable, bands are time steps."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from geodl.base.errors import FormatError
from geodl.formats.base import ESRI_EMD, BandSummary
from geodl.formats.image_sets import ImageSet, image_set, need_folder, same_names
from geodl.formats.images import open_image, read_image
from geodl.formats.inference import read_metadata, sub_folders
from geodl.formats.time_series import check_ascending, dimension_dates


@dataclass(frozen=True, kw_only=True)
class ClimateLayout:
    """Variables over the same chips and time steps.

    Parameters
    ----------
    variables
        Name to its images; each band is a time step, and ``stats`` has one entry per step.
    names
        Of the chips.
    dates
        One per time step, ascending.
    """

    path: Path
    variables: Mapping[str, ImageSet]
    names: tuple[str, ...] = field(repr=False)
    dates: tuple[datetime.date, ...] = field(repr=False)

    @property
    def steps(self) -> int:
        return len(self.dates)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the chips."""
        return next(iter(self.variables.values())).size

    def read(self, name: str) -> np.ndarray:
        """float32 (T, V, H, W) of a chip; NaN where there is no data.

        Raises
        ------
        FormatError
            A chip of another size or number of steps; names the file.
        """
        parts = []
        for images in self.variables.values():
            image = read_image(images.files[name])
            expected = (images.bands, images.size[1], images.size[0])
            if image.data.shape != expected:
                raise FormatError(
                    f"{images.files[name]} has (steps, rows, columns) {image.data.shape}; "
                    f"expected {expected} as in the first chip."
                )
            parts.append(np.where(image.mask, image.data, np.nan).astype(np.float32))
        return np.stack(parts, axis=1)

    def latitudes(self, name: str) -> np.ndarray:
        """float32 (H,): y of the centre of each row of a chip, in units of its CRS."""
        path = next(iter(self.variables.values())).files[name]
        with open_image(path) as dataset:
            transform, rows = dataset.transform, dataset.height
        return np.asarray(transform.f + (np.arange(rows) + 0.5) * transform.e, np.float32)


def open_climate(path: Path) -> ClimateLayout:
    """The variables below a folder: ``<variable>/<dimension>/images``.

    Raises
    ------
    FormatError
        No variable, chips or dates that differ between them, or steps that are not the bands.
    """
    variables: dict[str, ImageSet] = {}
    dates: tuple[datetime.date, ...] | None = None
    for folder in sub_folders(path):
        for dimension in sub_folders(folder):
            own, images = _variable(dimension)
            if dates is not None and own != dates:
                raise FormatError(
                    f"{dimension / ESRI_EMD}: the dates differ from those of the first variable, "
                    f"{next(iter(variables))}. Export all variables over the same time."
                )
            dates = own
            several = len(sub_folders(folder)) > 1
            variables[f"{folder.name}_{dimension.name}" if several else folder.name] = images
    if not variables or dates is None:
        raise FormatError(f"{path} has no folders <variable>/<dimension> with an export in each.")
    sets = list(variables.values())
    names = same_names(sets)
    for images in sets[1:]:
        if images.size != sets[0].size:
            raise FormatError(
                f"The chips of {images.folder} have {images.size[0]} x {images.size[1]} pixels, "
                f"those of {sets[0].folder} {sets[0].size[0]} x {sets[0].size[1]}."
            )
    return ClimateLayout(path=path, variables=variables, names=tuple(names), dates=dates)


def _variable(folder: Path) -> tuple[tuple[datetime.date, ...], ImageSet]:
    where = folder / ESRI_EMD
    emd = read_metadata(where)
    values = emd.get("DimensionValues")
    if emd.get("IsMultidimensional") is not True or not isinstance(values, list) or not values:
        raise FormatError(
            f"{where} must be there, with IsMultidimensional true and DimensionValues, the days "
            "of the time steps. Export the multidimensional raster again."
        )
    dates = dimension_dates(values, where)
    check_ascending([float(value) for value in values], f"{where}: DimensionValues")
    images = image_set(need_folder(folder, "images"), emd, where=where)
    if images.bands != len(values):
        raise FormatError(
            f"{images.folder}: chips have {images.bands} bands, DimensionValues in {where} "
            f"{len(values)} time steps."
        )
    return dates, images


def variable_summary(stats: tuple[BandSummary, ...] | None) -> BandSummary | None:
    """One summary over all time steps, each of the same number of pixels; None without any."""
    if not stats:
        return None
    means = np.array([step.mean for step in stats])
    mean = float(means.mean())
    variance = float(np.mean([step.std**2 for step in stats]) + np.mean((means - mean) ** 2))
    return BandSummary(
        min(step.minimum for step in stats),
        max(step.maximum for step in stats),
        mean,
        variance**0.5,
    )
