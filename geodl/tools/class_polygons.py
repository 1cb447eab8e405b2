"""Polygons of classes as a product, straight from the regions of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geodl.base.errors import OptionError
from geodl.base.options import as_float
from geodl.core.classes import ClassTable
from geodl.core.grid import Window
from geodl.io.regions import RegionStore
from geodl.io.writers import FEATURE_SUFFIXES, write_features
from geodl.runtime.ledger import Ledger
from geodl.tools.job import Job
from geodl.tools.polygonize import check_units, region_polygons

if TYPE_CHECKING:
    from geopandas import GeoDataFrame


def polygon_options(min_area: Any, simplify: Any) -> dict[str, float]:
    """The options of polygons, checked.

    Raises
    ------
    OptionError
        A number below 0.
    """
    return {
        "min_area": as_float(min_area, "min_area", minimum=0),
        "simplify": as_float(simplify, "simplify", minimum=0),
    }


def check_polygons(job: Job, path: Path | None, options: Mapping[str, float], remedy: str) -> None:
    """Refuse what polygons cannot be made of, before the first block.

    Parameters
    ----------
    path
        Where the polygons go; None where none are asked for.
    options
        Of :func:`polygon_options`.
    remedy
        How the tool is asked for polygons.

    Raises
    ------
    OptionError
        Scores instead of classes, options of polygons without polygons, or larger than the raster.
    """
    if path is not None and job.pixel_options.output != "classes":
        raise OptionError(
            f"{path.name}: polygons are made of classes; leave out the scores, or write a raster "
            "(.tif or .zarr) only"
        )
    if path is None and any(options.values()):
        raise OptionError(
            f"there is only a raster to write; min_area and simplify are for polygons: {remedy} "
            f"that ends in {', '.join(FEATURE_SUFFIXES)}"
        )
    check_units(job.plan.grid, **options)


def finish_polygons(
    job: Job, ledger: Ledger, path: Path, *, min_area: float, simplify: float
) -> GeoDataFrame:
    """Make the features from a run's regions and write them."""
    store = RegionStore.open(ledger.folder / "regions.zarr")
    window = job.plan.extent.shift(-job.plan.store_window.row, -job.plan.store_window.col)
    features = class_polygons(
        store, job.contract.classes, window, min_area=min_area, simplify=simplify
    )
    write_features(features, path)
    features.attrs["path"] = str(path)
    return features


def class_polygons(
    store: RegionStore,
    classes: ClassTable,
    window: Window | None = None,
    **options: Any,
) -> GeoDataFrame:
    """Polygons of the classes in a store of class values; background has none.

    Parameters
    ----------
    window
        The part of the store to take; all of it by default.
    **options
        ``min_area`` and ``simplify`` of :func:`polygonize`.

    Returns
    -------
    GeoDataFrame with ``Class``, ``ClassValue`` and geometry, by value, then by first pixel.
    """
    import geopandas

    part = store.grid.window if window is None else window

    def read(block: Window) -> tuple[np.ndarray, np.ndarray]:
        values = store.read(block.shift(part.row, part.col))[0]
        return values.astype(np.int32), values != store.dtype.type(store.fill)

    names = {entry.value: entry.name for entry in classes}
    grid = store.grid.crop(part)
    found = region_polygons(read, grid, max(store.chunk), dropped=(0,), **options)
    return geopandas.GeoDataFrame(
        {
            "Class": np.array([names[value] for value in found.values.tolist()], dtype=object),
            "ClassValue": found.values,
        },
        geometry=found.polygons,
        crs=grid.crs,
    )
