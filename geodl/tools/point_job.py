"""A model over a cloud: sort, run tile by tile, make the product; resumable between all."""

from __future__ import annotations

import math
import tempfile
import threading
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from geodl.base.errors import DataWarning, ModelDataError, OptionError
from geodl.base.files import sha256_json
from geodl.base.options import as_float
from geodl.bundle import ModelRef, load_model, resolve_model
from geodl.core.contract import ModelContract
from geodl.core.points import PointInput, PointPlan, lattice_index
from geodl.infer.points import needed_dimensions
from geodl.io.cloud import Cloud, warn_of_degrees
from geodl.io.manifest import write_manifest
from geodl.io.point_cells import PartSpec, SortBlocks, SortedCloud, part_stem
from geodl.io.points import cloud_of
from geodl.runtime.future import RunFuture
from geodl.runtime.ledger import Ledger
from geodl.runtime.run import RunSummary, run_blocks
from geodl.tools.device import run_device
from geodl.tools.inference import kept_model, worker_count
from geodl.tools.point_fit import check_dimensions, check_unit
from geodl.tools.preview import PointRunPlan
from geodl.tools.product import Product

# Points of a tile with its buffer, as far as the density of the whole cloud tells; up to three
# tiles are in memory, some 100 MB per million points. Blocks at a seam are run for both tiles: at
# 25 points per m2 and blocks of 50 m that is a quarter more work, and half as much again in tiles
# of a million points.
TILE_POINTS = 2_000_000
# Small clouds are cut so that each worker has a few tiles, but not into seams only.
_TILES_OF_WORKER = 3
_LEAST_TILE_POINTS = 500_000
# Dense clouds are cut into smaller tiles, down to one cell.
_CELLS_PER_TILE = 16
_MOST_TILE_POINTS = 4_000_000
# How often each point is read: tiles of less than half their buffer are slow, and of less than a
# fifteenth hardly end.
_WARNED_TIMES, _MOST_TIMES = 25.5, 1000
_PACKAGES = ("geodl", "torch", "numpy", "laspy", "lazrs", "dask")
_TRIED_TILES = 4


@dataclass(frozen=True, kw_only=True)
class PointRun(ABC):
    """A model, a cloud and how they meet.

    Parameters
    ----------
    size, buffer
        Of tiles, in units of the CRS.
    fixed
        False lets tiles be halved where points lie denser than the headers tell.
    """

    cloud: Cloud
    model: ModelRef
    contract: ModelContract
    points: PointInput
    size: float
    buffer: float
    device: str
    fixed: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        return sha256_json(self.settings)

    @property
    def cell(self) -> float:
        return self.size / _CELLS_PER_TILE

    def layout(self) -> dict[str, Any]:
        return {"size": self.size, "buffer": self.buffer, "fixed": self.fixed}

    def plan(self, cloud: SortedCloud) -> PointPlan:
        """The tiles of the sorted cloud; the same for each run over the same points."""
        size, cells = self.size, _CELLS_PER_TILE
        counts = cloud.tile_counts(cells)
        while (
            not self.fixed
            and max(counts.values(), default=0) > _MOST_TILE_POINTS
            and cells > 1
            and size >= 2 * self.points.block_size
        ):
            size, cells = size / 2, cells // 2
            counts = cloud.tile_counts(cells)
        return PointPlan(size=size, buffer=self.buffer, tiles=tuple(counts))

    def run_plan(self, cloud: SortedCloud) -> PointPlan:
        """The tiles that a run does: those that hold points, and what else may own a result."""
        return self.plan(cloud)

    @abstractmethod
    def task(self, cloud: SortedCloud, folder: Path) -> Any:
        """The block task over the sorted cloud; what it keeps in files goes into ``folder``."""

    @abstractmethod
    def finish(self, ledger: Ledger, plan: PointPlan, path: Path) -> Any:
        """Make the product at ``path`` of what the tiles left in the run folder."""


@contextmanager
def matched(
    points: Any,
    model: Any,
    *,
    tool: str,
    kind: str,
    gives: str,
    tile_size: float | None,
    buffer: float | None,
    client: Any,
) -> Iterator[dict[str, Any]]:
    """Open cloud and model, and check that they fit.

    Parameters
    ----------
    tool
        Name of the run.
    kind, gives
        Of the model that the tool takes, and what such a model does, for the message.

    Returns
    -------
    The arguments of a :class:`PointRun`. ``settings`` hold what every run's result depends on; a
    tool adds its own. The model's files last as long as the context.

    Raises
    ------
    ModelDataError
        The model is for something else, or a file lacks a dimension that it takes.
    OptionError
        A size that is none.
    """
    with tempfile.TemporaryDirectory(prefix="geodl-model-") as folder:
        ref = resolve_model(model, folder)
        device = run_device(None, client)
        contract = load_model(ref, device if client is None else "cpu").contract
        spec = contract.points
        if contract.kind != kind or spec is None:
            raise ModelDataError(
                f"{tool} needs a model that {gives}; {contract.model_name} gives {contract.kind}."
            )
        cloud = cloud_of(points)
        check_dimensions(cloud, spec, contract.model_name)
        check_unit(cloud, spec, contract.model_name)
        warn_of_degrees(cloud.crs, cloud.name, spec.block_size)
        workers = 1 if client is None else worker_count(client)
        size, pad = tile_sizes(cloud, spec, tile_size, buffer, workers)
        settings: dict[str, Any] = {"tool": tool, "source": cloud.identity(), "model": ref.sha256}
        if pad < spec.block_size:
            # Blocks are cut short at the buffer's edge, so that tiles change the result.
            settings["tiles"] = [size, pad]
        yield {
            "cloud": cloud,
            "model": ref,
            "contract": contract,
            "points": spec,
            "size": size,
            "buffer": pad,
            "fixed": tile_size is not None,
            "device": device,
            "settings": settings,
        }


def tile_sizes(
    cloud: Cloud,
    spec: PointInput,
    tile_size: float | None,
    buffer: float | None,
    workers: int = 1,
) -> tuple[float, float]:
    """Tiles of whole blocks that hold :data:`TILE_POINTS` or less; a buffer of one block.

    Raises
    ------
    OptionError
        A size that is none, or that would read each point more than a thousand times.
    """
    side = spec.block_size
    pad = side if buffer is None else as_float(buffer, "buffer", minimum=0)
    if tile_size is not None:
        return _given_size(tile_size, pad), pad
    extent = cloud.extent
    if extent is None or not cloud.count:
        return 2 * side, pad
    area = max((extent[2] - extent[0]) * (extent[3] - extent[1]), side * side)
    most = TILE_POINTS
    if workers > 1:
        most = min(most, max(_LEAST_TILE_POINTS, cloud.count // (_TILES_OF_WORKER * workers)))
    wanted = math.sqrt(most * area / cloud.count) - 2 * pad
    return max(2 * side, round(wanted / side) * side), pad


def _given_size(tile_size: float, pad: float) -> float:
    """The caller's size of tiles, held to their buffer."""
    size = as_float(tile_size, "tile_size", minimum=1e-9)
    times = (1 + 2 * pad / size) ** 2
    if times > _WARNED_TIMES:
        what = (
            f"tile_size={size:g} with a buffer of {pad:g} reads each point {times:.0f} times; "
            f"tiles of {2 * pad:g} read it 4 times, those chosen without tile_size fewer."
        )
        if times > _MOST_TIMES:
            raise OptionError(what)
        warnings.warn(f"{what} The run will be slow.", DataWarning, stacklevel=5)
    return size


def run_points(
    job: PointRun, product: Product, *, client: Any, progress: bool, future: RunFuture | None
) -> Any:
    """Do all that the run folder does not hold yet, and write product and manifest.

    Returns
    -------
    What ``job.finish`` returns.
    """
    started, clock = time.time(), time.monotonic()
    with Ledger.open(
        product.run_folder,
        job.fingerprint,
        job.layout(),
        dict(job.settings),
        overwrite=product.overwrite,
    ) as ledger:
        if ledger.resumed:
            job = replace(job, **ledger.layout)
        job = replace(job, model=kept_model(job.model, ledger.folder))
        cancel = threading.Event() if future is None else future.stop
        options = {"client": client, "progress": progress, "cancel": cancel}
        cloud, sorting = sorted_cloud(job, ledger.folder / "sorted", options)
        plan = job.run_plan(cloud)
        summary = run_blocks(
            job.task(cloud, ledger.folder),
            plan.blocks(),
            len(plan),
            ledger=ledger,
            name=job.settings["tool"],
            watch=None if future is None else future.watch,
            **options,
        )
        before = time.monotonic()
        result = job.finish(ledger, plan, product.path)
        summary.seconds["finalise"] = time.monotonic() - before
        summary.seconds["sort"] = sum(sorting.seconds.values())
        summary.wall_s = time.monotonic() - clock
        write_manifest(product.path, point_manifest(job, plan, summary, started))
        ledger.remove()
    return result


def sorted_cloud(
    job: PointRun, folder: Path, options: Mapping[str, Any]
) -> tuple[SortedCloud, RunSummary]:
    """The first pass: the cloud in files by cell."""
    folder.mkdir(exist_ok=True)
    task = SortBlocks(
        cloud=job.cloud,
        names=needed_dimensions(job.points),
        cell=job.cell,
        folder=folder,
    )
    parts = job.cloud.parts
    with Ledger.open(folder, job.fingerprint, job.layout()) as ledger:
        summary = run_blocks(
            task,
            (PartSpec(part) for part in parts),
            len(parts),
            ledger=ledger,
            name="sort_points",
            **options,
        )
    stems = [part_stem(part) for part in parts]
    return SortedCloud.gather(folder, stems, job.cell), summary


def estimated_point_hours(job: PointRun) -> float:
    """Worker-hours that a run will take, from one part and one tile of it, each timed."""
    cloud = job.cloud
    if not cloud.parts:
        return 0.0
    middle = len(cloud.parts) // 2
    few = replace(
        cloud,
        parts=cloud.parts[middle : middle + 1],
        counts=cloud.counts[middle : middle + 1],
    )
    started = time.perf_counter()
    names = needed_dimensions(job.points)
    sample = SortedCloud.in_memory(few, names, cell=job.cell)
    # Decoded here, and decoded and packed once more for the copy.
    per_point_s = 3 * (time.perf_counter() - started) / max(1, few.count)
    if len(job.plan(sample)):
        plan = replace(job.plan(sample), buffer=0.0)
        with tempfile.TemporaryDirectory() as folder:
            task = job.task(sample, Path(folder))
            # The first tile of a part may be a sliver of it.
            spec, loaded = max(
                ((spec, task.read(spec)) for spec in islice(plan.blocks(), _TRIED_TILES)),
                key=lambda entry: len(entry[1]),
            )
            load_model(job.model, job.device)
            started = time.perf_counter()
            task.compute(spec, loaded)
            per_point_s += (time.perf_counter() - started) / max(1, len(loaded))
    return per_point_s * cloud.count / 3600


def point_plan(job: PointRun, output: Path) -> PointRunPlan:
    """What a run will do."""
    cloud, size = job.cloud, job.size
    extent = cloud.extent if cloud.count else None
    tiles = 0
    if extent is not None:
        columns, rows = (
            lattice_index(np.array(ends), size) for ends in (extent[0::2], extent[1::2])
        )
        tiles = int((columns[1] - columns[0] + 1) * (rows[1] - rows[0] + 1))
    return PointRunPlan(
        tool=job.settings["tool"],
        source=cloud.name,
        output=str(output),
        files=len(cloud.files),
        points=cloud.count,
        tiles=tiles,
        tile_size=size,
        buffer=job.buffer,
        worker_hours=estimated_point_hours(job),
    )


def point_manifest(
    job: PointRun, plan: PointPlan, summary: RunSummary, started: float
) -> dict[str, Any]:
    """What stands beside a product of points."""
    count = job.cloud.count
    return {
        "tool": job.settings["tool"],
        "inputs": [
            {"name": file.name, "identity": file.identity(), "points": file.count}
            for file in job.cloud.files
        ],
        "model": {"sha256": job.model.sha256, **job.contract.describe()},
        "settings": dict(job.settings),
        "fingerprint": job.fingerprint,
        "versions": {name: version(name) for name in _PACKAGES},
        "device": job.device,
        "layout": job.layout(),
        "tiles": len(plan),
        "points": count,
        "blocks": summary.to_json(),
        "seconds": {stage: round(value, 3) for stage, value in summary.seconds.items()},
        "wall_s": round(summary.wall_s, 3),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "points_per_s": round(count / max(summary.wall_s, 1e-9), 1),
    }
