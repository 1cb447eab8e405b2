"""How a raster lies in a Zarr store: its array, axes and reference system, as readers expect them.

CRS and transform are told three times: by CF's grid mapping, which xarray, rioxarray and GDAL read;
and by the conventions ``spatial`` and ``proj`` for Zarr, which are newer.
"""

from __future__ import annotations

import base64
import struct
from typing import Any, Literal

import numpy as np
import pyproj
import zarr
from zarr.codecs import ZstdCodec

from geodl.core.grid import GeoGrid

# The variable that holds the pixels, and the one that holds CRS and transform.
VARIABLE = "raster"
GRID_MAPPING = "spatial_ref"
# Written last: a store without it was left half made.
_COMPLETE = {"Conventions": "CF-1.11"}
# Level 1 packs class maps and scores nearly as well as higher ones, at several times the speed.
_ZSTD_LEVEL = 1
_CONVENTIONS = (
    ("proj", "f17cb550-5864-4468-aeb7-f3180cfb622f", "Coordinate reference system"),
    ("spatial", "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4", "Spatial coordinates"),
)

ZarrFormat = Literal[2, 3]


def lay_out(
    path: str,
    grid: GeoGrid,
    count: int,
    chunk: tuple[int, int],
    dtype: np.dtype[Any],
    fill: float,
    *,
    band_names: tuple[str, ...] | None,
    attributes: dict[str, Any],
    zarr_format: ZarrFormat,
) -> None:
    """Make a store for a raster of ``count`` bands, and replace what is there."""
    group = zarr.create_group(path, zarr_format=zarr_format, overwrite=True)
    scalar = dtype.type(fill).item()
    array = _array(
        group,
        VARIABLE,
        ("band", "y", "x"),
        shape=(count, *grid.shape),
        chunks=(count, *chunk),
        dtype=dtype,
        fill_value=scalar,
        compressors={"id": "zstd", "level": _ZSTD_LEVEL}
        if zarr_format == 2
        else ZstdCodec(level=_ZSTD_LEVEL),
    )
    stated: dict[str, Any] = {"grid_mapping": GRID_MAPPING}
    if zarr_format == 3:
        # Of a store of format 2 xarray takes the array's own fill value.
        stated["_FillValue"] = _fill_attribute(scalar)
    attributes = stated | attributes
    if band_names is not None:
        attributes["long_name"] = list(band_names)
    _state(array, attributes)
    _write_grid_mapping(group, grid)
    _write_axes(group, grid, count, band_names)
    # On the group and not the array: a part cut from the array would keep the whole's transform.
    _state(group, _conventions(grid) | _COMPLETE)


def is_complete(path: str) -> bool:
    """Whether a store that :func:`lay_out` made to the end is there.

    Raises
    ------
    OSError
        The place cannot be read.
    """
    try:
        group = zarr.open_group(path, mode="r", use_consolidated=False)
        return _COMPLETE.items() <= group.attrs.asdict().items() and VARIABLE in group
    except (FileNotFoundError, KeyError, ValueError):
        return False


def _array(group: zarr.Group, name: str, dimensions: tuple[str, ...], **options: Any) -> Any:
    if group.metadata.zarr_format == 3:
        return group.create_array(name, dimension_names=dimensions, **options)
    array = group.create_array(name, **options)
    array.attrs["_ARRAY_DIMENSIONS"] = list(dimensions)
    return array


def _state(node: Any, facts: dict[str, Any]) -> None:
    """Add attributes in one write; ``attrs.update`` sends the metadata once for each of them."""
    node.attrs.put(node.attrs.asdict() | facts)


def _conventions(grid: GeoGrid) -> dict[str, Any]:
    """Attributes of the conventions ``spatial`` and, with a CRS, ``proj``."""
    a, b, c, d, e, f = grid.transform
    facts: dict[str, Any] = {
        "spatial:dimensions": ["y", "x"],
        "spatial:shape": [grid.height, grid.width],
        "spatial:bbox": list(grid.bounds),
        "spatial:transform_type": "affine",
        "spatial:transform": [a, b, c, d, e, f],
        "spatial:registration": "pixel",
    }
    used = _CONVENTIONS if grid.crs is not None else _CONVENTIONS[1:]
    if grid.crs is not None:
        crs = pyproj.CRS(grid.crs)
        facts["proj:wkt2"] = crs.to_wkt("WKT2_2019")
        authority = crs.to_authority()
        if authority is not None:
            facts["proj:code"] = ":".join(authority)
    facts["zarr_conventions"] = [
        {
            "uuid": uuid,
            "name": name,
            "description": text,
            "spec_url": f"https://github.com/zarr-conventions/{name}/blob/v0.1/README.md",
        }
        for name, uuid, text in used
    ]
    return facts


def _write_grid_mapping(group: zarr.Group, grid: GeoGrid) -> None:
    a, b, c, d, e, f = grid.transform
    mapping = _array(group, GRID_MAPPING, (), shape=(), dtype="int64")
    facts: dict[str, Any] = {"GeoTransform": f"{c!r} {a!r} {b!r} {f!r} {d!r} {e!r}"}
    if grid.crs is not None:
        # CF's own parameters besides the WKT, where the projection has a name in CF.
        named = pyproj.CRS(grid.crs).to_cf()
        facts |= {key: value for key, value in named.items() if value is not None}
        facts |= {"crs_wkt": grid.crs, "spatial_ref": grid.crs}
    _state(mapping, facts)
    mapping[...] = 0


def _write_axes(
    group: zarr.Group, grid: GeoGrid, count: int, band_names: tuple[str, ...] | None
) -> None:
    """Coordinates as CF has them."""
    a, b, c, d, e, f = grid.transform
    geographic = grid.crs is not None and pyproj.CRS(grid.crs).is_geographic
    if b == 0 and d == 0:
        _axis(group, "x", c + a * (np.arange(grid.width) + 0.5), geographic)
        _axis(group, "y", f + e * (np.arange(grid.height) + 0.5), geographic)
    band = _array(group, "band", ("band",), shape=(count,), dtype="int64")
    band[:] = np.arange(1, count + 1)
    if band_names is not None:
        _state(band, {"long_name": list(band_names)})


def _axis(group: zarr.Group, name: str, values: np.ndarray, geographic: bool) -> None:
    # One chunk per axis: zarr would cut it into many small files.
    array = _array(group, name, (name,), shape=values.shape, chunks=values.shape, dtype="float64")
    array[:] = values
    kind = {"x": ("longitude", "degrees_east"), "y": ("latitude", "degrees_north")}[name]
    standard = kind[0] if geographic else f"projection_{name}_coordinate"
    facts = {"axis": name.upper(), "standard_name": standard}
    _state(array, facts | ({"units": kind[1]} if geographic else {}))


def _fill_attribute(fill: Any) -> Any:
    """A nodata value as xarray keeps it in Zarr v3: floats as base64 of their eight bytes."""
    if isinstance(fill, float):
        return base64.standard_b64encode(struct.pack("<d", fill)).decode("ascii")
    return fill
