"""What a catalog tells of a folder of training chips."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geodl.base.errors import GeodlError
from geodl.core.grid import GeoGrid
from geodl.formats.folder import open_export
from geodl.formats.inference import is_export
from geodl.io.crs import transform_bounds
from geodl.io.manifest import read_manifest

# Exports of one call that lie side by side; the first one tells of both.
_SIDES = ("A", "B")
_CLASSES_SHOWN = 20


def holds_chips(path: Path) -> bool:
    """Whether a folder is an export, or holds the two exports of a pair."""
    return bool(_exports(path))


def chip_facts(path: Path) -> dict[str, Any]:
    """Format, number and size of the chips and their classes, for people.

    Raises
    ------
    FormatError
        An export that cannot be read; names the file.
    """
    opened = [open_export(part) for part in _exports(path)]
    first = opened[0]
    width, height = first.tile_size
    facts = {
        "format": first.metadata_mode,
        "chips": sum(len(folder.chips) for folder in opened),
        "size": f"{width} x {height} px, {first.bands} x {first.dtype}",
        "classes": ", ".join(first.classes.names[:_CLASSES_SHOWN]),
    }
    return {key: value for key, value in facts.items() if value != ""}


def first_chip(path: Path) -> Path:
    """The image of the export's first chip."""
    return open_export(_exports(path)[0]).chips[0].image


def chip_bounds(path: Path) -> tuple[float, float, float, float] | None:
    """West, south, east, north in degrees of the images it was cut from, where that is known."""
    bounds = [side for part in _exports(path) for side in _input_bounds(part)]
    return None if not bounds else _around(bounds)


def _exports(path: Path) -> list[Path]:
    parts = [path / side for side in _SIDES]
    return [p for p in ([path] if is_export(path) else parts) if is_export(p)]


def _input_bounds(export: Path) -> list[tuple[float, float, float, float]]:
    found = []
    try:
        for given in read_manifest(export)["inputs"]:
            grid = GeoGrid.from_json(given["identity"]["grid"])
            if grid.crs is not None:
                found.append(transform_bounds(grid.bounds, grid.crs, "EPSG:4326", export.name))
    except (GeodlError, OSError, KeyError, TypeError, ValueError):
        # An export of another program, or a manifest that somebody has changed.
        return []
    return found


def _around(
    bounds: Sequence[tuple[float, float, float, float]],
) -> tuple[float, float, float, float]:
    west, south, east, north = zip(*bounds, strict=True)
    return min(west), min(south), max(east), max(north)
