"""Commands that look: what a raster, a chip folder, a model package or a layer is."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geodl.cli.main import Run, Word
from geodl.formats.base import ESRI_EMD, ESRI_MAP

_FEATURE_SUFFIXES = frozenset(
    {".gpkg", ".parquet", ".geoparquet", ".fgb", ".geojson", ".shp", ".json"}
)


def add_info(parser: argparse.ArgumentParser) -> tuple[Run, Word]:
    parser.add_argument(
        "path", help="raster, point cloud, chip folder, model (.emd, .dlpk, folder) or features"
    )
    return lambda options: describe(options.path), as_lines


def add_chips_info(parser: argparse.ArgumentParser) -> tuple[Run, Word]:
    parser.add_argument("path", help="folder of exported training chips")
    parser.add_argument(
        "--dataset-type",
        default=None,
        metavar="FORMAT",
        help="what a folder without the export's own metadata holds",
    )
    return lambda options: describe_chips(options.path, options.dataset_type), as_lines


def add_model_info(parser: argparse.ArgumentParser) -> tuple[Run, Word]:
    parser.add_argument("path", help="model package: .emd, .dlpk or the folder that save() wrote")
    return lambda options: describe_model(options.path), as_lines


def describe(path: str) -> dict[str, Any]:
    """Facts about whatever lies at ``path``."""
    place = Path(path)
    suffix = place.suffix.lower()
    if suffix in (".emd", ".dlpk"):
        return describe_model(path)
    if place.is_dir() and suffix != ".zarr":
        if (place / ESRI_MAP).exists() or (place / ESRI_EMD).exists():
            return describe_chips(path)
        return describe_model(path)
    if suffix in _FEATURE_SUFFIXES:
        return describe_features(path)
    if suffix in (".las", ".laz"):
        from geodl.cli.points import describe_points

        return describe_points(path)
    return describe_raster(path)


def describe_raster(path: str) -> dict[str, Any]:
    from geodl.io.crs import crs_label
    from geodl.io.source import open_source

    source = open_source(path)
    grid = source.grid
    nodata = source.nodata
    return {
        "kind": "raster",
        "path": path,
        "width": grid.width,
        "height": grid.height,
        "bands": source.count,
        "band_names": [name for name in source.band_names if name],
        "dtype": source.dtype.name,
        # JSON has no NaN.
        "nodata": "nan" if nodata is not None and math.isnan(nodata) else nodata,
        "crs": crs_label(grid.crs),
        "cell_size": list(grid.cell_size_xy),
        "bounds": list(grid.bounds),
    }


def describe_features(path: str) -> dict[str, Any]:
    from geodl.io.crs import crs_label
    from geodl.io.vector import read_features

    layer = read_features(path)
    return {
        "kind": "features",
        "path": path,
        "rows": len(layer),
        "geometry": sorted({str(name) for name in layer.geom_type.dropna()}),
        "fields": [str(name) for name in layer.columns if name != layer.geometry.name],
        "crs": crs_label(None if layer.crs is None else layer.crs.to_wkt()),
        "bounds": [float(value) for value in layer.total_bounds] if len(layer) else None,
    }


def describe_chips(path: str, dataset_type: str | None = None) -> dict[str, Any]:
    from geodl.formats import count_labels, open_export
    from geodl.formats.layouts import describe_layout, layout_of

    sides = [Path(path) / side for side in ("A", "B")]
    if all((side / ESRI_MAP).exists() for side in sides):
        # The two image domains of CycleGAN are an export each.
        return {"kind": "chips", "path": path, **{s.name: describe_chips(str(s)) for s in sides}}
    name = layout_of(Path(path), dataset_type)
    if name is not None:
        return {"kind": "training data", **describe_layout(Path(path), name)}
    folder = open_export(path, dataset_type)
    counts = folder.class_counts or count_labels(folder)
    unit = {"tiles": "chips", "instances": "objects", "panoptic": "pixels"}.get(
        folder.kind, folder.kind
    )
    return {
        "kind": "chips",
        "path": path,
        "format": folder.metadata_mode,
        "chips": len(folder),
        "tile_size": list(folder.tile_size),
        "bands": folder.bands,
        "band_names": list(folder.band_names),
        "dtype": folder.dtype,
        "image_space": folder.image_space,
        "classes": [
            {"value": entry.value, "name": entry.name, unit: counts.get(entry.value, 0)}
            for entry in folder.classes
        ],
    }


def describe_model(path: str) -> dict[str, Any]:
    from geodl.bundle import read_bundle

    bundle = read_bundle(path)
    return {
        "kind": "model",
        "path": path,
        **{("task" if key == "kind" else key): v for key, v in bundle.contract.describe().items()},
        "parameters": dict(bundle.parameters),
        "metrics": dict(bundle.metrics),
        "made_by_geodl": not bundle.foreign,
        "sha256": bundle.sha256,
    }


def as_lines(value: Mapping[str, Any]) -> str:
    """Facts for people: one line each, lists of facts as a table."""
    width = max(len(key) for key in value)
    lines = []
    for key, fact in value.items():
        label = key.replace("_", " ").ljust(width)
        if isinstance(fact, list) and fact and isinstance(fact[0], Mapping):
            lines.append(label.rstrip())
            lines += ["    " + _inline(row) for row in fact]
        elif isinstance(fact, Mapping):
            lines.append(f"{label}  {_inline(fact)}")
        else:
            lines.append(f"{label}  {_plain(fact)}")
    return "\n".join(lines)


def _inline(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.lower()} {_plain(fact)}" for key, fact in row.items())


def _plain(fact: Any) -> str:
    if isinstance(fact, float):
        return f"{fact:.10g}"
    if isinstance(fact, list | tuple):
        return " ".join(_plain(part) for part in fact) or "-"
    return "-" if fact is None or fact == {} else str(fact)
