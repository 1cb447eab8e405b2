"""An export of chips from its arguments to the finished folder."""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from geodl.base.errors import DataError, OptionError
from geodl.base.files import sha256_json
from geodl.core.blocks import RasterSource
from geodl.core.classes import ClassTable
from geodl.formats import FORMATS, ChipFolder, ChipFormat
from geodl.formats.counts import ExportCounts
from geodl.formats.esri import ExportFacts
from geodl.formats.images import check_holds
from geodl.io.extent import extent_window
from geodl.io.manifest import write_manifest
from geodl.io.source import open_source
from geodl.ops.chip_grid import ChipGrid
from geodl.runtime.connect import active_client, available_cores
from geodl.runtime.future import RunFuture
from geodl.runtime.ledger import Ledger
from geodl.runtime.run import RunSummary, run_blocks
from geodl.tools.chip_blocks import ChipPlan, SelectTask, WriteTask, default_block_px
from geodl.tools.chip_classes import classes_of_values
from geodl.tools.chip_folder import ExportFolder
from geodl.tools.chip_labels import FeatureLabels, Labels, open_labels, polygons_in_pixels
from geodl.tools.chip_options import ChipOptions

# More threads gain nothing: numpy and Python between the encoders hold them up.
_WRITERS_MOST = 4
_PACKAGES = ("geodl", "numpy", "rasterio", "shapely")
TOOL = "export_training_data"
_UNNAMED = re.compile(r"Band_\d+")


@dataclass(frozen=True, kw_only=True)
class ExportCall:
    """A call of the tool as its caller wrote it, options checked."""

    raster: Any
    labels: Any
    options: ChipOptions
    output_location: Any
    mask_polygons: Any
    assume_crs: Any
    client: Any
    progress: bool
    overwrite: bool
    block_px: int | None

    def run(self, handle: RunFuture | None = None) -> str:
        """Export, and return the folder."""
        job, folder = self._prepared()
        return _Run(self, job, folder, handle).run()

    def estimate(self) -> float:
        """Worker-hours expected, from one block of chips written to a temporary folder."""
        job, _ = self._prepared()
        return estimated_hours(job)

    def _prepared(self) -> tuple[ExportJob, ExportFolder]:
        if self.labels is None:
            raise OptionError(
                f"{self.options.metadata_format} needs labels: give input_class_data, features or "
                "a class raster."
            )
        named = None
        if self.output_location is not None:
            named = ExportFolder(_absolute(self.output_location), self.options.first)
        base = None if named is None or self.overwrite else named.base()
        job = prepare(
            self.raster,
            self.labels,
            self.options,
            base=base,
            mask_polygons=self.mask_polygons,
            assume_crs=self.assume_crs,
            block_px=self.block_px,
        )
        folder = named or ExportFolder(_absolute(job.default_name), self.options.first)
        return job, folder


def _absolute(path: Any) -> Path:
    if not isinstance(path, str | os.PathLike) or not str(os.fspath(path)).strip():
        raise OptionError(f"output_location={path!r} is not the path of a folder.")
    return Path(os.path.abspath(os.path.expanduser(os.fspath(path))))


@dataclass(frozen=True, kw_only=True)
class ExportJob:
    """An image, its labels and what is cut of them: all that is known before the first block.

    Parameters
    ----------
    source
        On the grid of the chips.
    base
        The export that is added to, or None.
    settings
        JSON of all that changes the chips.
    """

    source: RasterSource
    labels: Labels
    options: ChipOptions
    plan: ChipPlan
    base: ChipFolder | None
    settings: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        return sha256_json(self.settings)

    @property
    def default_name(self) -> str:
        return f"{TOOL}_{Path(self.source.name).stem or 'raster'}_{self.fingerprint[:8]}"

    @property
    def chip_format(self) -> ChipFormat:
        chosen: ChipFormat = FORMATS[self.options.metadata_format]()
        return chosen

    def _shared(self) -> dict[str, Any]:
        return {
            "grid": self.plan.grid,
            "metadata_format": self.options.metadata_format,
            "raster": None if isinstance(self.labels, FeatureLabels) else self.labels,
            "least_share": self.options.least_share,
            "every_chip": self.options.every_chip,
        }

    def select_task(self) -> SelectTask:
        return SelectTask(**self._shared())

    def write_task(self, folder: Path, classes: ClassTable, writers: int = 1) -> WriteTask:
        return WriteTask(
            source=self.source,
            chip_format=self.options.chip_format,
            classes=classes,
            folder=str(folder),
            image_space=self.options.image_space,
            writers=writers,
            **self._shared(),
        )

    def classes(self, values: Iterable[int]) -> ClassTable:
        """The classes of the export; those of a class raster are the values found in its chips."""
        if isinstance(self.labels, FeatureLabels):
            return self.labels.classes
        return classes_of_values(values, None if self.base is None else self.base.classes)


def prepare(
    raster: Any,
    labels: Any,
    options: ChipOptions,
    *,
    base: ChipFolder | None,
    mask_polygons: Any,
    assume_crs: Any,
    block_px: int | None,
) -> ExportJob:
    """Open image and labels, check that they fit each other and the format, and plan.

    Raises
    ------
    GeodlError
        Whatever of the input cannot be used; nothing has been written then.
    """
    source = open_source(raster, resolution=options.cell_size)
    check_holds(options.chip_format, source.count, source.dtype.name)
    area = source.grid.window
    if options.extent is not None:
        area = extent_window(options.extent, options.extent_crs, source.grid, source.name)
    grid = ChipGrid(area=area, tile_yx=options.tile_yx, stride_yx=options.stride_yx)
    if base is not None:
        _check_base(base, source, options)
    opened = open_labels(
        labels,
        source.grid,
        class_field=options.class_field,
        buffer_radius=options.buffer_radius,
        kind=FORMATS[options.metadata_format].kind,
        known=None if base is None else base.classes,
        assume_crs=assume_crs,
    )
    mask = None
    if mask_polygons is not None:
        mask = polygons_in_pixels(mask_polygons, source.grid, assume_crs)
    plan = ChipPlan(
        grid=grid,
        block_px=block_px or default_block_px(source, grid),
        features=opened if isinstance(opened, FeatureLabels) else None,
        mask=mask,
        every_chip=options.every_chip,
    )
    settings = {
        "tool": TOOL,
        "source": source.identity(),
        "grid": source.grid.to_json(),
        "area": area.to_json(),
        "labels": opened.identity(),
        "mask": None if mask is None else sha256_json(shapely.to_wkb(mask).hex()),
        "options": options.answer(),
    }
    return ExportJob(
        source=source, labels=opened, options=options, plan=plan, base=base, settings=settings
    )


def _check_base(base: ChipFolder, source: RasterSource, options: ChipOptions) -> None:
    """Refuse to mix chips of different kinds in one export."""
    pairs = {
        "metadata format": (base.metadata_mode, options.metadata_format),
        "tile size": (base.tile_size, options.tile_yx[::-1]),
        "number of bands": (base.bands, source.count),
        "dtype": (base.dtype, source.dtype.name),
        "reference system": (base.image_space, options.image_space),
    }
    for name, (theirs, ours) in pairs.items():
        if theirs != ours:
            raise DataError(
                f"startIndex={options.first}: the {name} of {base.path} is {theirs}, that of the "
                f"chips to be added {ours}; export them to another output_location."
            )


def band_names(source: RasterSource) -> tuple[str, ...]:
    """Names of the bands; those of a plain RGB image come from its colour interpretation."""
    colors: tuple[str, ...] = getattr(source, "color_names", ())
    if colors == ("red", "green", "blue") and all(map(_UNNAMED.fullmatch, source.band_names)):
        return ("Red", "Green", "Blue")
    return source.band_names


@dataclass(frozen=True)
class _Run:
    """One run of a job in its folder."""

    call: ExportCall
    job: ExportJob
    folder: ExportFolder
    handle: RunFuture | None

    @property
    def _client(self) -> Any:
        return active_client() if self.call.client is None else self.call.client

    def run(self) -> str:
        job, folder, options = self.job, self.folder, self.job.options
        started = time.time()
        folder.admit(job.fingerprint, overwrite=self.call.overwrite)
        with Ledger.open(
            folder.run_folder,
            job.fingerprint,
            {"block_px": job.plan.block_px},
            job.settings,
            overwrite=self.call.overwrite,
        ) as ledger:
            if ledger.resumed:
                job = replace(job, plan=replace(job.plan, **ledger.layout))
            folder.keep_base()
            chips, values = self._select(job)
            try:
                self._check_chips(job, chips)
            except (DataError, OptionError):
                ledger.remove()
                raise
            folder.make_folders()
            classes = job.classes(values)
            total, specs = job.plan.numbered(chips, options.first)
            # Workers of a cluster share their cores; this process has them all.
            writers = 1 if self._client else min(available_cores(), _WRITERS_MOST)
            task = job.write_task(folder.path, classes, writers)
            summary = self._blocks(task, specs, total, ledger, "export")
            self._finish(job, ledger, classes, len(chips))
            self._write_manifest(job, summary, len(chips), started)
            ledger.remove()
        return str(folder.path)

    def _blocks(self, task: Any, specs: Any, total: int, ledger: Ledger, name: str) -> RunSummary:
        writing = self.handle is not None and name == "export"
        return run_blocks(
            task,
            specs,
            total,
            ledger=ledger,
            client=self._client,
            progress=self.call.progress,
            name=name,
            cancel=None if self.handle is None else self.handle.stop,
            watch=self.handle.watch if writing and self.handle is not None else None,
        )

    def _select(self, job: ExportJob) -> tuple[np.ndarray, set[int]]:
        """Grid rows and columns (N, 2) of the chips to write, ordered; values of a class raster."""
        chips: list[list[int]] = []
        values: set[int] = set()
        with Ledger.open(
            self.folder.run_folder / "select", job.fingerprint, {"block_px": job.plan.block_px}
        ) as ledger:
            plan = job.plan
            self._blocks(
                job.select_task(), plan.candidates(), plan.candidate_count, ledger, "select"
            )
            for _, payload in ledger.payloads():
                found = json.loads(payload)
                chips += found["chips"]
                values.update(found["values"])
        return np.array(sorted(chips), np.int64).reshape(-1, 2), values

    def _check_chips(self, job: ExportJob, chips: np.ndarray) -> None:
        if not len(chips):
            where = "" if job.plan.mask is None else " wholly inside the mask polygons"
            raise DataError(
                f"No chip{where} holds a label, so nothing was exported; check labels and "
                'tile_size, or pass context={"exportAllTiles": True}.'
            )
        if job.base is not None:
            self.folder.refuse_taken(job.base, len(chips))

    def _finish(self, job: ExportJob, ledger: Ledger, classes: ClassTable, chips: int) -> None:
        counts = ExportCounts()
        for _, payload in ledger.payloads():
            counts = counts + ExportCounts.from_json(json.loads(payload))
        smallest = largest = job.source.grid.cell_size_xy
        names = band_names(job.source)
        if job.base is not None:
            counts = self.folder.base_counts(job.base) + counts
            names = job.base.band_names or names
            before = job.base.cell_size or (smallest, largest)
            smallest = (min(smallest[0], before[0][0]), min(smallest[1], before[0][1]))
            largest = (max(largest[0], before[1][0]), max(largest[1], before[1][1]))
        facts = ExportFacts(
            chip_format=job.chip_format,
            classes=classes,
            tile_size=(job.options.tile_yx[1], job.options.tile_yx[0]),
            band_names=names,
            cell_size=(smallest, largest),
            crs=job.source.grid.crs,
            image_space=job.options.image_space,
        )
        self.folder.write_roots(facts, counts, chips, job.options.chip_format)

    def _write_manifest(
        self, job: ExportJob, summary: RunSummary, chips: int, started: float
    ) -> None:
        write_manifest(
            self.folder.path,
            {
                "tool": TOOL,
                "inputs": [{"name": job.source.name, "identity": job.source.identity()}],
                "settings": job.settings,
                "fingerprint": job.fingerprint,
                "versions": {name: version(name) for name in _PACKAGES},
                "layout": {"block_px": job.plan.block_px},
                "chips": chips,
                "blocks": summary.to_json(),
                "seconds": {stage: round(value, 3) for stage, value in summary.seconds.items()},
                "wall_s": round(summary.wall_s, 3),
                "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
                "chips_per_s": round(chips / max(summary.wall_s, 1e-9), 2),
            },
        )


def estimated_hours(job: ExportJob) -> float:
    """Worker-hours that a job will take, from its middle block of chips."""
    plan = replace(job.plan, block_px=max(job.plan.grid.tile_yx))
    blocks = plan.candidate_count
    if not blocks:
        return 0.0
    spec = next(spec for n, spec in enumerate(plan.candidates()) if n == blocks // 2)
    started = time.perf_counter()
    select = job.select_task()
    found = select.compute(spec, select.read(spec))
    chips = np.array(found["chips"], np.int64).reshape(-1, 2)
    if len(chips):
        with tempfile.TemporaryDirectory(prefix="geodl-chips-") as folder:
            ExportFolder(Path(folder), 0).make_folders()
            task = job.write_task(Path(folder), job.classes(found["values"]))
            for part in plan.numbered(chips, 0)[1]:
                task.write(part, task.compute(part, task.read(part)))
    return (time.perf_counter() - started) * blocks / 3600
