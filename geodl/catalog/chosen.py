"""The catalog that a call means by ``gis``."""

from __future__ import annotations

import os
from typing import Any

from geodl.base.errors import OptionError
from geodl.catalog.catalog import Catalog

VARIABLE = "GEODL_CATALOG"


def chosen_catalog(gis: Any, where: str) -> Catalog:
    """The catalog given as ``gis``, or the one that the environment names.

    Parameters
    ----------
    gis
        A :class:`Catalog`, the path of one, or None for the folder or URL in ``GEODL_CATALOG``.
    where
        The call, for the message.

    Raises
    ------
    OptionError
        None of these.
    """
    if isinstance(gis, Catalog):
        return gis
    if isinstance(gis, str | os.PathLike):
        return Catalog(gis)
    named = os.environ.get(VARIABLE, "").strip()
    if gis is None and named:
        return Catalog(named)
    given = "no gis" if gis is None else f"gis={gis!r}"
    raise OptionError(
        f"{where} works on a catalog, and {given} was given: pass gis=geodl.Catalog(folder), or "
        f"set {VARIABLE} to the folder of one."
    )
