"""A Zarr product: the region store itself, moved into place, with class names as CF has them."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any, Literal

from geodl.core.classes import ClassTable
from geodl.io.regions import RegionStore
from geodl.io.staging import output_error, replace_path, staged


class ZarrWriter:
    """Moves a region store to its place."""

    kind: Literal["raster"] = "raster"

    def write(
        self,
        regions: RegionStore,
        path: Path,
        *,
        classes: ClassTable | None,
        overviews: str | None,
    ) -> None:
        """Move the store; between file systems it is copied and then removed.

        Raises
        ------
        OutputError
            The folder cannot be written or the disk is full; the store is kept.
        """
        if classes is not None:
            regions.describe(flag_attributes(classes))
        source, target = Path(regions.path), path.absolute()
        if source.absolute() == target:
            return
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            replace_path(source, target)
            return
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise output_error(target, error) from error
        with staged(target) as place:
            shutil.copytree(source, place)
        shutil.rmtree(source, ignore_errors=True)


def flag_attributes(classes: ClassTable) -> dict[str, Any]:
    """CF flag attributes of a class raster, background included; names keep to single words."""
    entries = [(0, "background", (0, 0, 0))]
    entries += [(entry.value, entry.name, entry.color) for entry in classes]
    return {
        "flag_values": [value for value, _, _ in entries],
        "flag_meanings": " ".join("_".join(name.split()) or "class" for _, name, _ in entries),
        "flag_colors": " ".join("#{:02x}{:02x}{:02x}".format(*color) for _, _, color in entries),
        "class_names": [name for _, name, _ in entries],
    }
