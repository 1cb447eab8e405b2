"""Where a source lies: local paths, URLs, GDAL's own names, fsspec locations; and its stamp."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import fsspec

from geodl.base.errors import OptionError, SourceError, SourceNotFoundError

# Schemes that rasterio maps to GDAL's own file systems; others go through fsspec.
_GDAL_SCHEMES = frozenset({"http", "https", "ftp", "s3", "gs", "az", "oss", "zip", "tar", "gzip"})
# ``NETCDF:file.nc:var``, ``GTIFF_DIR:2:file.tif``: a driver's name, at least two letters so that
# a Windows drive is none, and no slashes after it.
_GDAL_CONNECTION = re.compile(r"^[A-Za-z][A-Za-z0-9_]+:(?!//)")
_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.\-]*(::|://)")

Kind = Literal["local", "url", "gdal", "fsspec"]


@dataclass(frozen=True, slots=True)
class Location:
    """One place that data is read from.

    Parameters
    ----------
    text
        What is opened: an absolute local path, a URL or a name that GDAL understands.
    kind
        ``local`` file or folder; ``url`` that GDAL reads itself; ``gdal`` connection text;
        ``fsspec`` for every other protocol.
    """

    text: str
    kind: Kind

    @property
    def stem(self) -> str:
        """A short name for people: the last part without its suffix."""
        path = urlsplit(self.text).path if self.kind in ("url", "fsspec") else self.text
        return Path(path.rstrip("/")).stem or "raster"

    @property
    def suffix(self) -> str:
        path = urlsplit(self.text).path if self.kind in ("url", "fsspec") else self.text
        return Path(path.rstrip("/")).suffix.lower()

    @property
    def local(self) -> Path | None:
        return Path(self.text) if self.kind == "local" else None

    def filesystem(self) -> Any:
        """The fsspec file system of a location that GDAL cannot reach by itself.

        Raises
        ------
        SourceError
            The protocol is unknown or its package is missing.
        """
        try:
            return fsspec.core.url_to_fs(self.text)[0]
        except (ImportError, ValueError) as error:
            raise SourceError(
                f"{self.text} cannot be reached: {error}. Give a path or an address whose protocol "
                "fsspec knows, with its package installed."
            ) from error


def locate(source: str | os.PathLike[str]) -> Location:
    """Tell where a path, URL or GDAL name leads.

    Raises
    ------
    SourceNotFoundError
        A local path that does not exist.
    OptionError
        An empty path.
    """
    text = os.fspath(source)
    if not text.strip():
        raise OptionError("The source is an empty text; give a path, a URL or an xarray object.")
    if text.startswith("/vsi"):
        return Location(text, "gdal")
    if text.lower().startswith("file:"):
        text = unquote(urlsplit(text).path)
    elif _URL.match(text):
        scheme = re.split(r"::|://|\+", text, maxsplit=1)[0].lower()
        plain = "::" not in text and scheme in _GDAL_SCHEMES
        return Location(text, "url" if plain else "fsspec")
    path = Path(text).expanduser().absolute()
    if path.exists():
        return Location(str(path), "local")
    if _GDAL_CONNECTION.match(text):
        return Location(text, "gdal")
    raise SourceNotFoundError(f"There is no file {path}; check the path.")


def stamp_files(files: list[str]) -> list[list[int]]:
    """Size and modification time (ns) of local files; others are left out."""
    stamps = []
    for name in sorted(files):
        try:
            status = os.stat(name)
        except OSError:
            continue
        stamps.append([status.st_size, status.st_mtime_ns])
    return stamps


def stamp_folder(folder: Path) -> list[list[int]]:
    """Size and modification time (ns) of every file below a folder (a Zarr store)."""
    return stamp_files(
        [os.path.join(top, name) for top, _, names in os.walk(folder) for name in names]
    )


def stamp_remote(location: Location) -> dict[str, Any]:
    """Size and etag or modification time, as far as the server tells them."""
    try:
        system, path = fsspec.core.url_to_fs(location.text)
        facts = system.info(path)
    except (OSError, ImportError, ValueError):
        return {}
    names = ("size", "ETag", "etag", "LastModified", "mtime", "created")
    return {name.lower(): str(facts[name]) for name in names if facts.get(name) is not None}
