"""The command that classifies point clouds."""

from __future__ import annotations

import argparse
from typing import Any

from geodl.cli.main import Run, Word
from geodl.cli.options import add_options, given
from geodl.cli.work import (
    add_client,
    client_of,
    counted_objects,
    expectation,
    expected,
    objects_word,
)


def add_points(parser: argparse.ArgumentParser) -> tuple[Run, Word]:
    from geodl.tools.classify_points import classify_points

    names = add_options(parser, classify_points, positional=("points", "model"))
    add_client(parser)

    def run(options: argparse.Namespace) -> dict[str, Any]:
        result: Any = classify_points(**given(options, names), **client_of(options))
        if (hours := expected(result)) is not None:
            return hours
        codes, counts = _counts(result)
        return {
            "path": result.attrs["path"],
            "points": int(result.sizes["point"]),
            "classes": dict(zip(map(str, codes), counts, strict=True)),
        }

    def word(value: dict[str, Any]) -> str:
        if "worker_hours" in value:
            return expectation(value)
        parts = ", ".join(f"{count} of class {code}" for code, count in value["classes"].items())
        return f"{value['points']} points ({parts or 'none'}): {value['path']}"

    return run, word


def add_boxes(parser: argparse.ArgumentParser) -> tuple[Run, Word]:
    from geodl.tools.detect_objects_3d import detect_objects_3d

    names = add_options(parser, detect_objects_3d, positional=("points", "model"))
    add_client(parser)

    def run(options: argparse.Namespace) -> dict[str, Any]:
        found = detect_objects_3d(**given(options, names), **client_of(options))
        return counted_objects(found)

    return run, objects_word


def add_blocks(parser: argparse.ArgumentParser) -> tuple[Run, Word]:
    from geodl.tools.export_point_dataset import export_point_dataset

    names = add_options(parser, export_point_dataset, positional=("data_path", "output_path"))

    def run(options: argparse.Namespace) -> dict[str, Any]:
        return {"path": str(export_point_dataset(**given(options, names)))}

    return run, lambda value: f"blocks: {value['path']}"


def _counts(result: Any) -> tuple[list[int], list[int]]:
    """Class codes of the result and how many points have them."""
    import dask.array as da

    if not result.sizes["point"]:
        return [], []
    found = da.bincount(result.classification.data, minlength=256).compute()
    codes = found.nonzero()[0]
    return codes.tolist(), found[codes].tolist()


def describe_points(path: str) -> dict[str, Any]:
    """Facts about a point cloud; its points are not read."""
    from geodl.io.cloud import open_cloud
    from geodl.io.crs import crs_label

    cloud = open_cloud(path)
    extent = cloud.extent
    area = 0.0 if extent is None else (extent[2] - extent[0]) * (extent[3] - extent[1])
    return {
        "kind": "points",
        "path": path,
        "points": cloud.count,
        "crs": None if cloud.crs is None else crs_label(cloud.crs),
        "bounds": None if extent is None else list(extent),
        "density": cloud.count / area if area > 0 else None,
        "dimensions": list(cloud.fields),
        "files": [
            {
                "name": file.name,
                "las": file.facts["las_version"],
                "format": file.layout.format_id,
                "packed": file.layout.compressed,
                "points": file.count,
            }
            for file in cloud.files
        ],
    }
