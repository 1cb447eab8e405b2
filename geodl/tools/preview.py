"""What a run will do and take, told before its first block."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import psutil  # type: ignore[import-untyped]
import torch

from geodl.base.errors import PlanError
from geodl.bundle import load_model
from geodl.core.plan import BlockSpec
from geodl.infer.memory import LIBRARY_BYTES, Memory, network_bytes
from geodl.infer.pixels import PixelOptions
from geodl.nets.memory import free_bytes
from geodl.tools.job import Job, product_bands

AnyJob = TypeVar("AnyJob", bound=Job)

# Dask pauses a worker at 80 % of its memory.
_SHARE_OF_LIMIT = 0.8
# Blocks of a few tiles that an estimate times, and windows in which it looks for data.
_TIMED_BLOCKS = 3
_LOOKS = 64


class BlockRunPlan:
    """What plans of runs over rasters, pixels or features, tell in the same words."""

    memory: Memory
    memory_limit: int | None
    worker_hours: float | None

    def needs(self) -> str:
        """Memory and time, for people."""
        parts = [f"{gigabytes(self.memory.total)} of memory for each process"]
        if self.memory_limit is not None:
            parts.append(f" of {gigabytes(self.memory_limit)}")
        if self.worker_hours is not None:
            parts.append(f"; about {duration(self.worker_hours)} of one worker")
        return "".join(parts)

    def to_json(self) -> dict[str, Any]:
        found = asdict(self)  # type: ignore[call-overload]  # each plan is a dataclass
        found["memory"]["total"] = self.memory.total
        return dict(found)


@dataclass(frozen=True, kw_only=True)
class RunPlan(BlockRunPlan):
    """A run on paper.

    Parameters
    ----------
    tool, raster
        What runs, over what.
    rows, columns, blocks, block_px, tiles, tile_px, padding_px
        The grid of the run.
    memory
        Of each process that does blocks.
    memory_limit
        Bytes that each of them has; None where nothing says.
    worker_hours
        From a few timed tiles; None where nobody asked.
    output_bytes
        Of a raster before compression; None for features.
    """

    tool: str
    raster: str
    rows: int
    columns: int
    blocks: int
    block_px: int
    tiles: int
    tile_px: int
    padding_px: int
    memory: Memory
    memory_limit: int | None
    worker_hours: float | None = None
    output_bytes: int | None = None

    def __str__(self) -> str:
        told = (
            f"{self.tool} of {self.raster}: {self.columns} x {self.rows} px in {self.blocks} "
            f"blocks of {self.block_px} px, {self.tiles} tiles of {self.tile_px} px (padding "
            f"{self.padding_px}); {self.needs()}"
        )
        if self.output_bytes is None:
            return told
        return f"{told}; at most {gigabytes(self.output_bytes)} of output before compression"


@dataclass(frozen=True, kw_only=True)
class PointRunPlan:
    """A run over points on paper.

    Parameters
    ----------
    tool, source, output
        What runs, over what, and where the product goes.
    tiles
        At most; those without a point are not run.
    tile_size, buffer
        In units of the CRS.
    worker_hours
        From one part and one tile, each timed.
    """

    tool: str
    source: str
    output: str
    files: int
    points: int
    tiles: int
    tile_size: float
    buffer: float
    worker_hours: float

    def __str__(self) -> str:
        return (
            f"{self.tool} of {self.source}: {self.points} points in {self.files} files, at most "
            f"{self.tiles} tiles of {self.tile_size:g} units (buffer {self.buffer:g}), to "
            f"{self.output}; about {duration(self.worker_hours)} of one worker"
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def planned(job: Job, client: Any, *, fixed_block: bool = True) -> tuple[Job, RunPlan]:
    """The job with blocks that fit the memory of whoever does them, and its plan.

    Raises
    ------
    PlanError
        See :func:`fitted`.
    """
    job, memory, limit = fitted(job, client, fixed_block=fixed_block)
    return job, _run_plan(job, memory, limit)


def fitted(
    job: AnyJob, client: Any, *, fixed_block: bool = True
) -> tuple[AnyJob, Memory, int | None]:
    """The job with blocks that fit whoever does them; memory and its limit in each process.

    Parameters
    ----------
    fixed_block
        The caller chose the block's size; otherwise it is halved until it fits. The result does
        not depend on it.

    Raises
    ------
    PlanError
        Not even the smallest block fits a worker.
    """
    process = _Process.of(job, client)
    while not fixed_block and not process.fits(job):
        smaller = job.with_smaller_blocks()
        if smaller is None:
            break
        job = smaller
    # A machine without workers may still swap, or others on it may end.
    if client is not None and not process.fits(job):
        raise PlanError(_too_much(process, job, fixed_block))
    return job, process.memory(job), process.limit


def _run_plan(job: Job, memory: Memory, limit: int | None) -> RunPlan:
    plan, output = job.plan, None
    if isinstance(job.options.run, PixelOptions):
        bands, dtype, _, _ = product_bands(job)
        output = plan.extent.pixels * bands * dtype.itemsize
    return RunPlan(
        tool=job.tool,
        raster=job.source.name,
        rows=plan.extent.height,
        columns=plan.extent.width,
        blocks=plan.block_count,
        block_px=plan.block_px,
        tiles=plan.tile_count,
        tile_px=plan.tile_px,
        padding_px=plan.padding_px,
        memory=memory,
        memory_limit=limit,
        output_bytes=output,
    )


def _too_much(process: _Process, job: Job, fixed_block: bool) -> str:
    memory = process.memory(job)
    limit, total = gigabytes(process.limit or 0), gigabytes(memory.total)
    parts = [gigabytes(part) for part in (memory.base, memory.network, memory.blocks)]
    return (
        f"each worker has {limit}, of which Dask lets {_SHARE_OF_LIMIT:.0%} be used; blocks of "
        f"{job.plan.block_px} px need {total} ({parts[0]} libraries and weights, {parts[1]} for a "
        f"batch, {parts[2]} for pixels). Give workers more memory, or choose a smaller "
        f"{'block_size' if fixed_block else 'batch_size or tile_size'}."
    )


def estimated_hours(job: Job) -> float:
    """Worker-hours that the job will take.

    Blocks of a few tiles are timed in several places where there is data, after a warm-up, and
    the share of the extent that has data is counted in windows all over it.
    """
    few = _few_tiles(job)
    task, plan = few.task(), few.plan
    full = [spec for spec in spread(few, _LOOKS) if task.valid(spec, task.read(spec)).any()]
    share = len(full) / min(_LOOKS, plan.block_count)
    if not full:
        return 0.0
    chosen = full[:: max(1, len(full) // _TIMED_BLOCKS)][:_TIMED_BLOCKS]
    task.compute(chosen[0], task.read(chosen[0]))
    spent, pixels = 0.0, 0
    for spec in chosen:
        started = time.perf_counter()
        task.compute(spec, task.read(spec))
        spent += time.perf_counter() - started
        pixels += spec.core.pixels
    return spent / pixels * share * plan.extent.pixels / 3600


def _few_tiles(job: Job) -> Job:
    """The job in blocks of whole batches of tiles, as nearly square as may be."""
    batch = job.tiles_at_once
    side = max(2, math.ceil(math.sqrt(batch)))
    while side * side % batch and side < 2 * batch:
        side += 1
    px = min(side * job.plan.stride_px, job.plan.block_px)
    return replace(job, plan=job.plan.with_layout(px, px))


def spread(job: Job, count: int) -> Iterator[BlockSpec]:
    """Blocks all over the extent, at most ``count``."""
    plan, total = job.plan, job.plan.block_count
    across = -(-plan.extent.col_stop // plan.block_px) - plan.extent.col // plan.block_px
    first_row, first_col = plan.extent.row // plan.block_px, plan.extent.col // plan.block_px
    taken = min(count, total)
    for k in range(taken):
        # Steps of the golden ratio: no pattern of rows or columns is met again and again.
        at = k if taken == total else int((k + 0.5) * 0.6180339887 % 1 * total)
        yield plan.block(first_row + at // across, first_col + at % across)


@dataclass(frozen=True, slots=True)
class _Process:
    """What each process that does blocks has and needs, whatever the size of its blocks."""

    base: int
    network: int
    blocks_at_once: int
    limit: int | None

    @classmethod
    def of(cls, job: Job, client: Any) -> _Process:
        model = load_model(job.model, job.device if client is None else "cpu")
        network = network_bytes(model, job.tile_px, job.tiles_at_once) if job.device == "cpu" else 0
        if client is None:
            held = psutil.Process().memory_info().rss
            return cls(held, network, 1, held + free_bytes(torch.device("cpu")))
        weights = sum(p.numel() * p.element_size() for p in model.net.parameters())
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        limits = [worker["memory_limit"] for worker in workers if worker["memory_limit"]]
        threads = max((worker["nthreads"] for worker in workers), default=1)
        return cls(LIBRARY_BYTES + weights, network, threads, min(limits, default=None))

    def memory(self, job: Job) -> Memory:
        return Memory(
            base=self.base,
            network=self.network,
            blocks=job.blocks_bytes() * self.blocks_at_once,
        )

    def fits(self, job: Job) -> bool:
        return self.limit is None or self.memory(job).total <= self.limit * _SHARE_OF_LIMIT


def gigabytes(size: float) -> str:
    """Bytes for people."""
    return f"{size / 2**30:.2f} GB" if size >= 2**28 else f"{size / 2**20:.1f} MB"


def duration(hours: float) -> str:
    """Hours for people."""
    if hours >= 1:
        return f"{hours:.1f} hours"
    return f"{hours * 60:.1f} minutes" if hours >= 1 / 60 else f"{hours * 3600:.1f} seconds"
