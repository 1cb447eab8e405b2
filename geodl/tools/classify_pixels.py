"""Class rasters from a pixel model, wall to wall."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geodl.base.errors import OptionError, OutputError
from geodl.base.options import as_bool, check_known
from geodl.io.regions import RegionStore
from geodl.io.writers import (
    FEATURE_SUFFIXES,
    RASTER_SUFFIXES,
    check_zarr_format,
    write_raster,
)
from geodl.runtime.ledger import Ledger
from geodl.tools.class_lines import finish_lines, gives_lines
from geodl.tools.class_polygons import check_polygons, finish_polygons, polygon_options
from geodl.tools.inference import ToolCall, opened_again
from geodl.tools.job import Job, product_bands
from geodl.tools.product import Product

if TYPE_CHECKING:
    import geopandas as gpd
    import xarray as xr


def classify_pixels(
    input_raster: Any,
    model: Any,
    model_arguments: Mapping[str, Any] | None = None,
    output_name: str | os.PathLike[str] | None = None,
    context: Mapping[str, Any] | None = None,
    process_all_raster_items: bool = False,
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
    min_area: float = 0,
    simplify: float = 0,
    zarr_format: int = 3,
    **kwargs: Any,
) -> xr.DataArray | gpd.GeoDataFrame:
    """Classify every pixel of a raster.

    Parameters
    ----------
    input_raster
        Whatever :func:`geodl.open_raster` takes.
    model
        A trained object, a ``.emd`` or ``.dlpk`` file, or the folder that ``save`` returned; or an
        ``.onnx`` file: an export of geodl, or one with the metadata of the QGIS plugin Deepness.
    model_arguments
        ``padding`` (a quarter of the tile), ``batch_size`` (4), ``tile_size``,
        ``predict_background`` (True for a model of one class, else False: the best of the classes
        wins), ``test_time_augmentation`` (False) with ``merge_policy`` (``mean``, ``max``,
        ``min``), ``overlap`` (``crop`` or ``blend``: a Hann-weighted mean of overlapping
        tiles), ``output`` (``classes`` or ``scores``), ``precision`` (``float32``; ``bfloat16``
        takes half the time, and is refused where a few tiles show other classes). Models of edges
        and roads take in place of ``predict_background``: ``threshold`` (0.5), the probability of
        a line; ``return_probability_raster`` (False), the same as ``output="scores"``; and those
        of edges ``thinning`` (True, but False with ``overlap="blend"``), centre lines only.
    output_name
        ``.tif`` (COG) or ``.zarr``, or for polygons of the classes ``.parquet``, ``.gpkg``,
        ``.fgb``, ``.geojson`` or ``.shp``; None names it after the raster and the run. Models of
        roads and edges give centre lines in place of polygons (see
        :func:`geodl.functions.extract_lines`).
    context
        ``cellSize``, ``extent``, ``mask``, ``outSR``, ``snapRaster``, ``processorType``,
        ``parallelProcessingFactor``.
    process_all_raster_items
        True classifies each raster of a list by itself and returns a list; products that the same
        call has finished before are kept.
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
        Replace a finished product, of several rasters every one; begin anew where an unfinished
        run has other settings.
    block_size
        Pixels; rounded up to whole tile strides. Does not change the result.
    report
        ``.html`` page to write on what the client's workers did and when.
    min_area
        Of polygons: the smallest that is kept, in square units of the CRS.
    simplify
        Of polygons: how coarse their shared borders may become, in units of the CRS; see
        :func:`geodl.functions.polygonize`.
    zarr_format
        Of a ``.zarr`` product: 3, or 2 for readers such as GDAL before 3.12.

    Returns
    -------
    Lazy DataArray (band, y, x) of class values, ``.attrs["path"]`` says where it is. Nodata is
    255, 65535 or -2147483648, by the smallest dtype that holds the values. For polygons a
    GeoDataFrame with ``Class``, ``ClassValue`` and geometry, where background has none; for lines
    also with ``FromNode`` and ``ToNode``.

    Raises
    ------
    ModelDataError
        The raster does not fit the model.
    OutputExistsError
        A finished product is there.
    BlockError
        Some blocks failed; the others are kept, the same call goes on.
    """
    check_known(kwargs, ("tiles_only",), "classify_pixels")
    options = polygon_options(min_area, simplify)
    call = ToolCall(
        tool="classify_pixels",
        kind="pixels",
        raster=input_raster,
        model=model,
        model_arguments=model_arguments,
        context=context,
        block_size=block_size,
        output_name=output_name,
        suffixes=(*RASTER_SUFFIXES, *FEATURE_SUFFIXES),
        gis=gis,
        overwrite=overwrite,
        separately=as_bool(process_all_raster_items, "process_all_raster_items"),
        client=client,
        progress=progress,
        report=report,
        finalise=partial(_finish, options=options, zarr_format=zarr_format),
        store=region_store,
        making={**options, "zarr_format": zarr_format},
        reopens=True,
        check=partial(_check, options=options, zarr_format=zarr_format),
    )
    return call.run(future=future, estimate=estimate, dry_run=dry_run)


def region_store(job: Job, run_folder: Path) -> str:
    """Make the region store of a new run, or find that of the run that is resumed."""
    path = run_folder / "regions.zarr"
    if RegionStore.exists(path):
        return str(path)
    if any(run_folder.glob("ledger/*.jsonl")):
        raise OutputError(
            f"{run_folder} tells of finished blocks but holds no regions: a run was ended while it "
            "made its product. Remove that folder and run the same call again."
        )
    window = job.plan.store_window
    bands, dtype, nodata, names = product_bands(job)
    RegionStore.create(
        path,
        shape=(bands, window.height, window.width),
        chunk=job.plan.chunk_px,
        dtype=dtype,
        fill=nodata,
        grid=job.plan.grid.crop(window),
        band_names=tuple(names),
    )
    return str(path)


def _check(job: Job, product: Product, *, options: Mapping[str, float], zarr_format: int) -> None:
    check_zarr_format(product.path, zarr_format)
    features = product.path.suffix.lower() in FEATURE_SUFFIXES
    check_polygons(job, product.path if features else None, options, "choose an output_name")
    if any(options.values()) and gives_lines(job):
        raise OptionError(
            f"{job.contract.model_name} gives lines; min_area and simplify are for polygons"
        )


def _finish(
    job: Job, ledger: Ledger, path: Path, *, options: Mapping[str, float], zarr_format: int
) -> Any:
    if path.suffix.lower() in FEATURE_SUFFIXES:
        if gives_lines(job):
            return finish_lines(job, ledger, path)
        return finish_polygons(job, ledger, path, **options)
    return finish_raster(job, ledger, path, zarr_format=zarr_format)


def finish_raster(job: Job, ledger: Ledger, path: Path, *, zarr_format: int = 3) -> xr.DataArray:
    """The product from the regions."""
    store = RegionStore.open(ledger.folder / "regions.zarr")
    frame, extent = job.plan.store_window, job.plan.extent
    if frame != extent:
        window = extent.shift(-frame.row, -frame.col)
        store = store.cropped(ledger.folder / "extent.zarr", window)
    scores = job.pixel_options.output == "scores"
    classes = None if scores else job.contract.classes
    write_raster(store, path, classes=classes, zarr_format=zarr_format)
    return opened_again(job, path)
