"""Writing a model package: definition, weights, further files and the DLPK, whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import platform
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from geodl.base.errors import OptionError, OutputError, OutputExistsError
from geodl.base.files import write_atomic
from geodl.bundle.schema import SCHEMA_VERSION, own_keys
from geodl.core.contract import ModelContract

# Zip entries carry a date; a fixed one gives the same package for the same model.
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)
# Packed already.
_STORED_SUFFIXES = (".safetensors", ".png")


def package_files(
    name: str,
    emd: Mapping[str, Any],
    weights: bytes,
    *,
    contract: ModelContract,
    extra: Mapping[str, bytes] | None = None,
) -> dict[str, bytes]:
    """The files of a package by relative name, EMD last.

    Parameters
    ----------
    name
        Of the model; names the files.
    emd
        :func:`geodl.bundle.schema.definition` with metrics; file keys are added here.
    weights
        A safetensors file.
    contract
        Of the model: for what of it no documented key holds.
    extra
        Further files: report, pictures, optimiser.
    """
    weights_name = f"{name}.safetensors"
    whole = {
        **emd,
        "ModelFile": weights_name,
        "Geodl": {
            "schema": SCHEMA_VERSION,
            "version": version("geodl"),
            "versions": {"python": platform.python_version(), **_versions()},
            **own_keys(contract),
            "weights_sha256": {weights_name: hashlib.sha256(weights).hexdigest()},
            "sha256": {n: hashlib.sha256(part).hexdigest() for n, part in (extra or {}).items()},
        },
    }
    text = json.dumps(whole, indent=4, ensure_ascii=False, allow_nan=False) + "\n"
    return {weights_name: weights, **(extra or {}), f"{name}.emd": text.encode("utf-8")}


def _versions() -> dict[str, str]:
    """Of the packages that a network's answers depend on."""
    found = {}
    for name in ("torch", "torchvision", "timm", "numpy"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def zip_files(files: Mapping[str, bytes]) -> bytes:
    """A DLPK of files, entries at its root; the same bytes for the same files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name, _ZIP_DATE)
            stored = name.endswith(_STORED_SUFFIXES)
            info.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, content)
    return buffer.getvalue()


def check_name(name: str) -> str:
    """A model's name that is a plain file name everywhere.

    Raises
    ------
    OptionError
        Empty, with characters that some system forbids, or a dot name.
    """
    if not name.strip() or name.strip(".") == "" or any(c in '<>:"|?*\\/' for c in name):
        raise OptionError(f"{name!r} cannot be a model's name; use letters, digits, - and _.")
    return name


def write_package(folder: Path, files: dict[str, bytes]) -> None:
    """Write files into a model's folder.

    A new folder appears whole. In a folder that holds a package of the same name the files are
    replaced one by one, the EMD (which holds the sha256 of the weights) last; other files in it
    stay.

    Raises
    ------
    OutputExistsError
        The folder holds something else.
    OutputError
        It cannot be written.
    """
    emd = next(reversed(files))
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            if not (folder / emd).is_file():
                raise OutputExistsError(
                    f"{folder} holds something else than the model {Path(emd).stem!r}; "
                    "choose another name or remove it."
                )
            _replace_files(folder, files)
        else:
            _new_folder(folder, files)
    except OutputExistsError:
        raise
    except OSError as error:
        raise OutputError(
            f"The model cannot be written to {folder}: {error.strerror or error}. Free space, or "
            f"choose a folder that you may write to."
        ) from error


def _new_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".part"))
    try:
        temporary.chmod(0o755)
        _replace_files(temporary, files)
        os.replace(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _replace_files(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
