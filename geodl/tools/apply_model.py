"""The lazy face of the engine: a pixel model's result as a Dask-backed array."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from geodl.core.plan import BlockSpec
from geodl.infer.pixels import PixelBlocks
from geodl.io.raster import grid_coordinates
from geodl.tools.inference import load, prepared

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
        As ``model_arguments`` of ``classify_pixels``; also ``block_size`` (pixels).

    Returns
    -------
    DataArray (band, y, x), one Dask chunk per block: class values (one band, with ``nodata``), or
    float32 scores (a band per network output) with ``output="scores"``.

    Raises
    ------
    ModelDataError
        The raster does not fit the model.
    """
    import dask.array as da
    import xarray as xr
    from dask.highlevelgraph import HighLevelGraph

    block_size = model_arguments.pop("block_size", None)
    with prepared(
        "apply_model", "pixels", raster, _lasting(model), model_arguments, None, block_size
    ) as job:
        plan, loaded = job.plan, load(job)
        task: Any = job.task()
    specs = list(plan.blocks())
    empty = task.empty(specs[0], loaded)
    nodata = empty.flat[0]
    name = f"geodl_apply_model-{job.fingerprint[:16]}-{plan.block_px}"
    layer = {(name, 0, spec.row, spec.col): (_block, task, spec) for spec in specs}
    height, width = plan.grid.shape
    chunks = ((len(empty),), _sides(height, plan.block_px), _sides(width, plan.block_px))
    values = da.Array(HighLevelGraph.from_collections(name, layer), name, chunks, empty.dtype)
    outputs = ["Background", *job.contract.classes.names] if len(empty) > 1 else ["Class"]
    array = xr.DataArray(
        values,
        dims=("band", "y", "x"),
        coords={
            "band": np.arange(1, len(empty) + 1),
            "long_name": ("band", outputs),
            **grid_coordinates(plan.grid),
        },
        name=outputs[0] if len(empty) == 1 else "scores",
    )
    if plan.grid.crs is not None:
        array = array.rio.write_crs(plan.grid.crs)
    array = array.rio.write_transform(plan.grid.affine)
    return array.rio.write_nodata(nodata)


def _block(task: PixelBlocks, spec: BlockSpec) -> np.ndarray:
    values, _ = task.compute(spec, task.read(spec))
    if values is None:
        from geodl.bundle import load_model

        return task.empty(spec, load_model(task.model, task.device))
    return values


def _sides(size: int, block_px: int) -> tuple[int, ...]:
    whole, rest = divmod(size, block_px)
    return (block_px,) * whole + ((rest,) if rest else ())


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
    return model.write_bundle(tempfile.mkdtemp(dir=_folder()))
