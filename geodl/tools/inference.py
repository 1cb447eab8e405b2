"""Running a job: its blocks, its product, its manifest; now, later, or as an estimate."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from geodl.base.errors import BlockError, DataError, OptionError, OutputExistsError
from geodl.base.options import as_bool
from geodl.base.places import is_remote, place
from geodl.bundle import ModelRef
from geodl.core.contract import TaskKind
from geodl.io.manifest import write_manifest
from geodl.io.raster import as_array
from geodl.io.raster_folder import listed
from geodl.io.source import open_product
from geodl.io.source_files import source_files
from geodl.io.vector import read_features
from geodl.io.writers import FEATURE_SUFFIXES
from geodl.nets.threads import torch_threads
from geodl.runtime.connect import chosen_client
from geodl.runtime.future import RunFuture, start
from geodl.runtime.ledger import Ledger
from geodl.runtime.progress import say
from geodl.runtime.report import check_report, reported
from geodl.runtime.run import RunSummary, run_blocks
from geodl.runtime.speed import Speed
from geodl.tools.job import Job, prepared
from geodl.tools.precision import check_precision
from geodl.tools.preview import RunPlan, estimated_hours, planned
from geodl.tools.product import Product

# What a result may depend on, named in the manifest.
_PACKAGES = ("geodl", "torch", "numpy", "rasterio", "zarr", "dask")


def run_job(
    job: Job,
    plan: RunPlan,
    product: Product,
    finalise: Callable[[Job, Ledger, Path], Any],
    *,
    client: Any,
    progress: bool,
    future: RunFuture | None,
    store: Callable[[Job, Path], str] | None = None,
    making: Mapping[str, Any] | None = None,
) -> Any:
    """Run a job's blocks and make its product; resumes what an earlier call left.

    Parameters
    ----------
    plan
        Told to the user, and kept in the manifest.
    finalise
        Makes the product at a path from the run folder; returns what the tool returns.
    store
        Makes the store that blocks are written to, or finds it; returns its path.
    making
        How ``finalise`` makes the product; kept in the manifest.
    """
    started = time.time()
    clock = time.monotonic()
    if progress:
        say(str(plan))
    with Ledger.open(
        product.run_folder,
        job.fingerprint,
        job.plan.layout(),
        job.settings,
        overwrite=product.overwrite,
    ) as ledger:
        if ledger.resumed:
            job = replace(job, plan=job.plan.with_layout(**ledger.layout))
        job = replace(job, model=kept_model(job.model, ledger.folder))
        extra = {} if store is None else {"store": store(job, ledger.folder)}
        with torch_threads(job.context.threads if client is None else None):
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
                pixels=job.plan.extent.pixels,
            )
        before = time.monotonic()
        result = finalise(job, ledger, product.path)
        summary.seconds["finalise"] = time.monotonic() - before
        summary.wall_s = time.monotonic() - clock
        processes = 1 if client is None else worker_count(client)
        speed = Speed.of(summary, job.plan.extent.pixels, processes)
        if progress:
            say(str(speed))
        manifest = _manifest(job, plan, summary, speed, started)
        write_manifest(product.path, manifest | {"product": dict(making or {})})
        ledger.remove()
    product.publish()
    return result


def kept_model(model: ModelRef, run_folder: Path) -> ModelRef:
    """The model inside the run folder if it was packed for this call, so that workers see it."""
    path = Path(model.path)
    if is_remote(run_folder):
        # A package is read from files: workers must see this machine's, as the preflight tells.
        return model
    if not path.is_relative_to(tempfile.gettempdir()) or "geodl-model-" not in str(path):
        return model
    target = run_folder / "model"
    shutil.copytree(_package_folder(path), target, dirs_exist_ok=True)
    return replace(model, path=str(target if path.is_dir() else target / path.name))


def _package_folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def worker_count(client: Any) -> int:
    return max(1, len(client.scheduler_info(n_workers=-1)["workers"]))


def _manifest(
    job: Job, plan: RunPlan, summary: RunSummary, speed: Speed, started: float
) -> dict[str, Any]:
    return {
        "tool": job.tool,
        "inputs": [
            {"name": source.name, "identity": source.identity()}
            for source in getattr(job.source, "inputs", (job.source,))
        ],
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
        "mpix_per_s": round(speed.overall, 4),
        "mpix_per_s_by_stage": {stage: round(rate, 4) for stage, rate in speed.stages.items()},
        "device_busy": round(speed.busy, 4),
        "memory_mb": {
            "planned": round(plan.memory.total / 2**20),
            "peak": round(summary.peak_bytes / 2**20),
        },
    }


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    """A call of a tool that runs a model over a raster, as its caller wrote it.

    Parameters
    ----------
    suffixes
        Formats of the product; the first is the default.
    finalise, store, making
        See :func:`run_job`.
    report
        Page that tells what a client's workers did.
    check
        Refuses, before the first block, what the model and the product leave no room for.
    reopens
        A finished product, opened, is what ``finalise`` returned: several rasters go on after a
        crash without those that are finished.
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
    report: str | os.PathLike[str] | None
    finalise: Callable[[Job, Ledger, Path], Any]
    store: Callable[[Job, Path], str] | None = None
    making: Mapping[str, Any] | None = None
    check: Callable[[Job, Product], None] | None = None
    reopens: bool = False
    join: Callable[[list[Any]], Any] = list

    def run(self, *, future: bool, estimate: bool, dry_run: bool = False) -> Any:
        """Run now, or beside the caller, or only say what is expected.

        Returns
        -------
        What ``finalise`` returns; with ``future`` a :class:`RunFuture` of it, with ``estimate``
        worker-hours, with ``dry_run`` a :class:`RunPlan`, or a list of them.
        """
        future, estimate = as_bool(future, "future"), as_bool(estimate, "estimate")
        dry_run = as_bool(dry_run, "dry_run")
        if self._several() and not self.raster:
            raise OptionError("input_raster is an empty list; give at least one raster.")
        # Once, and here: the work may be done in another thread, where another client is active.
        call = replace(self, client=chosen_client(self.client), raster=listed(self.raster))
        if dry_run:
            plans = call._each(call._plan)
            return plans if call._several() else plans[0]
        if estimate:
            return sum(call._each(call._estimate))
        report = check_report(call.client, self.report)

        def make(handle: RunFuture | None) -> Any:
            with reported(call.client, report):
                return call._product(handle)

        return start(make) if future else make(None)

    def _product(self, handle: RunFuture | None) -> Any:
        if not self._several():
            return self._run_one(self.raster, self.output_name, handle)
        results: list[Any] = []
        finished: list[Path] = []
        failures: list[BlockError] = []
        for number, (item, name) in enumerate(self._named()):
            if handle is not None:
                handle.begin(number, len(self.raster))
            try:
                results.append(self._run_one(item, name, handle, finished))
            except BlockError as error:
                failures.append(error)
        if failures:
            raise BlockError(
                f"{len(failures)} of {len(self.raster)} rasters have no product, the others are "
                f"finished. {failures[0]}"
            ) from failures[0]
        if len(finished) == len(self.raster):
            raise OutputExistsError(
                f"{finished[0]} and the products of all other rasters exist already; pass "
                f"overwrite=True to replace them, or another output_name."
            )
        return self.join(results)

    def _several(self) -> bool:
        return self.separately and isinstance(self.raster, (list, tuple))

    def _each(self, call: Callable[[Any, str | os.PathLike[str] | None], Any]) -> list[Any]:
        return [call(item, name) for item, name in self._named()]

    def _named(self) -> list[tuple[Any, str | os.PathLike[str] | None]]:
        """Each raster with the name of its product."""
        if not self._several() or self.output_name is None:
            rasters = self.raster if self._several() else [self.raster]
            return [(raster, self.output_name) for raster in rasters]
        path = place(self.output_name)
        return [
            (raster, str(path.with_stem(f"{path.stem}_{k}")))
            for k, raster in enumerate(self.raster)
        ]

    def _prepared(self, raster: Any, client: Any = None) -> Any:
        return prepared(
            self.tool,
            self.kind,
            raster,
            self.model,
            self.model_arguments,
            self.context,
            self.block_size,
            client,
        )

    def _estimate(self, raster: Any, _: Any) -> float:
        with self._prepared(raster) as job:
            return self._hours(job)

    def _plan(self, raster: Any, output_name: str | os.PathLike[str] | None) -> RunPlan:
        with self._prepared(raster, self.client) as job:
            if self.gis is None:
                # A catalog would make the item's folder.
                self._checked(job, output_name)
            job, plan = self._planned(job, self.client)
            # Only workers can tell what their GPUs take.
            here = self.client is None or job.device == "cpu"
            return replace(plan, worker_hours=self._hours(job) if here else None)

    def _planned(self, job: Any, client: Any) -> tuple[Any, Any]:
        """The job as it will be run, and what is said of it."""
        check_precision(job, client)
        return planned(job, client, fixed_block=self.block_size is not None)

    def _hours(self, job: Any) -> float:
        """Worker-hours that a job will take."""
        return estimated_hours(job)

    def _checked(self, job: Job, output_name: str | os.PathLike[str] | None) -> Product:
        """Where a job's product goes, once nothing stands against it."""
        product = Product.at(
            output_name,
            suffixes=self.suffixes,
            default_stem=job.default_stem,
            gis=self.gis,
            overwrite=self.overwrite,
            made_as={"fingerprint": job.fingerprint, "product": dict(self.making or {})},
            kept=self._several() and self.reopens,
        )
        product.spare(source_files(job.source))
        if self.check is not None:
            self.check(job, product)
        return product

    def _run_one(
        self,
        raster: Any,
        output_name: str | os.PathLike[str] | None,
        handle: RunFuture | None,
        finished: list[Path] | None = None,
    ) -> Any:
        """One raster's result; what an earlier call has finished is noted and opened again."""
        with self._prepared(raster, self.client) as job:
            product = self._checked(job, output_name)
            if product.finished and finished is not None and self.reopens:
                finished.append(product.path)
                return opened_again(job, product.path)
            job, plan = self._planned(job, self.client)
            return run_job(
                job,
                plan,
                product,
                self.finalise,
                client=self.client,
                progress=self.progress,
                future=handle,
                store=self.store,
                making=self.making,
            )


def opened_again(job: Job, path: Path) -> Any:
    """A finished product as the call that made it returned it."""
    if path.suffix.lower() in FEATURE_SUFFIXES:
        result = read_features(str(path), crs=job.source.grid.crs, may_be_empty=True)
    else:
        result = as_array(open_product(str(path)))
    result.attrs["path"] = str(path)
    return result


def together(parts: list[Any]) -> Any:
    """Features of several rasters as one layer, in the CRS of the first.

    Raises
    ------
    DataError
        Some lie in pixel space and some on the ground.
    """
    import pandas as pd

    first = parts[0]
    crs = getattr(first, "crs", None)
    if any((getattr(part, "crs", None) is None) != (crs is None) for part in parts):
        raise DataError(
            "some of the rasters have a CRS and some have none: their features make no one layer. "
            "The products are written."
        )
    # Also where it is the same CRS in other words, of which pandas would make objects.
    moved = [part if crs is None else part.to_crs(crs) for part in parts]
    joined = pd.concat(moved, ignore_index=True)
    joined.attrs = {"path": [part.attrs["path"] for part in parts]}
    return joined
