"""Where the files of a package lie: in a folder, or in a DLPK that is read without unpacking.

A DLPK is a zip from anywhere. Its members are read into memory under limits, so nothing of it ever
touches the disk; all the same a package with unsafe names is refused whole, because other
programs may unpack it.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeVar

from geodl.base.errors import BundleError, SourceError, SourceNotFoundError
from geodl.base.files import sha256_file
from geodl.base.options import as_path

Used = TypeVar("Used")

MEMBERS_LIMIT = 10_000
MEMBER_LIMIT_BYTES = 16 * 2**30
TOTAL_LIMIT_BYTES = 32 * 2**30
# Weights shrink by a tenth, JSON tenfold; a bomb a thousandfold.
RATIO_LIMIT = 200
RATIO_FROM_BYTES = 2**20

# What reading a damaged or exotic zip raises, besides BadZipFile.
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    EOFError,
    RuntimeError,
    NotImplementedError,
    UnicodeDecodeError,
    OSError,
    ValueError,
)


class PackageFiles(ABC):
    """The files beside one EMD.

    Attributes
    ----------
    where
        Names the package in messages.
    emd_name
        The EMD, relative to the package's root.
    """

    where: str
    emd_name: str

    @abstractmethod
    def read(self, name: str, limit_bytes: int = MEMBER_LIMIT_BYTES) -> bytes:
        """A file's content; the name is relative to the EMD.

        Raises
        ------
        BundleError
            The name leaves the package, or there is no such plain file, or it is too large.
        """

    def sha256(self, name: str) -> str:
        """Hex digest of a file's content. Raises BundleError, as :meth:`read`."""
        return hashlib.sha256(self.read(name)).hexdigest()


def plain_name(name: str, where: str) -> str:
    """A relative POSIX name without tricks; a leading ``.\\`` is dropped.

    Raises
    ------
    BundleError
        Absolute, with a drive letter, with ``..`` or with control characters.
    """
    cleaned = name.replace("\\", "/")
    if (
        cleaned.startswith("/")
        or re.match(r"^[A-Za-z]:", cleaned)
        or re.search(r"[\x00-\x1f]", name)
    ):
        raise BundleError(f"{where}: the file name {name!r} is not inside the package.")
    parts = [part for part in cleaned.split("/") if part not in ("", ".")]
    if not parts or ".." in parts:
        raise BundleError(f"{where}: the file name {name!r} is not inside the package.")
    return "/".join(parts)


class FolderFiles(PackageFiles):
    """A package as a folder on disk, by its EMD or its lone ONNX file."""

    def __init__(self, emd: Path) -> None:
        self._folder = emd.parent
        self.emd_name = emd.name
        self.where = str(emd)

    def read(self, name: str, limit_bytes: int = MEMBER_LIMIT_BYTES) -> bytes:
        return self._used(name, limit_bytes, Path.read_bytes)

    def sha256(self, name: str) -> str:
        # Weights may be large: their sum needs none of them in memory.
        return self._used(name, MEMBER_LIMIT_BYTES, sha256_file)

    def _used(self, name: str, limit_bytes: int, use: Callable[[Path], Used]) -> Used:
        path = self._folder / plain_name(name, self.where)
        if path.is_symlink() or not path.resolve().is_relative_to(self._folder.resolve()):
            raise BundleError(f"{self.where}: {name!r} is a link; a plain file was expected.")
        if not path.is_file():
            raise BundleError(f"{self.where}: there is no file {name!r} in its folder.")
        if path.stat().st_size > limit_bytes:
            raise BundleError(f"{self.where}: {name!r} is larger than {limit_bytes} bytes.")
        try:
            return use(path)
        except OSError as error:
            raise SourceError(f"{path} cannot be read: {error.strerror or error}.") from error


class ZipFiles(PackageFiles):
    """A package as a DLPK.

    Raises
    ------
    BundleError
        No zip, damaged, unsafe, or without exactly one EMD.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.where = str(path)
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.infolist()
        except _ZIP_ERRORS as error:
            raise BundleError(
                f"{path} is no readable DLPK (a zip file): {error}. Copy or save it again."
            ) from error
        _check_members(members, self.where)
        emds = [
            m.filename
            for m in members
            if m.filename.lower().endswith(".emd") and len(PurePosixPath(m.filename).parts) <= 2
        ]
        self.emd_name = one_emd(emds, self.where)
        self._prefix = self.emd_name.rpartition("/")[0]

    def read(self, name: str, limit_bytes: int = MEMBER_LIMIT_BYTES) -> bytes:
        relative = plain_name(name, self.where)
        member = f"{self._prefix}/{relative}" if self._prefix else relative
        try:
            with zipfile.ZipFile(self._path) as archive:
                try:
                    info = archive.getinfo(member)
                except KeyError:
                    raise BundleError(
                        f"{self.where}: there is no file {name!r} in the package."
                    ) from None
                if info.file_size > limit_bytes:
                    raise BundleError(f"{self.where}: {name!r} is larger than {limit_bytes} bytes.")
                with archive.open(info) as file:
                    # One byte more than stated would show a header that lies.
                    content = file.read(info.file_size + 1)
        except BundleError:
            raise
        except _ZIP_ERRORS as error:
            raise BundleError(f"{self.where}: {name!r} is damaged: {error}.") from error
        if len(content) != info.file_size:
            raise BundleError(f"{self.where}: {name!r} is not as long as the package states.")
        return content


def _check_members(members: Sequence[zipfile.ZipInfo], where: str) -> None:
    if len(members) > MEMBERS_LIMIT:
        raise BundleError(f"{where} holds {len(members)} files; at most {MEMBERS_LIMIT} are read.")
    names = [member.filename for member in members]
    if len(set(names)) != len(names):
        raise BundleError(f"{where} holds two files of the same name.")
    for member in members:
        name = member.filename
        if "\\" in member.orig_filename:
            raise BundleError(f"{where}: the file name {name!r} is not inside the package.")
        plain_name(name, where)
        if stat.S_ISLNK(member.external_attr >> 16):
            raise BundleError(f"{where}: {name!r} is a link; a plain file was expected.")
        if member.file_size > MEMBER_LIMIT_BYTES or (
            member.file_size > RATIO_FROM_BYTES
            and member.file_size > RATIO_LIMIT * max(member.compress_size, 1)
        ):
            raise BundleError(
                f"{where}: {name!r} would unpack to {member.file_size} bytes; it is refused."
            )
    total = sum(member.file_size for member in members)
    if total > TOTAL_LIMIT_BYTES:
        raise BundleError(f"{where} would unpack to {total} bytes; it is refused.")


def one_emd(names: Sequence[str], where: str) -> str:
    """The only EMD among file names.

    Raises
    ------
    BundleError
        None or several.
    """
    if len(names) == 1:
        return names[0]
    if not names:
        raise BundleError(f"{where} holds no model definition (.emd).")
    raise BundleError(
        f"{where} holds {len(names)} model definitions ({', '.join(sorted(names)[:3])}); "
        "name the one to use by its own path."
    )


def open_package(path: str | os.PathLike[str]) -> PackageFiles:
    """The files of a package given by its EMD, its DLPK or its folder, or of a lone ONNX file.

    Raises
    ------
    SourceNotFoundError
        There is nothing at the path.
    BundleError
        Something else lies there.
    """
    path = as_path(path, "the path of the model")
    if path.is_dir():
        names = [p.name for p in path.iterdir()]
        emds = [name for name in names if name.lower().endswith(".emd")]
        networks = [name for name in names if name.lower().endswith(".onnx")]
        if not emds and len(networks) == 1:
            return FolderFiles(path / networks[0])
        return FolderFiles(path / one_emd(emds, str(path)))
    if not path.is_file():
        raise SourceNotFoundError(
            f"There is no model at {path}; give the path of an .emd, a .dlpk, an .onnx or a "
            "saved folder."
        )
    suffix = path.suffix.lower()
    if suffix in (".emd", ".onnx"):
        return FolderFiles(path)
    if suffix == ".dlpk":
        return ZipFiles(path)
    raise BundleError(f"{path} is no model package; expected .emd, .dlpk, .onnx or a saved folder.")
