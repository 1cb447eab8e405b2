"""Optional packages, imported where they are used."""

from __future__ import annotations

import importlib
from types import ModuleType

from geodl.base.errors import MissingPackageError


def require(module: str, extra: str) -> ModuleType:
    """Import ``module``, or say which extra of geodl brings it.

    Raises
    ------
    MissingPackageError
        The package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackageError(
            f"This needs the package {module.partition('.')[0]!r}: pip install 'geodl[{extra}]'."
        ) from error
