"""A model, a raster and how they meet: all that is settled before the first block."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import shapely

from geodl.base.errors import DataError, DataWarning, ModelDataError, PlanError
from geodl.base.files import sha256_json
from geodl.base.options import as_int
from geodl.bundle import ModelRef, load_model, resolve_model
from geodl.core.blocks import RasterSource
from geodl.core.contract import ModelContract, TaskKind
from geodl.core.grid import GeoGrid, Window
from geodl.core.plan import TilePlan
from geodl.infer.area import Area
from geodl.infer.instances import InstanceBlocks, InstanceOptions
from geodl.infer.memory import block_bytes
from geodl.infer.objects import ObjectBlocks, ObjectOptions
from geodl.infer.options import RunContext, TileOptions, run_context, tile_options
from geodl.infer.pixels import PixelBlocks, PixelOptions
from geodl.io.crs import crs_label, full_turn, metres_per_unit
from geodl.io.extent import extent_window
from geodl.io.vector import features_on_grid
from geodl.tools.device import run_device
from geodl.tools.job_source import job_source

_BLOCKS: dict[TaskKind, type[PixelBlocks] | type[ObjectBlocks]] = {
    "pixels": PixelBlocks,
    "objects": ObjectBlocks,
    "instances": InstanceBlocks,
}
# Instances are objects with outlines.
_ALSO: dict[TaskKind, TaskKind] = {"instances": "objects"}


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

    @property
    def instance_options(self) -> InstanceOptions:
        if not isinstance(self.options.run, InstanceOptions):
            raise ModelDataError(f"{self.contract.model_name} gives no instances")
        return self.options.run

    @property
    def tiles_at_once(self) -> int:
        """How many tiles the network sees together."""
        return self.options.batch_for(self.contract.kind, self.device, self.plan.tile_count)

    @property
    def tile_px(self) -> int:
        """Side of what the network sees."""
        return self.plan.tile_px

    def blocks_bytes(self) -> int:
        """Memory of the blocks that one process has in hand."""
        outputs = len(self.contract.classes) + 1
        return block_bytes(self.plan, self.source, outputs, self.options.run)

    def with_smaller_blocks(self) -> Self | None:
        """The same job in blocks of about half the side; None where they are the smallest."""
        plan = self.plan
        if plan.block_px <= plan.stride_px:
            return None
        smaller = TilePlan.make(
            plan.grid,
            tile_px=plan.tile_px,
            padding_px=plan.padding_px,
            merge=plan.merge,
            extent=plan.extent,
            block_px=max(1, plan.block_px // 2 - plan.stride_px + 1),
        )
        return replace(self, plan=smaller)

    def task(self, **extra: Any) -> PixelBlocks | ObjectBlocks:
        return _BLOCKS[self.contract.kind](
            source=self.source,
            plan=self.plan,
            model=self.model,
            options=self.options.run,  # type: ignore[arg-type]  # of the model's own kind
            batch=self.tiles_at_once,
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
    client: Any = None,
) -> Iterator[Job]:
    """Open the raster, or the :class:`~geodl.tools.job_source.RasterPair`, and the model, check
    that they fit, and plan.

    A trained object in memory is packed into a folder that lasts as long as the job. With a client
    the device is one that its workers have.
    """
    where = run_context(context)
    with tempfile.TemporaryDirectory(prefix="geodl-model-") as folder:
        ref = resolve_model(model, folder)
        device = run_device(where.device, client)
        # With a client this process needs the contract alone.
        contract = load_model(ref, device if client is None else "cpu").contract
        if kind not in (contract.kind, _ALSO.get(contract.kind)):
            raise ModelDataError(
                f"{tool} needs a model that gives {kind}; {contract.model_name} gives "
                f"{contract.kind}."
            )
        source = job_source(raster, contract, where)
        check_cell_size(source.grid, contract)
        options = tile_options(contract, model_arguments)
        plan = TilePlan.make(
            source.grid,
            tile_px=options.tile_px,
            padding_px=options.padding_px,
            merge=options.merge,
            extent=_extent(where, source),
            block_px=None if block_size is None else as_int(block_size, "block_size", minimum=1),
        )
        area = None if where.mask is None else _area(where.mask, plan, source.name)
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


def check_cell_size(grid: GeoGrid, contract: ModelContract) -> None:
    """Warn of cells of another size than those that the model was trained on."""
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


def _extent(context: RunContext, source: RasterSource) -> Window | None:
    if context.extent is None:
        return None
    return extent_window(context.extent, context.extent_crs, source.grid, source.name)


def _area(mask: Any, plan: TilePlan, name: str) -> Area:
    geometries = features_on_grid(mask, plan.grid).geometry.to_numpy()
    area = Area.of(_all_around(geometries, plan.grid))
    if not area.polygons:
        raise DataError("context mask has no polygons; give features that cover the area to map")
    if not area.meets(plan.grid, plan.extent):
        bounds = tuple(round(value, 6) for value in plan.grid.window_bounds(plan.extent))
        raise PlanError(
            f"context mask does not overlap what is mapped of {name}, which covers {bounds} in "
            f"{crs_label(plan.grid.crs)}; see that the CRS of both are stated rightly."
        )
    return area


def _all_around(geometries: np.ndarray, grid: GeoGrid) -> np.ndarray:
    """Geometries in degrees, also a turn further where the raster reaches there (0..360)."""
    turn = full_turn(grid.crs)
    west, _, east, _ = grid.bounds
    if turn is None or (west >= -turn / 2 and east <= turn / 2):
        return geometries
    east_of = shapely.transform(geometries, lambda xy: xy + np.array([turn, 0]))
    west_of = shapely.transform(geometries, lambda xy: xy - np.array([turn, 0]))
    return np.concatenate([geometries, east_of, west_of])


def product_bands(job: Job) -> tuple[int, np.dtype[Any], float, list[str]]:
    """Number, dtype, nodata and names of the bands of a product of pixels."""
    classes = job.contract.classes
    if job.pixel_options.output == "scores":
        names = ["Background", *classes.names]
        return len(names), np.dtype(np.float32), float("nan"), names
    dtype, nodata = classes.raster_dtype()
    return 1, dtype, nodata, ["Class"]
