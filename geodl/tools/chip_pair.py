"""Two exports side by side: the image domains ``A`` and ``B`` of CycleGAN."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from geodl.base.errors import OutputExistsError
from geodl.base.files import read_json
from geodl.io.manifest import manifest_path
from geodl.runtime.future import RunFuture
from geodl.tools.chip_export import ExportCall, absolute
from geodl.tools.chip_folder import ExportFolder, is_part, remove_parts
from geodl.tools.chip_job import ExportInput

SIDES = ("A", "B")


@dataclass(frozen=True)
class PairCall:
    """A call whose image and second raster become an export each, chips on their own pixels."""

    call: ExportCall

    def run(self, handle: RunFuture | None = None) -> str:
        """Export both sides, and return the folder that holds them.

        A side that this very call has finished before is kept while the other one goes on.
        """
        root = self._root()
        if not self.call.overwrite:
            _refuse_strangers(root)
            remove_parts(root)
        sides = self._sides(root)
        finished = [self._finished(side) for side in sides]
        for side, done in zip(sides, finished, strict=True):
            if not done or all(finished):
                side.run(handle)
        self.call.publish(str(root))
        return str(root)

    def estimate(self) -> float:
        """Worker-hours of both sides."""
        return sum(side.estimate() for side in self._sides(self._root()))

    def _root(self) -> Path:
        if self.call.output_location is not None:
            return self.call.placed(self.call.output_location)
        return self.call.prepared()[1].path

    def _sides(self, root: Path) -> list[ExportCall]:
        given = self.call.given
        inputs = (
            replace(given, second=None),
            ExportInput(
                raster=given.second,
                labels=None,
                mask_polygons=given.mask_polygons,
                assume_crs=given.assume_crs,
            ),
        )
        return [
            replace(self.call, given=side, output_location=root / name, catalog=None)
            for name, side in zip(SIDES, inputs, strict=True)
        ]

    def _finished(self, side: ExportCall) -> bool:
        """Whether the folder holds what this call makes."""
        folder = ExportFolder(absolute(side.output_location), side.options.first)
        manifest = manifest_path(folder.path)
        if side.overwrite or not folder.finished or not manifest.is_file():
            return False
        known = read_json(manifest)
        job, _ = side.prepared()
        return isinstance(known, dict) and known.get("fingerprint") == job.fingerprint


def _refuse_strangers(root: Path) -> None:
    own = {*SIDES, *(manifest_path(root / name).name for name in SIDES)}
    there = set(os.listdir(root)) if root.is_dir() else set()
    # What a killed run was writing is no stranger.
    strange = sorted(name for name in there - own if not is_part(name))
    if strange:
        raise OutputExistsError(
            f"{root} is not empty and holds no pair of exports (there is {strange[0]!r}); choose "
            "another output_location, or pass overwrite=True to write beside that."
        )
