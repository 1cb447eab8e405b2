"""STAC items of products and models: what a file is, where it lies on the ground, what is in it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pystac
import shapely
from pystac.extensions.file import FileExtension
from pystac.extensions.projection import ProjectionExtension
from pystac.extensions.raster import DataType, RasterBand, RasterExtension
from pystac.extensions.table import Column, TableExtension

from geodl.base.errors import DataError, FormatError, GeodlError, OptionError, SourceNotFoundError
from geodl.bundle.read import Bundle, read_bundle
from geodl.catalog.chip_items import chip_bounds, chip_facts, holds_chips
from geodl.catalog.model_items import describe_model
from geodl.io.crs import transform_bounds
from geodl.io.manifest import manifest_path, read_manifest
from geodl.io.source import open_source
from geodl.io.vector import read_features

Kind = Literal["raster", "features", "points", "table", "chips", "model"]
KINDS: tuple[Kind, ...] = ("raster", "features", "points", "table", "chips", "model")
KIND_KEY = "geodl:kind"
FACTS_KEY = "geodl:facts"

_RASTERS = {
    ".tif": "image/tiff; application=geotiff; profile=cloud-optimized",
    ".tiff": "image/tiff; application=geotiff",
    ".zarr": "application/vnd.zarr",
    ".nc": "application/netcdf",
    ".vrt": "application/xml",
}
_FEATURES = {
    ".parquet": "application/vnd.apache.parquet",
    ".gpkg": "application/geopackage+sqlite3",
    ".fgb": "application/vnd.flatgeobuf",
    ".geojson": "application/geo+json",
    ".shp": "application/vnd.shp",
}
_POINTS = {
    ".las": "application/vnd.las",
    ".laz": "application/vnd.laszip",
}
_TABLES = {".csv": "text/csv"}
_MODELS = {
    ".dlpk": "application/zip",
    ".emd": "application/json",
    ".onnx": "application/octet-stream",
}
_OTHERS = {
    ".html": "text/html", ".md": "text/markdown", ".png": "image/png", ".json": "application/json",
    ".safetensors": "application/octet-stream", ".py": "text/x-python",
}  # fmt: skip
_WGS84 = "EPSG:4326"


@dataclass
class Described:
    """What is known of a file or package before it has a place in a catalog.

    Parameters
    ----------
    kind
        What it is.
    files
        Name in the item's folder to path: all that belongs to it, the thing itself first.
    bounds
        West, south, east, north in degrees, or None.
    facts
        Plain values for people, shown on the page.
    """

    kind: Kind
    files: dict[str, Path]
    bounds: tuple[float, float, float, float] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    properties: dict[str, Any] = field(default_factory=dict)
    bundle: Bundle | None = None
    bands: list[dict[str, Any]] = field(default_factory=list)
    columns: list[dict[str, str]] = field(default_factory=list)
    rows: int | None = None

    @property
    def main(self) -> Path:
        return next(iter(self.files.values()))


def kind_of(path: Path) -> Kind:
    """What a path holds, by its suffix.

    Raises
    ------
    SourceNotFoundError
        There is nothing.
    OptionError
        Nothing that a catalog holds.
    """
    if not path.exists():
        raise SourceNotFoundError(f"There is nothing at {path} to add to the catalog.")
    suffix = path.suffix.lower()
    tables: Mapping[Kind, Mapping[str, str]] = {
        "raster": _RASTERS, "features": _FEATURES, "points": _POINTS, "table": _TABLES,
        "model": _MODELS,
    }  # fmt: skip
    for kind, suffixes in tables.items():
        if suffix in suffixes:
            return kind
    if path.is_dir() and holds_chips(path):
        return "chips"
    if path.is_dir() and any(p.suffix.lower() == ".emd" for p in path.iterdir()):
        return "model"
    known = sorted(s for table in tables.values() for s in table)
    raise OptionError(f"{path} is nothing that a catalog holds; known are {', '.join(known)}.")


def described(path: Path) -> Described:
    """Look into a file, a package or a store."""
    kind = kind_of(path)
    found = _LOOKS[kind](path)
    manifest = manifest_path(path)
    if kind != "model" and manifest.is_file():
        found.files[manifest.name] = manifest
        found.facts |= _facts_of_manifest(path)
    return found


def _facts_of_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = read_manifest(path)
    except GeodlError:
        return {}
    model = manifest.get("model")
    facts = {"tool": manifest.get("tool"), "started": manifest.get("started")}
    if isinstance(model, dict):
        facts["model"] = model.get("model_name")
        facts["model sha256"] = model.get("sha256")
    return {key: value for key, value in facts.items() if isinstance(value, str)}


def _raster(path: Path) -> Described:
    source = open_source(str(path))
    grid, names = source.grid, source.band_names
    bounds = (
        None if grid.crs is None else transform_bounds(grid.bounds, grid.crs, _WGS84, path.name)
    )
    facts = {"data_type": source.dtype.name, "nodata": source.nodata}
    bands: list[dict[str, Any]] = [
        {"name": names[k] if k < len(names) and names[k] else f"band {k + 1}", **facts}
        for k in range(source.count)
    ]
    size = f"{grid.width} x {grid.height} px, {source.count} x {source.dtype}"
    cell = " x ".join(f"{side:.6g}" for side in grid.cell_size_xy)
    return Described(
        "raster", {path.name: path}, bounds, {"size": size, "cell": cell}, bands=bands,
        properties={"proj:code": _code(grid.crs), "proj:shape": [grid.height, grid.width]},
    )  # fmt: skip


def _features(path: Path) -> Described:
    try:
        frame = read_features(str(path), may_be_empty=True, keep_missing=True)
    except DataError:
        if path.suffix.lower() == ".parquet":
            return _table(path)
        raise
    bounds = None
    total = tuple(float(side) for side in frame.total_bounds)
    if frame.crs is not None and all(side == side for side in total):
        crs = str(frame.crs.to_wkt())
        bounds = transform_bounds((total[0], total[1], total[2], total[3]), crs, _WGS84, path.name)
    files = {path.name: path}
    if path.suffix.lower() == ".shp":
        beside = (p for p in sorted(path.parent.glob(f"{path.stem}.*")) if p != path)
        files |= {p.name: p for p in beside}
    columns = [{"name": str(name), "type": str(kind)} for name, kind in frame.dtypes.items()]
    return Described(
        "features", files, bounds, {"features": len(frame)}, columns=columns, rows=len(frame),
        properties={"proj:code": _code(None if frame.crs is None else frame.crs.to_wkt())},
    )  # fmt: skip


def _table(path: Path) -> Described:
    import pandas as pd

    frame = pd.read_csv(path) if path.suffix.lower() == ".csv" else pd.read_parquet(path)
    columns = [{"name": str(name), "type": str(kind)} for name, kind in frame.dtypes.items()]
    rows = len(frame)
    return Described("table", {path.name: path}, None, {"rows": rows}, columns=columns, rows=rows)


def _points(path: Path) -> Described:
    from geodl.io.points import open_dataset

    cloud: Any = open_dataset(str(path))
    count, crs, bounds = int(cloud.sizes["point"]), cloud.geodl.crs, None
    if crs is not None and count:
        own = tuple(float(f(cloud[axis]).compute()) for f in _EDGES for axis in ("x", "y"))
        bounds = transform_bounds((own[0], own[1], own[2], own[3]), str(crs), _WGS84, path.name)
    return Described("points", {path.name: path}, bounds, {"points": count})


_EDGES = (lambda values: values.min(), lambda values: values.max())


def _model(path: Path) -> Described:
    bundle = read_bundle(path)
    bundle.require_own()
    if path.suffix.lower() == ".dlpk":
        files = {path.name: path}
    elif path.suffix.lower() == ".onnx":
        # Its weights may lie in further files.
        beside = bundle.emd["Geodl"]["sha256"]
        files = {name: path.parent / name for name in (path.name, *beside)}
    else:
        folder = path if path.is_dir() else path.parent
        inside = sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink())
        packed = [p for p in inside if p.suffix == ".dlpk"]
        definition = [p for p in inside if p.suffix == ".emd"]
        ordered = dict.fromkeys([*packed, *definition, *inside])
        files = {p.relative_to(folder).as_posix(): p for p in ordered}
    contract = bundle.contract
    facts: dict[str, Any] = {
        "model": contract.model_name, "classes": ", ".join(contract.classes.names[:20]),
        "sha256": bundle.sha256,
    }  # fmt: skip
    facts |= {k: v for k, v in bundle.metrics.items() if isinstance(v, str | float | int)}
    facts.pop("per_class_metrics", None)
    return Described("model", files, None, facts, bundle=bundle)


def _chips(path: Path) -> Described:
    return Described("chips", {path.name: path}, chip_bounds(path), chip_facts(path))


_LOOKS = {
    "raster": _raster, "features": _features, "points": _points, "table": _table,
    "chips": _chips, "model": _model,
}  # fmt: skip


def _code(crs: str | None) -> str | None:
    """The CRS as ``EPSG:<number>``, or None."""
    from pyproj import CRS

    code = None if crs is None else CRS(crs).to_epsg()
    return None if code is None else f"EPSG:{code}"


def make_item(
    item_id: str, found: Described, hrefs: Mapping[str, str], *, title: str, description: str
) -> pystac.Item:
    """The STAC item of something, with its files as assets.

    Parameters
    ----------
    hrefs
        File name to location, relative to the item; further ones than ``found.files`` are
        ``thumbnail.png``.
    """
    now = datetime.now(UTC)
    properties: dict[str, Any] = {
        "title": title,
        "created": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        KIND_KEY: found.kind,
        FACTS_KEY: found.facts,
        **{key: value for key, value in found.properties.items() if value is not None},
    }
    if description:
        properties["description"] = description
    west_south = found.bounds
    item = pystac.Item(
        id=item_id,
        geometry=None if west_south is None else shapely.geometry.mapping(_ground(west_south)),
        bbox=None if west_south is None else list(west_south),
        datetime=now,
        properties=properties,
    )
    main = next(iter(found.files))
    for name, href in hrefs.items():
        asset = pystac.Asset(
            href, title=name, media_type=_media_type(name), roles=_roles(name, main)
        )
        item.add_asset(_asset_key(name, main), asset)
        if name in found.files and found.files[name].is_file():
            FileExtension.ext(asset, add_if_missing=True).size = os.path.getsize(found.files[name])
    _add_extensions(item, found)
    return item


def _ground(bounds: tuple[float, float, float, float]) -> shapely.Geometry:
    return shapely.box(*bounds)


def _asset_key(name: str, main: str) -> str:
    if name == main:
        return "data"
    return "thumbnail" if name == "thumbnail.png" else name


def _roles(name: str, main: str) -> list[str]:
    if name == main:
        return ["data"]
    if name == "thumbnail.png":
        return ["thumbnail"]
    return ["metadata"] if name.endswith((".json", ".html", ".md")) else ["data"]


def _media_type(name: str) -> str | None:
    suffix = Path(name).suffix.lower()
    known = {**_RASTERS, **_FEATURES, **_POINTS, **_TABLES, **_MODELS, **_OTHERS}
    return known.get(suffix)


def _add_extensions(item: pystac.Item, found: Described) -> None:
    main = item.assets["data"]
    if any(key.startswith("proj:") for key in item.properties):
        ProjectionExtension.add_to(item)
    if found.bands:
        raster = RasterExtension.ext(main, add_if_missing=True)
        raster.apply(bands=[_raster_band(band) for band in found.bands])
    if found.columns and found.kind in ("features", "table"):
        table = TableExtension.ext(item, add_if_missing=True)
        table.columns = [
            Column({"name": column["name"], "type": column["type"]}) for column in found.columns
        ]
        table.row_count = found.rows
        if found.kind == "features":
            table.primary_geometry = next(
                (c["name"] for c in found.columns if c["type"] == "geometry"), "geometry"
            )
    if found.bundle is not None:
        describe_model(item, main, found.bundle)


def _raster_band(band: Mapping[str, Any]) -> RasterBand:
    nodata, known = band["nodata"], {kind.value for kind in DataType}
    name = band["data_type"]
    made = RasterBand.create(
        data_type=DataType(name if name in known else "other"),
        nodata=_nodata(nodata),
    )
    made.properties["name"] = band["name"]
    return made


def _nodata(value: float | None) -> Any:
    """A number, or the text that STAC has for one that JSON lacks."""
    if value is None or abs(value) < float("inf"):
        return value
    return "nan" if value != value else ("inf" if value > 0 else "-inf")


def check_item(content: Any, where: str) -> dict[str, Any]:
    """A dictionary that can be an item. Raises FormatError, which names the file."""
    if not isinstance(content, dict) or content.get("type") != "Feature" or "id" not in content:
        raise FormatError(f"{where} is no STAC item.")
    return content
