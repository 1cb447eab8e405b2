"""Commands on class rasters: polygons, lines, buildings, comparison with the truth."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from geodl.cli.main import Run, Word
from geodl.cli.options import add_options, given


def add_polygons(parser: argparse.ArgumentParser) -> tuple[Run, Word]:
    from geodl.tools.polygonize import polygonize

    return _add_layer(parser, polygonize, "raster")


def add_lines(parser: argparse.ArgumentParser) -> tuple[Run, Word]:
    from geodl.tools.extract_lines import extract_lines

    return _add_layer(parser, extract_lines, "raster")


def add_regularize(parser: argparse.ArgumentParser) -> tuple[Run, Word]:
    from geodl.tools.regularize_buildings import regularize_buildings

    return _add_layer(parser, regularize_buildings, "buildings")


def _add_layer(
    parser: argparse.ArgumentParser, function: Callable[..., Any], source: str
) -> tuple[Run, Word]:
    """A function that returns a layer, which the command writes."""
    names = add_options(parser, function, positional=(source,))
    parser.add_argument("output", help="layer to write: .parquet, .gpkg, .fgb, .geojson or .shp")
    parser.add_argument("--overwrite", action="store_true", help="replace a layer that is there")

    def run(options: argparse.Namespace) -> dict[str, Any]:
        from geodl.base.errors import OutputExistsError
        from geodl.io.writers import vector_writer, write_features

        path = Path(options.output)
        # Before the work: a format that is not offered.
        vector_writer(path.suffix)
        if path.exists() and not options.overwrite:
            raise OutputExistsError(f"{path} exists already; pass --overwrite to replace it.")
        found = function(**given(options, names))
        write_features(found, path)
        return {"path": str(path), "features": len(found)}

    return run, lambda value: f"{value['features']} features: {value['path']}"


def add_confusion(parser: argparse.ArgumentParser) -> tuple[Run, Word]:
    from geodl.tools.confusion_matrix import compute_confusion_matrix

    names = add_options(parser, compute_confusion_matrix, positional=("classified", "truth"))

    def run(options: argparse.Namespace) -> dict[str, Any]:
        found = compute_confusion_matrix(**given(options, names))
        scores = {"precision": found.precision, "recall": found.recall, "f1": found.f1}
        return {
            "values": list(map(int, found.values)),
            "counts": found.counts.tolist(),
            **{name: _numbers(values) for name, values in {**scores, "iou": found.iou}.items()},
            **{
                name: _numbers([getattr(found, name)])[0]
                for name in ("accuracy", "mean_iou", "kappa")
            },
        }

    def word(value: dict[str, Any]) -> str:
        rows = zip(value["values"], value["precision"], value["recall"], value["iou"], strict=True)
        lines = [
            f"class {code:<6} precision {_share(p)}  recall {_share(r)}  IoU {_share(iou)}"
            for code, p, r, iou in rows
        ]
        whole = ("accuracy", "mean_iou", "kappa")
        return "\n".join(
            [*lines, *(f"{name.replace('_', ' ')} {_share(value[name])}" for name in whole)]
        )

    return run, word


def _numbers(values: Any) -> list[float | None]:
    """JSON has no NaN: what is not defined is null."""
    return [None if number != number else float(number) for number in values]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
