"""STAC items as sources: which of their assets are rasters, and where they lie.

Items are known by their shape, so that pystac objects and plain GeoJSON both serve and pystac need
not be installed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin

from geodl.base.errors import OptionError, SourceError
from geodl.base.options import nearest

_RASTER_TYPES = ("image/tiff", "image/jp2", "image/vnd.stac.geotiff", "image/png", "image/jpeg")
_STORE_TYPES = ("application/vnd+zarr", "application/vnd.zarr", "application/x-netcdf")
_OTHER_ROLES = frozenset({"thumbnail", "overview", "metadata", "visual-preview"})
_SUFFIXES = (".tif", ".tiff", ".jp2", ".zarr", ".nc", ".vrt")


def is_stac_item(source: Any) -> bool:
    """Whether an object is a STAC item, as pystac has it or as a GeoJSON mapping."""
    if isinstance(source, Mapping):
        return source.get("type") == "Feature" and isinstance(source.get("assets"), Mapping)
    return hasattr(source, "assets") and hasattr(source, "to_dict")


def stac_items(source: Any) -> list[Any]:
    """The items of what a search gives: a pystac ItemCollection or a GeoJSON mapping; else none."""
    if isinstance(source, Mapping):
        found = source.get("features") if source.get("type") == "FeatureCollection" else None
    else:
        found = getattr(source, "items", None)
    if not isinstance(found, list) or not found or not all(map(is_stac_item, found)):
        return []
    return list(found)


def stac_assets(item: Any, names: tuple[str, ...]) -> list[tuple[str, str]]:
    """Names and places of the assets to read.

    Parameters
    ----------
    item
        What :func:`is_stac_item` accepts.
    names
        Assets by name; empty takes the only raster.

    Raises
    ------
    OptionError
        There is no such asset; lists those that there are.
    SourceError
        The item has no raster, or several and none is named.
    """
    content = item if isinstance(item, Mapping) else item.to_dict(transform_hrefs=False)
    label = f"the STAC item {content.get('id')!r}"
    rasters = [name for name, asset in content["assets"].items() if _is_raster(asset)]
    for name in names:
        if name not in content["assets"]:
            raise OptionError(
                f"{label} has no asset {name!r}.{nearest(name, rasters)} "
                f"Its rasters: {', '.join(rasters) or 'none'}."
            )
    if not names and len(rasters) != 1:
        remedy = f"choose with geodl.open_raster(..., variable=...): {', '.join(rasters)}"
        held = f"several rasters; {remedy}" if rasters else "no raster"
        raise SourceError(f"{label} holds {held}.")
    base = _base(item, content)
    return [(name, _place(content["assets"][name]["href"], base)) for name in names or rasters]


def _is_raster(asset: Mapping[str, Any]) -> bool:
    kind = str(asset.get("type") or "").lower()
    if _OTHER_ROLES & set(asset.get("roles") or ()):
        return False
    path = str(asset.get("href", "")).partition("?")[0].lower()
    return kind.startswith(_RASTER_TYPES + _STORE_TYPES) or (not kind and path.endswith(_SUFFIXES))


def _base(item: Any, content: Mapping[str, Any]) -> str | None:
    """Where the item itself lies, which relative places are told from."""
    own = getattr(item, "get_self_href", lambda: None)()
    links = content.get("links") or ()
    stated = [link.get("href") for link in links if link.get("rel") == "self"]
    return own or (stated[0] if stated else None)


def _place(href: str, base: str | None) -> str:
    if base is None or "://" in href or os.path.isabs(href):
        return href
    if "://" in base:
        return urljoin(base, href)
    return os.path.normpath(os.path.join(os.path.dirname(base), href))
