"""What the tools that run a model over a raster have in common."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from geodl.base.errors import DataError, DataWarning, ModelDataError, OptionError
from geodl.base.files import sha256_json
from geodl.bundle import ModelRef, load_model, resolve_model
from geodl.core.blocks import RasterSource
from geodl.core.contract import ModelContract, TaskKind
from geodl.core.grid import GeoGrid, Window
from geodl.core.plan import TilePlan
from geodl.infer.area import Area
from geodl.infer.objects import ObjectBlocks, ObjectOptions
from geodl.infer.options import RunContext, TileOptions, run_context, tile_options
from geodl.infer.pixels import PixelBlocks, PixelOptions
from geodl.io.crs import metres_per_unit
from geodl.io.extent import extent_window
from geodl.io.manifest import write_manifest
from geodl.io.source import open_source
from geodl.io.vector import read_features
from geodl.runtime.connect import active_client
from geodl.runtime.future import RunFuture, start
from geodl.runtime.ledger import Ledger
from geodl.runtime.run import RunSummary, run_blocks
from geodl.tools.product import Product

# What a result may depend on, named in the manifest.
_PACKAGES = ("geodl", "torch", "numpy", "rasterio", "zarr", "dask")


@dataclass(frozen=True, kw_only=True)
class Job:
    """A model, a raster and how they meet: everything that is known before the first block.

    Parameters
    ----------
    source
        Bands as the network takes them.
    fingerprint
        Hash of ``settings``: all that changes the result.
    """

    tool: str
    source: RasterSource
    model: ModelRef
    contract: ModelContract
    options: TileOptions
    context: RunContext
    plan: TilePlan
    device: str
    area: Area | None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        return sha256_json(self.settings)

    @property
    def default_stem(self) -> str:
        return f"{self.tool}_{Path(self.source.name).stem or 'raster'}_{self.fingerprint[:8]}"

    @property
    def pixel_options(self) -> PixelOptions:
        if not isinstance(self.options.run, PixelOptions):
            raise ModelDataError(f"{self.contract.model_name} gives no pixels")
        return self.options.run

    @property
    def object_options(self) -> ObjectOptions:
        if not isinstance(self.options.run, ObjectOptions):
            raise ModelDataError(f"{self.contract.model_name} gives no objects")
        return self.options.run

    def task(self, **extra: Any) -> PixelBlocks | ObjectBlocks:
        kind = PixelBlocks if self.contract.kind == "pixels" else ObjectBlocks
        batch = self.options.batch_for(self.contract.kind, self.device, self.plan.tile_count)
        return kind(
            source=self.source,
            plan=self.plan,
            model=self.model,
            options=self.options.run,  # type: ignore[arg-type]  # of the model's own kind
            batch=batch,
            device=self.device,
            area=self.area,
            **extra,
        )


@contextmanager
def prepared(
    tool: str,
    kind: TaskKind,
    raster: Any,
    model: Any,
    model_arguments: Mapping[str, Any] | None,
    context: Mapping[str, Any] | None,
    block_size: int | None,
) -> Iterator[Job]:
    """Open the raster and the model, check that they fit, and plan.

    A trained object in memory is packed into a folder that lasts as long as the job.
    """
    where = run_context(context)
    with tempfile.TemporaryDirectory(prefix="geodl-model-") as folder:
        ref = resolve_model(model, folder)
        device = _device(where.device)
        loaded = load_model(ref, device)
        contract = loaded.contract
        if contract.kind != kind:
            raise ModelDataError(
                f"{tool} needs a model that gives {kind}; {contract.model_name} gives "
                f"{contract.kind}."
            )
        source = open_source(raster, crs=where.out_crs, resolution=where.cell_size, snap=where.snap)
        source = _as_trained(fit_bands(source, contract), contract, where)
        _check_cell_size(source.grid, contract)
        options = tile_options(contract, model_arguments)
        plan = TilePlan.make(
            source.grid,
            tile_px=options.tile_px,
            padding_px=options.padding_px,
            merge=options.merge,
            extent=_extent(where, source),
            block_px=block_size,
        )
        area = None if where.mask is None else _area(where.mask, source.grid)
        settings = {
            "tool": tool,
            "source": source.identity(),
            "model": ref.sha256,
            "plan": plan.answer(),
            "options": options.run.answer(),
            "area": None if area is None else area.fingerprint(),
        }
        yield Job(
            tool=tool,
            source=source,
            model=ref,
            contract=contract,
            options=options,
            context=where,
            plan=plan,
            device=device,
            area=area,
            settings=settings,
        )


def fit_bands(source: RasterSource, contract: ModelContract) -> RasterSource:
    """The source with its bands as the network takes them.

    Raises
    ------
    ModelDataError
        The bands cannot be told, or the pixels are of another kind than the model was trained on.
    """
    need = contract.extract_bands
    names = [contract.band_names[b] for b in need] if contract.band_names else []
    if source.count == contract.source_bands:
        numbers = [band + 1 for band in need]
    elif names and len(set(names)) == len(names) and set(names) <= set(source.band_names):
        numbers = [source.band_names.index(name) + 1 for name in names]
    else:
        trained = f" ({', '.join(contract.band_names)})" if contract.band_names else ""
        raise ModelDataError(
            f"{source.name} has {source.count} bands "
            f"({', '.join(source.band_names) or 'unnamed'}); {contract.model_name} was trained on "
            f"{contract.source_bands}{trained}. Choose the bands: "
            f"geodl.open_raster(path, bands=[...])."
        )
    if contract.dtype == "uint8" and source.dtype.name != "uint8":
        raise ModelDataError(
            f"{source.name} holds {source.dtype.name}; {contract.model_name} was trained on 8-bit "
            f"pixels and would see noise. Scale the raster as the training data was and pass "
            f'the result of geodl.open_raster(path) ... .astype("uint8").'
        )
    if numbers == list(range(1, source.count + 1)):
        return source
    return open_source(source, bands=numbers)


def _as_trained(source: RasterSource, contract: ModelContract, context: RunContext) -> RasterSource:
    """The source resampled as the training chips were, unless the caller set the cell size."""
    if contract.pixel_scale == 1 or context.cell_size is not None or context.snap is not None:
        return source
    x, y = (side / contract.pixel_scale for side in source.grid.cell_size_xy)
    return open_source(source, resolution=(x, y))


def _check_cell_size(grid: GeoGrid, contract: ModelContract) -> None:
    if contract.cell_size is None or grid.crs is None:
        return
    cell = max(grid.cell_size_xy) * metres_per_unit(grid.crs)
    least, most = (side / contract.pixel_scale for side in contract.cell_size)
    if not least * 0.8 <= cell <= most * 1.25:
        warnings.warn(
            f"The raster's cells measure {cell:.3g} m, those of the model's training data "
            f"{least:.3g} to {most:.3g} m; objects will look larger or smaller than what it knows. "
            f'Set context={{"cellSize": ...}} to resample.',
            DataWarning,
            stacklevel=2,
        )


def _device(wanted: str | None) -> str:
    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise OptionError(
            'processorType="GPU": torch sees no GPU here; use "CPU", or see `geodl doctor`.'
        )
    return wanted or ("cuda" if there else "cpu")


def _extent(context: RunContext, source: RasterSource) -> Window | None:
    if context.extent is None:
        return None
    return extent_window(context.extent, context.extent_crs, source.grid, source.name)


def _area(mask: Any, grid: GeoGrid) -> Area:
    features = read_features(mask, crs=grid.crs)
    area = Area.of(features.geometry.to_numpy())
    if not area.polygons:
        raise DataError("context mask has no polygons; give features that cover the area to map")
    return area


@contextmanager
def _torch_threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_job(
    job: Job,
    product: Product,
    finalise: Callable[[Job, Ledger, Path], Any],
    *,
    client: Any,
    progress: bool,
    future: RunFuture | None,
    store: Callable[[Job, Path], str] | None = None,
) -> Any:
    """Run a job's blocks and make its product; resumes what an earlier call left.

    Parameters
    ----------
    finalise
        Makes the product at a path from the run folder; returns what the tool returns.
    store
        Makes the store that blocks are written to, or finds it; returns its path.
    """
    client = active_client() if client is None else client
    started = time.time()
    clock = time.monotonic()
    with Ledger.open(
        product.run_folder,
        job.fingerprint,
        job.plan.layout(),
        job.settings,
        overwrite=product.overwrite,
    ) as ledger:
        if ledger.resumed:
            job = replace(job, plan=job.plan.with_layout(**ledger.layout))
        job = replace(job, model=_kept_model(job.model, ledger.folder))
        extra = {} if store is None else {"store": store(job, ledger.folder)}
        with _torch_threads(job.context.threads if client is None else None):
            summary = run_blocks(
                job.task(**extra),
                job.plan.blocks(),
                job.plan.block_count,
                ledger=ledger,
                client=client,
                progress=progress,
                name=job.tool,
                cancel=threading.Event() if future is None else future.stop,
                watch=None if future is None else future.watch,
            )
        ledger.refresh()
        before = time.monotonic()
        result = finalise(job, ledger, product.path)
        summary.seconds["finalise"] = time.monotonic() - before
        summary.wall_s = time.monotonic() - clock
        write_manifest(product.path, _manifest(job, summary, started))
        ledger.remove()
    return result


def _kept_model(model: ModelRef, run_folder: Path) -> ModelRef:
    """The model inside the run folder if it was packed for this call, so that workers see it."""
    path = Path(model.path)
    if not path.is_relative_to(tempfile.gettempdir()) or "geodl-model-" not in str(path):
        return model
    target = run_folder / "model"
    shutil.copytree(_package_folder(path), target, dirs_exist_ok=True)
    return replace(model, path=str(target if path.is_dir() else target / path.name))


def _package_folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _manifest(job: Job, summary: RunSummary, started: float) -> dict[str, Any]:
    pixels = job.plan.extent.pixels
    return {
        "tool": job.tool,
        "inputs": [{"name": job.source.name, "identity": job.source.identity()}],
        "model": {"sha256": job.model.sha256, **job.contract.describe()},
        "settings": job.settings,
        "fingerprint": job.fingerprint,
        "versions": {name: version(name) for name in _PACKAGES},
        "device": job.device,
        "layout": job.plan.layout(),
        "tiles": job.plan.tile_count,
        "blocks": summary.to_json(),
        "seconds": {stage: round(value, 3) for stage, value in summary.seconds.items()},
        "wall_s": round(summary.wall_s, 3),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "mpix_per_s": round(pixels / 1e6 / max(summary.wall_s, 1e-9), 4),
    }


def estimated_hours(job: Job) -> float:
    """Worker-hours that the job will take, from a few timed tiles of its middle block.

    The model, reading and merging are timed on one small block after a warm-up.
    """
    plan = job.plan
    few = plan.with_layout(plan.stride_px * 2, plan.stride_px * 2)
    size = few.block_px
    row = (plan.extent.row + plan.extent.row_stop) // 2 // size
    col = (plan.extent.col + plan.extent.col_stop) // 2 // size
    spec = few.block(row, col)
    task = replace(job, plan=few).task()
    task.compute(spec, task.read(spec))
    started = time.perf_counter()
    task.compute(spec, task.read(spec))
    per_pixel_s = (time.perf_counter() - started) / spec.core.pixels
    return per_pixel_s * plan.extent.pixels / 3600


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    """A call of a tool that runs a model over a raster, as its caller wrote it.

    Parameters
    ----------
    suffixes
        Formats of the product; the first is the default.
    finalise, store
        See :func:`run_job`.
    join
        Makes one result of those of several rasters that were processed separately.
    """

    tool: str
    kind: TaskKind
    raster: Any
    model: Any
    model_arguments: Mapping[str, Any] | None
    context: Mapping[str, Any] | None
    block_size: int | None
    output_name: str | os.PathLike[str] | None
    suffixes: tuple[str, ...]
    gis: Any
    overwrite: bool
    separately: bool
    client: Any
    progress: bool
    finalise: Callable[[Job, Ledger, Path], Any]
    store: Callable[[Job, Path], str] | None = None
    join: Callable[[list[Any]], Any] = list

    def run(self, *, future: bool, estimate: bool) -> Any:
        """Run now, or beside the caller, or only say how many worker-hours are expected."""
        if estimate:
            return sum(self._each(self._estimate))
        if future:
            return start(self._product)
        return self._product(None)

    def _product(self, handle: RunFuture | None) -> Any:
        if not self._several():
            return self._run_one(self.raster, self.output_name, handle)
        return self.join(self._each(lambda item, name: self._run_one(item, name, handle)))

    def _several(self) -> bool:
        return self.separately and isinstance(self.raster, (list, tuple))

    def _each(self, call: Callable[[Any, str | os.PathLike[str] | None], Any]) -> list[Any]:
        if not self._several():
            return [call(self.raster, self.output_name)]
        names: list[str | os.PathLike[str] | None] = [None] * len(self.raster)
        if self.output_name is not None:
            path = Path(self.output_name)
            names = [path.with_stem(f"{path.stem}_{k}") for k in range(len(self.raster))]
        return [call(item, name) for item, name in zip(self.raster, names, strict=True)]

    def _prepared(self, raster: Any) -> Any:
        return prepared(
            self.tool,
            self.kind,
            raster,
            self.model,
            self.model_arguments,
            self.context,
            self.block_size,
        )

    def _estimate(self, raster: Any, _: Any) -> float:
        with self._prepared(raster) as job:
            return estimated_hours(job)

    def _run_one(
        self, raster: Any, output_name: str | os.PathLike[str] | None, handle: RunFuture | None
    ) -> Any:
        with self._prepared(raster) as job:
            product = Product.at(
                output_name,
                suffixes=self.suffixes,
                default_stem=job.default_stem,
                gis=self.gis,
                overwrite=self.overwrite,
            )
            return run_job(
                job,
                product,
                self.finalise,
                client=self.client,
                progress=self.progress,
                future=handle,
                store=self.store,
            )
