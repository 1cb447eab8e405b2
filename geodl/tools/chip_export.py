"""An export of chips from its arguments to the finished folder."""

from __future__ import annotations

import json
import os
import tempfile
import time
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from geodl.base.errors import DataError, OptionError
from geodl.base.options import as_path
from geodl.core.classes import ClassTable
from geodl.formats.counts import ExportCounts
from geodl.formats.esri import ExportFacts
from geodl.io.manifest import write_manifest
from geodl.runtime.connect import available_cores, chosen_client
from geodl.runtime.future import RunFuture
from geodl.runtime.ledger import Ledger
from geodl.runtime.run import RunSummary, run_blocks
from geodl.tools.chip_folder import ExportFolder, WrittenChips
from geodl.tools.chip_job import TOOL, ExportInput, ExportJob, band_names, cell_sizes, prepare
from geodl.tools.chip_options import ChipOptions
from geodl.tools.product import is_bare

# More threads gain nothing: numpy and Python between the encoders hold them up.
_WRITERS_MOST = 4
# Of so many blocks the last ones end at about the same time.
_BLOCKS_PER_THREAD = 8
# Smaller blocks read the pixels at their edges too often.
_LEAST_SHARED_PX = 1024
_PACKAGES = ("geodl", "numpy", "rasterio", "shapely")


@dataclass(frozen=True, kw_only=True)
class ExportCall:
    """A call of the tool as its caller wrote it, options checked."""

    given: ExportInput
    options: ChipOptions
    output_location: Any
    client: Any
    progress: bool
    overwrite: bool
    block_px: int | None
    catalog: Any = None
    """Where the finished export is published, and lies if no folder is given; or None."""

    def run(self, handle: RunFuture | None = None) -> str:
        """Export, and return the folder."""
        job, folder = self.prepared()
        path = _Run(self, job, folder, handle).run()
        self.publish(path)
        return path

    def publish(self, path: str) -> None:
        """Publish a finished export where the caller has named a catalog."""
        if self.catalog is not None:
            self.catalog.add(path, overwrite=True)

    def estimate(self) -> float:
        """Worker-hours expected, from one block of chips written to a temporary folder."""
        job, _ = self.prepared()
        return estimated_hours(job)

    def prepared(self) -> tuple[ExportJob, ExportFolder]:
        """What is to be done, and where. Raises GeodlError; nothing is written."""
        named = None
        if self.output_location is not None:
            named = ExportFolder(self.placed(self.output_location), self.options.first)
        base = None if named is None or self.overwrite else named.base()
        job = prepare(self.given, self.options, base=base, block_px=self.block_px)
        folder = named or ExportFolder(self.placed(job.default_name), self.options.first)
        return job, folder

    def placed(self, location: Any) -> Path:
        """The folder that is meant: a bare name lies in the catalog, where one is given."""
        path = absolute(location)
        if self.catalog is not None and is_bare(str(os.fspath(location))):
            return Path(self.catalog.product_path(path.name))
        return path


def absolute(path: Any) -> Path:
    """The folder of an export. Raises OptionError for what is no path."""
    folder = as_path(path, "output_location")
    if not os.fspath(path).strip():
        raise OptionError(f"output_location={path!r} is empty; name the folder to write.")
    return Path(os.path.abspath(folder))


@dataclass(frozen=True)
class _Run:
    """One run of a job in its folder."""

    call: ExportCall
    job: ExportJob
    folder: ExportFolder
    handle: RunFuture | None

    @property
    def _client(self) -> Any:
        return chosen_client(self.call.client)

    def run(self) -> str:
        folder, options = self.folder, self.job.options
        job = self._spread()
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
            folder.make_folders(job.chip_format, second=job.has_second)
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

    def _spread(self) -> ExportJob:
        """The job, in smaller blocks where a cluster would have too few to share evenly."""
        job = self.job
        if self._client is None or self.call.block_px is not None:
            return job
        wanted = _BLOCKS_PER_THREAD * sum(self._client.nthreads().values())
        least = max(_LEAST_SHARED_PX, *job.options.tile_yx)
        while job.plan.candidate_count < wanted and job.plan.block_px // 2 >= least:
            job = replace(job, plan=replace(job.plan, block_px=job.plan.block_px // 2))
        return job

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
        """Copy, image and place (N, 4) of the chips to write, ordered; values of class rasters."""
        if job.takes_all:
            return job.plan.every(), set()
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
        return np.array(sorted(chips), np.int64).reshape(-1, 4), values

    def _check_chips(self, job: ExportJob, chips: np.ndarray) -> None:
        if not len(chips):
            where = "" if job.scenes[0].mask is None else " wholly inside the mask polygons"
            raise DataError(
                f"No chip{where} holds a label, so nothing was exported; check labels and "
                'tile_size, or pass context={"exportAllTiles": True}.'
            )
        if job.base is not None:
            self.folder.refuse_taken(job.base, len(chips))

    def _finish(self, job: ExportJob, ledger: Ledger, classes: ClassTable, chips: int) -> None:
        counts, entries = ExportCounts(), []
        for _, payload in ledger.payloads():
            found = json.loads(payload)
            counts = counts + ExportCounts.from_json(found["counts"])
            entries += found["entries"]
        entries.sort(key=lambda entry: entry[0])
        sizes = cell_sizes(job.scenes)
        smallest, largest = sizes.min(axis=0), sizes.max(axis=0)
        names = band_names(job.source)
        if job.base is not None:
            counts = self.folder.base_counts(job.base) + counts
            names = job.base.band_names or names
            before = np.array(job.base.cell_size or sizes[:1].repeat(2, axis=0))
            smallest, largest = np.minimum(smallest, before[0]), np.maximum(largest, before[1])
        second = job.scenes[0].second
        facts = ExportFacts(
            chip_format=job.chip_format,
            classes=classes,
            tile_size=(job.options.tile_yx[1], job.options.tile_yx[0]),
            band_names=names,
            cell_size=(tuple(smallest.tolist()), tuple(largest.tolist())),
            crs=job.source.grid.crs,
            image_space=job.options.image_space,
            band_names2=() if second is None else band_names(second.source),
            rasters=len(job.scenes),
            extra=job.emd_keys(classes),
        )
        self.folder.write_roots(
            facts, counts, WrittenChips(chips, entries), job.options.chip_format
        )

    def _write_manifest(
        self, job: ExportJob, summary: RunSummary, chips: int, started: float
    ) -> None:
        write_manifest(
            self.folder.path,
            {
                "tool": TOOL,
                "inputs": [
                    {"name": scene.source.name, "identity": scene.source.identity()}
                    for scene in job.scenes
                ],
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
    plan = replace(job.plan, block_px=max(job.scenes[0].places.tile_yx))
    blocks = plan.candidate_count
    if not blocks:
        return 0.0
    spec = next(spec for n, spec in enumerate(plan.candidates()) if n == blocks // 2)
    started = time.perf_counter()
    select = job.select_task()
    found = select.compute(spec, select.read(spec))
    chips = np.array(found["chips"], np.int64).reshape(-1, 4)
    if len(chips):
        with tempfile.TemporaryDirectory(prefix="geodl-chips-") as folder:
            ExportFolder(Path(folder), 0).make_folders(job.chip_format, second=job.has_second)
            task = job.write_task(Path(folder), job.classes(found["values"]))
            for part in plan.numbered(chips, 0)[1]:
                task.write(part, task.compute(part, task.read(part)))
    return (time.perf_counter() - started) * blocks / 3600
