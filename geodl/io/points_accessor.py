"""``ds.geodl``: what a Dataset of points can do."""

from __future__ import annotations

from typing import Any

import pyproj
import xarray as xr


@xr.register_dataset_accessor("geodl")
class PointsAccessor:
    """CRS, tiles, rasters and writers of a Dataset of points.

    Parameters
    ----------
    dataset
        With ``x``, ``y`` and ``z`` along ``point``, as `open_points` returns it.
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

    @property
    def crs(self) -> pyproj.CRS | None:
        """The CRS that the files state; None where they state none."""
        text: Any = self._dataset.attrs.get("crs_wkt")
        return None if text is None else pyproj.CRS.from_wkt(text)
