"""A classifier of chips, a raster and features: all that is settled before the first block."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import shapely

from geodl.base.errors import ModelDataError, OptionError
from geodl.base.options import as_bool, as_float, as_int, as_mapping, check_known
from geodl.bundle import load_model, resolve_model
from geodl.core.contract import ChipCut
from geodl.core.grid import GeoGrid
from geodl.infer.chips import ChipPlan
from geodl.infer.labels import LabelBlocks, LabelOptions
from geodl.infer.memory import Memory, chip_bytes
from geodl.infer.options import run_context
from geodl.io.extent import extent_window
from geodl.io.vector import features_identity, features_on_grid
from geodl.tools.device import run_device
from geodl.tools.inference import ToolCall
from geodl.tools.job import Job, check_cell_size
from geodl.tools.job_source import job_source
from geodl.tools.preview import BlockRunPlan, fitted

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

# Chips at once. On a CPU so many that a batch has the pixels of eight tiles of 256: more gain
# nothing there and cost memory, while the calls of a batch of fewer small chips take longer than
# their arithmetic.
_BATCH = 64
_CPU_BATCH, _CPU_TILE_PX = 8, 256
# Blocks of chips are not made smaller than this to save memory.
_LEAST_BLOCK_PX = 64
# A chip of this many timed for an estimate.
_TIMED_CHIPS = 32


@dataclass(frozen=True, kw_only=True)
class LabelJob(Job):
    """A classifier of chips, a raster and features.

    Parameters
    ----------
    frame
        The features, or None for the image as a whole.
    labels
        How the classifier is run.
    several
        Whether a chip has any number of classes.
    """

    plan: ChipPlan  # type: ignore[assignment]  # it has what run_job asks of a plan
    frame: GeoDataFrame | None
    labels: LabelOptions
    batch: int
    several: bool

    @property
    def tiles_at_once(self) -> int:
        # Batches have one shape and are filled up: few features far apart would cost as much as
        # many in large ones.
        each = self.plan.chips_together
        return max(1, min(self.batch, 1 << max(0, each - 1).bit_length()))

    @property
    def tile_px(self) -> int:
        return self.contract.tile_px

    def blocks_bytes(self) -> int:
        return chip_bytes(self.plan, self.source, self.tile_px)

    def with_smaller_blocks(self) -> Self | None:
        if self.plan.block_px <= _LEAST_BLOCK_PX:
            return None
        return replace(self, plan=self.plan.with_layout(self.plan.block_px // 2))

    def task(self, **extra: Any) -> LabelBlocks:  # type: ignore[override]
        return LabelBlocks(
            source=self.source,
            model=self.model,
            cut=self.plan.cut,
            tile_px=self.contract.tile_px,
            options=self.labels,
            batch=self.tiles_at_once,
            device=self.device,
            **extra,
        )


@dataclass(frozen=True, kw_only=True)
class LabelCall(ToolCall):
    """A call of ``classify_objects``.

    Parameters
    ----------
    features
        The layer, or None for whole images.
    columns
        Names for label and confidence.
    """

    features: GeoDataFrame | None
    columns: tuple[str, str]

    def _prepared(self, raster: Any, client: Any = None) -> Any:
        return _prepared(self, raster, client)

    def _planned(self, job: LabelJob, client: Any) -> tuple[LabelJob, LabelPlan]:
        job, memory, limit = fitted(job, client, fixed_block=self.block_size is not None)
        plan = job.plan
        return job, LabelPlan(
            tool=job.tool,
            raster=job.source.name,
            features=len(plan.inside),
            chips=plan.tile_count,
            blocks=plan.block_count,
            block_px=plan.block_px,
            memory=memory,
            memory_limit=limit,
        )

    def _hours(self, job: LabelJob) -> float:
        return estimated_hours(job)


@dataclass(frozen=True, kw_only=True)
class LabelPlan(BlockRunPlan):
    """What a run will do, before it starts: features, those of them with a chip, and blocks."""

    tool: str
    raster: str
    features: int
    chips: int
    blocks: int
    block_px: int
    memory: Memory
    memory_limit: int | None
    worker_hours: float | None = None

    def __str__(self) -> str:
        return (
            f"{self.tool} of {self.raster}: {self.chips} chips of {self.features} features in "
            f"{self.blocks} blocks of {self.block_px} px; {self.needs()}"
        )


@contextmanager
def _prepared(call: LabelCall, raster: Any, client: Any) -> Iterator[LabelJob]:
    """Open the raster and the model, check that they fit, and plan the chips."""
    where = run_context(call.context)
    if where.mask is not None:
        raise OptionError("classify_objects takes no context mask; leave out features instead.")
    with tempfile.TemporaryDirectory(prefix="geodl-model-") as folder:
        ref = resolve_model(call.model, folder)
        device = run_device(where.device, client)
        loaded = load_model(ref, device if client is None else "cpu")
        contract = loaded.contract
        if contract.chip is None:
            raise ModelDataError(
                f"classify_objects needs a model that labels chips, such as FeatureClassifier; "
                f"{contract.model_name} gives {contract.kind}."
            )
        source = job_source(raster, contract, where)
        check_cell_size(source.grid, contract)
        several = bool(getattr(loaded.task, "multilabel", False))
        options, batch = label_options(call.model_arguments, several, device, contract.tile_px)
        if options.explain and next(loaded.net.parameters(), None) is None:
            raise OptionError(
                f"explainability_map=True follows gradients, which {ref.path} does not give; leave "
                "it out, or use the package that the ONNX file was exported from"
            )
        extent = None
        if where.extent is not None:
            extent = extent_window(where.extent, where.extent_crs, source.grid, source.name)
        plan = _plan(call.features, source.grid, contract.chip, extent, call.block_size)
        settings = {
            "tool": call.tool,
            "source": source.identity(),
            "model": ref.sha256,
            "plan": plan.answer(),
            "options": options.answer(),
            "features": None if call.features is None else features_identity(call.features),
            "columns": list(call.columns),
        }
        yield LabelJob(
            tool=call.tool,
            source=source,
            model=ref,
            contract=contract,
            options=None,  # type: ignore[arg-type]  # there are no tiles
            context=where,
            plan=plan,
            device=device,
            area=None,
            settings=settings,
            frame=call.features,
            labels=options,
            batch=batch,
            several=several,
        )


def label_defaults(several: bool, device: str, tile_px: int) -> dict[str, Any]:
    """``model_arguments`` with their defaults; ``several`` where chips have several classes."""
    fitting = _CPU_BATCH * _CPU_TILE_PX**2 // tile_px**2
    return {
        "batch_size": min(_BATCH, max(_CPU_BATCH, fitting)) if device == "cpu" else _BATCH,
        "test_time_augmentation": False,
        **({"threshold": 0.5} if several else {}),
        "explainability_map": False,
    }


def label_options(
    given: Mapping[str, Any] | None, several: bool, device: str, tile_px: int
) -> tuple[LabelOptions, int]:
    """Read ``model_arguments``; values may be texts. Returns the options and the batch size.

    Raises
    ------
    UnknownOptionError, OptionError
        Names the argument.
    """
    defaults = label_defaults(several, device, tile_px)
    given = as_mapping(given, "model_arguments")
    check_known(given, defaults, "model_arguments")
    values = {"threshold": 0.5, **defaults, **given}
    options = LabelOptions(
        threshold=as_float(values["threshold"], "threshold", minimum=0, maximum=1),
        augment=as_bool(values["test_time_augmentation"], "test_time_augmentation"),
        explain=as_bool(values["explainability_map"], "explainability_map"),
    )
    return options, as_int(values["batch_size"], "batch_size", minimum=1)


def _plan(
    frame: GeoDataFrame | None, grid: GeoGrid, cut: ChipCut, extent: Any, block_px: Any
) -> ChipPlan:
    block = None if block_px is None else as_int(block_px, "block_size", minimum=1)
    if frame is None:
        whole = replace(cut, fixed=False, blacken=False, buffer_radius=None)
        shape = np.array([outline(grid)], object)
        return ChipPlan.make(shape, grid, whole, extent=extent, block_px=block)
    geometries = np.full(len(frame), None, object)
    shapes = frame.geometry.to_numpy()
    there = np.flatnonzero(~(shapely.is_missing(shapes) | shapely.is_empty(shapes)))
    moved = features_on_grid(frame.iloc[there], grid)
    geometries[there] = moved.geometry.to_numpy()
    return ChipPlan.make(geometries, grid, cut, extent=extent, block_px=block)


def outline(grid: GeoGrid) -> shapely.Geometry:
    corners = ((0, 0), (grid.width, 0), (grid.width, grid.height), (0, grid.height))
    return shapely.Polygon([grid.affine @ corner for corner in corners])


def estimated_hours(job: LabelJob) -> float:
    """Worker-hours that the job will take, from some timed chips of its middle block."""
    specs = list(job.plan.blocks())
    if not specs:
        return 0.0
    spec = specs[len(specs) // 2]
    few = slice(0, _TIMED_CHIPS)
    spec = replace(
        spec,
        rows=spec.rows[few],
        windows=spec.windows[few],
        shapes=None if spec.shapes is None else spec.shapes[few],
    )
    task = job.task()
    task.compute(spec, task.read(spec))
    started = time.perf_counter()
    task.compute(spec, task.read(spec))
    each_s = (time.perf_counter() - started) / len(spec.rows)
    return each_s * job.plan.tile_count / 3600
