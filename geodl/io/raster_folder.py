"""Several rasters named in one word: a folder of them, or a pattern such as ``tiles/*.tif``."""

from __future__ import annotations

import glob
import os
from pathlib import Path
from typing import Any

from geodl.base.errors import SourceNotFoundError
from geodl.io.datasets import is_zarr
from geodl.io.locations import Location
from geodl.io.manifest import manifest_path

_SUFFIXES = frozenset({".tif", ".tiff", ".jp2", ".img"})


def listed(source: Any) -> Any:
    """A folder or a pattern as the list of its rasters; anything else as it is.

    Parameters
    ----------
    source
        As :func:`geodl.open_raster` takes it. Of a folder the GeoTIFF, JPEG 2000 and ERDAS Imagine
        files that lie in it are taken, of a pattern all files that match; sorted by their paths.
        Products of geodl's tools among other rasters are left out: they were made of those. A
        folder without rasters, as other formats are, stays a folder.

    Raises
    ------
    SourceNotFoundError
        No file matches the pattern.
    """
    if isinstance(source, (list, tuple)):
        return [one for item in source for one in _rasters(item) or [item]]
    return _rasters(source) or source


def _rasters(item: Any) -> list[str]:
    """The rasters that a folder or pattern stands for; empty for anything else."""
    if not isinstance(item, (str, os.PathLike)):
        return []
    text = os.path.expanduser(os.fspath(item))
    if "://" in text or text.startswith("/vsi") or not text.strip():
        return []
    path = Path(text)
    if path.is_dir():
        if is_zarr(Location(str(path.absolute()), "local")):
            return []
        return _inputs([str(f) for f in path.iterdir() if f.suffix.lower() in _SUFFIXES])
    if not glob.has_magic(text) or path.exists():
        return []
    found = _inputs(glob.glob(text, recursive=True))
    # ``NETCDF:"a[1].nc":rain`` is a name that GDAL understands.
    if not found and ":" not in text:
        raise SourceNotFoundError(f"No file matches {text}; check the pattern.")
    return found


def _inputs(paths: list[str]) -> list[str]:
    """Sorted, without products unless there is nothing else."""
    own = {path for path in paths if manifest_path(path).exists()}
    return sorted(own if len(own) == len(paths) else set(paths) - own)
