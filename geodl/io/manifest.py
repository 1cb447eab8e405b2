"""The manifest beside a product: what it was made from, with what, and how long it took."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from geodl.base.errors import OutputError
from geodl.base.files import read_json, write_json
from geodl.base.places import place, remote_errors
from geodl.io.staging import output_error


def manifest_path(product: str | os.PathLike[str]) -> Path:
    """``<product>.manifest.json``; a folder's lies beside it, not in it."""
    path = place(str(product).rstrip("/\\"))
    return path.with_name(f"{path.name}.manifest.json")


def write_manifest(product: str | os.PathLike[str], manifest: dict[str, Any]) -> Path:
    """Write the manifest of a product atomically.

    Parameters
    ----------
    product
        Path of the product.
    manifest
        JSON values; numbers must be finite.

    Returns
    -------
    Where it lies.

    Raises
    ------
    OutputError
        It cannot be written, or holds something that JSON cannot.
    """
    path = manifest_path(product)
    try:
        write_json(path, manifest)
    except remote_errors() as error:
        raise output_error(path, error) from error
    except (TypeError, ValueError) as error:
        raise OutputError(f"The manifest {path} holds what JSON cannot: {error}") from error
    return path


def read_manifest(product: str | os.PathLike[str]) -> dict[str, Any]:
    """The manifest of a product.

    Raises
    ------
    SourceNotFoundError
        There is none.
    FormatError
        It is not JSON.
    """
    manifest: dict[str, Any] = read_json(manifest_path(product))
    return manifest
