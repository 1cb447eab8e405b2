"""Products written beside their place and moved there when they are whole."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyogrio.errors
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from geodl.base.errors import GeodlError, OutputError
from geodl.base.places import is_remote, place, remote_errors, remote_system

_DRIVER_ERRORS = (
    RasterioError,
    CPLE_BaseError,
    pyogrio.errors.DataSourceError,
    pyogrio.errors.DataLayerError,
    pyogrio.errors.FieldError,
    pyogrio.errors.GeometryError,
    pyogrio.errors.CRSError,
    pyogrio.errors.FeatureError,
)


@contextmanager
def staged(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A place to write a product; it appears at ``path`` when the block ends well.

    Parameters
    ----------
    path
        The product: a file, a file with side files of the same folder, or a folder. The parent is
        made where it is missing; what stands there is replaced. A URL of an object store serves
        too: the product is made in this machine's folder for temporary files, and uploaded.

    Yields
    ------
    A local path of the same name in a temporary folder, beside ``path`` where that is local;
    everything written into that folder is moved, the product itself last.

    Raises
    ------
    OutputError
        The folder cannot be made or written, or the disk is full. Nothing is left behind.
    """
    target = place(path)
    remote = is_remote(target)
    folder: Path | None = None
    try:
        if not remote:
            target = target.absolute()
            target.parent.mkdir(parents=True, exist_ok=True)
        beside = None if remote else target.parent
        folder = Path(tempfile.mkdtemp(dir=beside, prefix=f".{target.name}.", suffix=".part"))
        yield folder / target.name
        (_upload if remote else _publish)(folder, target)
    except GeodlError:
        raise
    except remote_errors(*_DRIVER_ERRORS) as error:
        raise output_error(target, error) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _publish(folder: Path, target: Path) -> None:
    product = _written(folder, target)
    for side in sorted(folder.iterdir()):
        if side != product:
            os.replace(side, target.parent / side.name)
    replace_path(product, target)


def _upload(folder: Path, target: Path) -> None:
    product = _written(folder, target)
    system, root = remote_system(target.parent)
    for file in sorted(folder.iterdir(), key=lambda entry: entry == product):
        system.put(str(file), f"{root}/{file.name}", recursive=file.is_dir())


def _written(folder: Path, target: Path) -> Path:
    product = folder / target.name
    if not product.exists():
        raise OutputError(f"{target} was not written, though its writer reported no error.")
    return product


def replace_path(source: Path, target: Path) -> None:
    """Move a file or folder onto ``target`` in the same file system; an older one goes away."""
    if target.is_dir() and not target.is_symlink():
        # A folder cannot be replaced in one step while it holds anything.
        old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".old"))
        os.replace(target, old / target.name)
        os.replace(source, target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(source, target)


def output_error(path: Path, error: BaseException) -> OutputError:
    """The error for a product that cannot be written, with what to do about it."""
    text = str(error)
    number = error.errno if isinstance(error, OSError) else None
    full = number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or "No space left" in text
    if full:
        return OutputError(
            f"{path} cannot be written: the disk is full or a size limit is reached. Make room and "
            "run the same call again; what is finished is kept."
        )
    if isinstance(error, PermissionError) or number in (errno.EACCES, errno.EROFS):
        return OutputError(
            f"{path} cannot be written: there is no permission to write in {path.parent}; choose "
            "another folder."
        )
    if isinstance(error, _DRIVER_ERRORS):
        # GDAL reports a full disk as one of many failures to write.
        reason = str(error.__cause__ or text)
        return OutputError(
            f"{path} cannot be written: {reason}. If the disk is full, make room and run the same "
            "call again; what is finished is kept."
        )
    return OutputError(f"{path} cannot be written: {text}")
