"""Class rasters of change between two rasters, wall to wall."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geodl.base.errors import NotSupportedError
from geodl.base.options import check_known
from geodl.io.writers import FEATURE_SUFFIXES, RASTER_SUFFIXES
from geodl.runtime.ledger import Ledger
from geodl.tools.class_polygons import check_polygons, finish_polygons, polygon_options
from geodl.tools.classify_pixels import finish_raster, region_store
from geodl.tools.inference import ToolCall
from geodl.tools.job import Job
from geodl.tools.job_source import RasterPair
from geodl.tools.product import Product

if TYPE_CHECKING:
    import xarray as xr


def detect_change_using_deep_learning(
    from_raster: Any,
    to_raster: Any,
    model: Any,
    output_classified_raster: str | os.PathLike[str] | None = None,
    model_arguments: Mapping[str, Any] | None = None,
    context: Mapping[str, Any] | None = None,
    *,
    gis: Any = None,
    future: bool = False,
    estimate: bool = False,
    dry_run: bool = False,
    client: Any = None,
    progress: bool = True,
    overwrite: bool = False,
    block_size: int | None = None,
    report: str | os.PathLike[str] | None = None,
    output_polygons: str | os.PathLike[str] | None = None,
    min_area: float = 0,
    simplify: float = 0,
    **kwargs: Any,
) -> xr.DataArray:
    """Find what has changed between two rasters of the same ground.

    Parameters
    ----------
    from_raster
        The earlier one: whatever :func:`geodl.open_raster` takes. Its grid is the product's, unless
        the context says otherwise.
    to_raster
        The later one; resampled to that grid where its own differs, in CRS too.
    model
        A model that compares two images: a trained ChangeDetector, a ``.emd`` or ``.dlpk`` file,
        or the folder that ``save`` returned.
    output_classified_raster
        ``.tif`` (COG) or ``.zarr``; None names it after the earlier raster and the run.
    model_arguments
        ``padding`` (a quarter of the tile), ``batch_size`` (4), ``tile_size``,
        ``test_time_augmentation`` (False) with ``merge_policy`` (``mean``, ``max``, ``min``),
        ``overlap`` (``crop`` or ``blend``), ``output`` (``classes`` or ``scores``), ``threshold``
        (0.5): the probability that change needs, ``precision`` (``float32``; ``bfloat16`` is
        faster, and is refused where a few tiles show other classes).
    context
        ``cellSize``, ``extent``, ``mask``, ``outSR``, ``snapRaster``, ``processorType``,
        ``parallelProcessingFactor``.
    gis
        A :class:`geodl.Catalog` in which the product is published; bare names lie there.
    future
        Return a future at once: its ``progress``, ``cancel()`` and ``result()``.
    estimate
        Only return the worker-hours expected.
    dry_run
        Only say what the run would do and take: its blocks, tiles, memory, hours and output.
    client
        A Dask client; None takes the active one, or this process.
    progress
        Show a bar, the plan before the run and the speed after it.
    overwrite
        Replace a finished product; begin anew where an unfinished run has other settings.
    block_size
        Pixels; rounded up to whole tile strides. Does not change the result.
    report
        ``.html`` page to write on what the client's workers did and when.
    output_polygons
        Also write the changed areas as features: ``.parquet``, ``.gpkg``, ``.fgb``, ``.geojson`` or
        ``.shp``, with ``Class`` and ``ClassValue``.
    min_area
        Of those features: the smallest that is kept, in square units of the CRS.
    simplify
        Of those features: how coarse their borders may become, in units of the CRS; see
        :func:`geodl.functions.polygonize`.
    **kwargs
        ``folder`` belongs to portals.

    Returns
    -------
    Lazy DataArray (band, y, x): the class value where the ground has changed, 0 where not, nodata
    where one of the rasters has no data. ``.attrs["path"]`` says where it is,
    ``.attrs["polygons"]`` where the features are.

    Raises
    ------
    ModelDataError
        A raster does not fit the model, or the model does not compare two.
    GridMismatchError
        The rasters cannot be brought onto one grid, or do not overlap.
    OutputExistsError
        A finished product is there.
    BlockError
        Some blocks failed; the others are kept, the same call goes on.
    """
    check_known(kwargs, ("folder",), "detect_change_using_deep_learning")
    if kwargs.get("folder") is not None:
        raise NotSupportedError(
            f"folder={kwargs['folder']!r}: products go to paths; give one as "
            "output_classified_raster."
        )
    options = polygon_options(min_area, simplify)
    polygons = _polygon_path(output_polygons, overwrite)
    call = ToolCall(
        tool="detect_change",
        kind="pixels",
        raster=RasterPair(from_raster, to_raster),
        model=model,
        model_arguments=model_arguments,
        context=context,
        block_size=block_size,
        output_name=output_classified_raster,
        suffixes=RASTER_SUFFIXES,
        gis=gis,
        overwrite=overwrite,
        separately=False,
        client=client,
        progress=progress,
        report=report,
        finalise=partial(_finalise, polygons=polygons, options=options),
        store=region_store,
        making=options,
        check=partial(_check, polygons=polygons, options=options),
    )
    return call.run(future=future, estimate=estimate, dry_run=dry_run)


def _polygon_path(output: str | os.PathLike[str] | None, overwrite: bool) -> Path | None:
    if output is None:
        return None
    product = Product.at(
        output, suffixes=FEATURE_SUFFIXES, default_stem="", gis=None, overwrite=overwrite
    )
    return product.path


def _check(
    job: Job, product: Product, *, polygons: Path | None, options: Mapping[str, float]
) -> None:
    check_polygons(job, polygons, options, "give output_polygons a path")


def _finalise(
    job: Job, ledger: Ledger, path: Path, *, polygons: Path | None, options: Mapping[str, float]
) -> xr.DataArray:
    if polygons is not None:
        finish_polygons(job, ledger, polygons, **options)
    result = finish_raster(job, ledger, path)
    if polygons is not None:
        result.attrs["polygons"] = str(polygons)
    return result
