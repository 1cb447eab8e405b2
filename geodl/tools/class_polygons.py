"""Polygons of classes as a product, straight from the regions of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geodl.base.errors import OptionError
from geodl.core.classes import ClassTable
from geodl.core.grid import Window
from geodl.io.regions import RegionStore
from geodl.io.writers import FEATURE_SUFFIXES, write_features
from geodl.runtime.ledger import Ledger
from geodl.tools.job import Job
from geodl.tools.polygonize import region_polygons
from geodl.tools.product import Product

if TYPE_CHECKING:
    from geopandas import GeoDataFrame


def check_polygons(job: Job, product: Product, *, stated: bool) -> None:
    """Refuse what polygons cannot be made of, before the first block.

    Parameters
    ----------
    stated
        Whether options of polygons were given.

    Raises
    ------
    OptionError
        Scores instead of classes, or options of polygons for a raster.
    """
    features = product.path.suffix.lower() in FEATURE_SUFFIXES
    if features and job.pixel_options.output != "classes":
        raise OptionError(
            f"{product.path.name}: polygons are made of classes; leave out the scores, or choose "
            "an output_name that ends in .tif or .zarr"
        )
    if stated and not features:
        raise OptionError(
            f"{product.path.name} is a raster; min_area and simplify are for polygons: choose an "
            f"output_name that ends in {', '.join(FEATURE_SUFFIXES)}"
        )


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
