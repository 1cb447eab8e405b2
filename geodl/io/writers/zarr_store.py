"""A Zarr product: the region store itself, moved into place, with class names as CF has them."""

from __future__ import annotations

import errno
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import zarr

from geodl.base.places import copy_tree, is_remote, place, reached, remove_tree
from geodl.base.quiet import quiet_lock
from geodl.core.classes import ClassTable
from geodl.io.regions import RegionStore
from geodl.io.staging import output_error, replace_path, staged
from geodl.io.store_layout import ZarrFormat


@dataclass
class ZarrWriter:
    """Moves a region store to its place.

    Parameters
    ----------
    zarr_format
        3; or 2, to which the regions are copied.
    """

    zarr_format: ZarrFormat = 3
    kind: Literal["raster"] = "raster"

    def write(
        self,
        regions: RegionStore,
        path: Path,
        *,
        classes: ClassTable | None,
        overviews: str | None,
    ) -> None:
        """Move the store; between file systems, and in object stores, it is copied and removed.

        Raises
        ------
        OutputError
            The folder cannot be written or the disk is full; the store is kept.
        """
        if self.zarr_format == 2:
            regions = _as_format_2(regions)
        if classes is not None:
            regions.describe(flag_attributes(classes))
        reached(path, lambda: _consolidate(regions.path))
        if is_remote(regions.path) and is_remote(path):
            reached(path, lambda: _move_objects(place(regions.path), path))
            return
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
        with staged(target) as made:
            shutil.copytree(source, made)
        shutil.rmtree(source, ignore_errors=True)


def _consolidate(path: str) -> None:
    """All metadata in one file, which xarray looks for first, and misses with a warning."""
    with quiet_lock, warnings.catch_warnings():
        # Format 3 does not specify it yet; xarray writes it all the same.
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        zarr.consolidate_metadata(path)


def _as_format_2(regions: RegionStore) -> RegionStore:
    """A copy beside the regions; what an earlier attempt left there is replaced."""
    name = place(regions.path).name
    beside = place(regions.path).with_name(f"{name}.v2.zarr")
    return regions.cropped(str(beside), regions.grid.window, zarr_format=2)


def _move_objects(source: Path, target: Path) -> None:
    """An object store renames nothing: all is copied inside it, what makes it a store last."""
    if str(source) == str(target):
        return
    remove_tree(target)
    copy_tree(source, target, last=("zarr.json", ".zgroup"))
    remove_tree(source)


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
