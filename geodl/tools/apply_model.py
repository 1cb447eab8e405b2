"""The lazy face of the engine: a pixel model's result as a Dask-backed array."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geodl.infer.lazy import ModelRaster
from geodl.io.array_layout import with_axes_of
from geodl.io.raster import as_array
from geodl.tools.job import prepared, product_bands
from geodl.tools.precision import check_precision

if TYPE_CHECKING:
    import xarray as xr


def apply_model(raster: Any, model: Any, **model_arguments: Any) -> xr.DataArray:
    """A model's answer for a raster, computed when and where it is asked for.

    The array composes with xarray expressions before and after it, and computes to what
    :func:`geodl.learn.classify_pixels` writes with the same arguments.

    Parameters
    ----------
    raster
        Whatever :func:`geodl.open_raster` takes, lazily derived arrays too.
    model
        As the tools take it; of a kind that gives pixels.
    **model_arguments
        As ``model_arguments`` of ``classify_pixels``; also ``block_size`` (pixels), the chunk.

    Returns
    -------
    DataArray (band, y, x), one Dask chunk per block: class values (one band, with ``nodata``), or
    float32 scores (a band per network output) with ``output="scores"``. Made from an xarray
    object, its axes have the names, coordinates and row order of that object's, so that the two
    line up.

    Raises
    ------
    ModelDataError
        The raster does not fit the model.
    """
    block_size = model_arguments.pop("block_size", None)
    with prepared(
        "apply_model", "pixels", raster, _lasting(model), model_arguments, None, block_size
    ) as job:
        check_precision(job, None)
        bands, dtype, nodata, names = product_bands(job)
        lazy = ModelRaster(
            name=f"apply_model_{Path(job.source.name).stem or 'raster'}",
            task=job.task(),  # type: ignore[arg-type]  # of the pixel kind, as was asked for
            count=bands,
            dtype=dtype,
            band_names=tuple(names),
            nodata=nodata,
            settings=job.fingerprint,
        )
        return with_axes_of(as_array(lazy, chunks=job.plan.block_px), raster, job.source.grid)


@cache
def _folder() -> str:
    """Where trained objects are packed for arrays that may be computed at any later time."""
    folder = tempfile.mkdtemp(prefix="geodl-lazy-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _lasting(model: Any) -> Any:
    """A trained object as the path of its package; anything else as it is."""
    if not hasattr(model, "write_bundle"):
        return model
    return model.write_bundle(Path(tempfile.mkdtemp(dir=_folder())))
