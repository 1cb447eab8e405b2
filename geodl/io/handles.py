"""Open rasters: a few handles for each thread of each process, never shared, never pickled."""

from __future__ import annotations

import atexit
import os
import re
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import rasterio
from rasterio.env import getenv, hasenv
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from geodl.base.errors import SourceError, SourceNotFoundError, SourceRefusedError
from geodl.base.quiet import quiet_lock
from geodl.core.grid import Window
from geodl.io.locations import Location

# Files that one thread keeps open; a mosaic's window touches a handful of neighbours.
HANDLES_PER_THREAD = 32
# GDAL takes 5 % of the memory by default, in each worker process: it looks like memory that grows
# with the raster. Windows are read once and whole, so a small cache costs nothing.
GDAL_CACHE_BYTES = 64 * 2**20
_REMOTE_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_MAX_RETRY": "3",
    "GDAL_HTTP_RETRY_DELAY": "1",
    # An object may be replaced: what is known of it lasts as long as its handle.
    "CPL_VSIL_CURL_NON_CACHED": "/vsis3/:/vsigs/:/vsiaz/:/vsioss/:/vsicurl/",
}

_REFUSED = re.compile(r"response code: 40[13]\b|Permission denied|Access ?Denied|Forbidden")

_threads = threading.local()


class _Handles(OrderedDict[tuple[str, str], DatasetReader]):
    """Open handles by location and stamp, the oldest first; closed when their thread ends.

    Left to the garbage collector, a handle that reads through fsspec may be taken apart after the
    Python file it reads from, which ends the process.
    """

    def __init__(self) -> None:
        super().__init__()
        self.process = os.getpid()

    def __del__(self) -> None:
        # A forked child shares them with its parent, whose they are.
        if self.process == os.getpid():
            self.close()

    def close(self) -> None:
        while self:
            self.popitem()[1].close()


@contextmanager
def gdal_environment(cache_bytes: int = GDAL_CACHE_BYTES, **options: Any) -> Iterator[None]:
    """GDAL with its block cache capped, unless the user has set ``GDAL_CACHEMAX``."""
    chosen = dict(options)
    set_by_user = "GDAL_CACHEMAX" in os.environ or (hasenv() and "GDAL_CACHEMAX" in getenv())
    if not set_by_user:
        chosen["GDAL_CACHEMAX"] = cache_bytes
    with rasterio.Env(**chosen):
        yield


@contextmanager
def unreferenced_allowed() -> Iterator[None]:
    """Opening a raster without a geotransform, of which rasterio would warn."""
    with quiet_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def open_quietly(location: Location) -> DatasetReader:
    """A fresh handle. rasterio warns of a raster without a geotransform; we do it once, ourselves.

    Raises
    ------
    SourceNotFoundError
        The location does not exist.
    SourceRefusedError
        It may not be read.
    SourceError
        It is not a raster, or cannot be read.
    """
    remote: dict[str, Any] = dict(_REMOTE_OPTIONS) if location.kind == "url" else {}
    opener = {"opener": location.filesystem()} if location.kind == "fsspec" else {}
    try:
        with unreferenced_allowed(), gdal_environment(**remote):
            return rasterio.open(location.text, **opener)
    except (RasterioError, OSError, ValueError) as error:
        raise _open_error(location, error) from error


def _open_error(location: Location, error: BaseException) -> SourceError:
    reason = str(error)
    if location.kind != "local":
        missing = "404" in reason or "does not exist" in reason or "No such file" in reason
        if missing or isinstance(error, FileNotFoundError):
            return SourceNotFoundError(f"There is nothing at {location.text} ({reason}).")
    if isinstance(error, PermissionError) or _REFUSED.search(reason):
        return SourceRefusedError(
            f"{location.text} may not be read ({reason}); check its permissions, or that every "
            "worker has the credentials."
        )
    if location.local is not None and location.local.is_dir():
        return SourceError(
            f"{location.text} is a folder with no raster in it that geodl looks for (.tif, .tiff, "
            ".jp2, .img); give a pattern such as folder/*.vrt, or a list of files."
        )
    if location.suffix in (".zip", ".tar", ".tgz"):
        return SourceError(
            f"{location.text} is an archive; name the raster in it: "
            f"/vsi{'zip' if location.suffix == '.zip' else 'tar'}/{location.text}/<name>.tif."
        )
    if "not recognized as being in a supported file format" in reason or not reason:
        return SourceError(
            f"{location.text} is not a raster that GDAL can read; expected a GeoTIFF, COG, VRT, "
            "JPEG, PNG, Zarr store, NetCDF or another raster format."
        )
    return SourceError(f"{location.text} cannot be opened as a raster: {reason}")


@contextmanager
def opened(location: Location, stamp: str) -> Iterator[DatasetReader]:
    """This thread's handle of a raster, opened on first use and kept for the next read.

    Parameters
    ----------
    location
        What to open.
    stamp
        Changes when the file changes, so that a replaced file is opened anew.
    """
    handles: _Handles | None = getattr(_threads, "handles", None)
    if handles is None or handles.process != os.getpid():
        # After a fork the parent's handles share file offsets with it; they are let go.
        handles = _threads.handles = _Handles()
    key = (location.text, stamp)
    dataset = handles.pop(key, None)
    if dataset is None:
        dataset = open_quietly(location)
    handles[key] = dataset
    while len(handles) > HANDLES_PER_THREAD:
        handles.popitem(last=False)[1].close()
    with gdal_environment():
        yield dataset


def close_handles() -> None:
    """Close this thread's handles, for example before a file is replaced or deleted."""
    handles: _Handles | None = getattr(_threads, "handles", None)
    if handles is not None and handles.process == os.getpid():
        handles.close()


# Before the interpreter takes apart what a handle reads through.
atexit.register(close_handles)


def read_error(name: str, window: Window, error: BaseException) -> SourceError:
    """The error for pixels that cannot be read."""
    reason = str(error.__cause__ or error)
    if "://" not in name and "No such file" in reason:
        return SourceError(
            f"{name}: the window of rows {window.row}..{window.row_stop} and columns {window.col}.."
            f"{window.col_stop} cannot be read: a file that it is made of is missing ({reason})."
        )
    # GDAL does not say what a server answered to a range.
    guess = (
        "the server may have failed or refused it, or the file may be"
        if "://" in name
        else ("the file may be truncated or")
    )
    return SourceError(
        f"{name}: the window of rows {window.row}..{window.row_stop} and columns {window.col}.."
        f"{window.col_stop} cannot be read ({reason}); {guess} damaged."
    )
