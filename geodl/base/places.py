"""Places that products go to: folders of this machine, and object stores by URL."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from geodl.base.errors import OptionError, OutputError
from geodl.base.packages import require

_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.\-]+://")
# Objects are listed and removed in parts of so many.
_AT_ONCE = 256


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a place is a URL such as ``s3://bucket/name`` rather than a path."""
    text = str(path)
    return bool(_URL.match(text)) and not text.lower().startswith("file:")


def place(path: str | os.PathLike[str]) -> Path:
    """A local path, or a place in an object store that is used like one.

    A remote place has ``name``, ``suffix``, ``parent``, ``with_name``, ``/``, ``exists``,
    ``read_bytes``, ``write_bytes`` and the like; its text is the URL. It is no
    :class:`os.PathLike`, as nothing of this machine can open it: use ``str``.

    Raises
    ------
    MissingPackageError
        The package for the URL's protocol is not installed.
    OptionError
        There is no such protocol.
    """
    text = str(path)
    if not is_remote(text):
        return Path(path)
    upath = require("upath", "s3")
    protocol = text.partition("://")[0].lower()
    if protocol == "s3":
        require("s3fs", "s3")
    try:
        # Another process writes beside this one: what was listed before says nothing.
        return cast(Path, upath.UPath(text, use_listings_cache=False))
    except (ValueError, ImportError) as error:
        raise OptionError(
            f"{text}: nothing is known of {protocol}:// ({error}). Install the package of fsspec "
            "that knows it, or give a path of this machine."
        ) from error


def remote_system(path: Path) -> tuple[Any, str]:
    """The fsspec file system of a remote place, and the path that it knows it by."""
    remote: Any = path
    # The path of a bucket itself ends in a slash.
    return remote.fs, str(remote.path).rstrip("/")


def remote_errors(*more: type[Exception]) -> tuple[type[Exception], ...]:
    """What goes wrong between this machine and a store: errors for an ``except``, with ``more``."""
    # Nothing raises an error of a package that nobody has imported.
    botocore = sys.modules.get("botocore.exceptions")
    own = () if botocore is None else (botocore.BotoCoreError,)
    return (OSError, *own, *more)


def reached(path: str | os.PathLike[str], action: Callable[[], Any]) -> Any:
    """What ``action`` gives.

    Raises
    ------
    OutputError
        The store cannot be reached or refuses; names the place.
    """
    try:
        return action()
    except remote_errors() as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(
            f"{path} cannot be reached ({type(error).__name__}: {error}); check the bucket, the "
            "credentials and the network, and run the same call again: what is finished is kept."
        ) from error


def make_folder(folder: Path) -> None:
    """Make a folder and those above it; an object store has none to make."""
    if not is_remote(folder):
        folder.mkdir(parents=True, exist_ok=True)


def remove_tree(path: Path, *, keep: tuple[str, ...] = ()) -> None:
    """Remove a file or all that lies below a folder, whether or not there is anything.

    Parameters
    ----------
    keep
        Names directly below it that stay.
    """
    if not is_remote(path):
        if not keep:
            shutil.rmtree(path, ignore_errors=True)
            return
        for entry in path.iterdir():
            if entry.name not in keep:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        return
    system, root = remote_system(path)
    inside = [name for name in system.find(root) if name[len(root) + 1 :] not in keep]
    for start in range(0, len(inside), _AT_ONCE):
        system.rm(inside[start : start + _AT_ONCE])


def copy_tree(source: Path, target: Path, *, last: tuple[str, ...] = ()) -> None:
    """Copy all that lies below one remote folder to another, inside the store.

    Parameters
    ----------
    last
        Names directly below ``source`` that are copied when all others are there.
    """
    system, root = remote_system(source)
    _, to = remote_system(target)
    inside = sorted(system.find(root), key=lambda name: name[len(root) + 1 :] in last)
    final = sum(name[len(root) + 1 :] in last for name in inside)
    first = inside[: len(inside) - final]
    for start in range(0, len(first), _AT_ONCE):
        part = first[start : start + _AT_ONCE]
        system.copy(part, [to + name[len(root) :] for name in part])
    for name in inside[len(first) :]:
        system.copy(name, to + name[len(root) :])
