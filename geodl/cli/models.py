"""Commands for models and catalogs: check, export, label, publish, find."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from geodl.cli.look import as_lines
from geodl.cli.main import Run, Word
from geodl.cli.options import add_options, given
from geodl.cli.work import add_client, add_trust, client_of, expectation, expected, model_of


def add_verify(parser: argparse.ArgumentParser) -> tuple[Run, Word]:
    parser.add_argument("path", help="model package: .emd, .dlpk or the folder that save() wrote")
    return (
        lambda options: verify(options.path),
        lambda value: (
            f"sound: {value['path']} ({value['parts']} parts compared, weights fit the network)"
        ),
    )


def verify(path: str) -> dict[str, Any]:
    """Compare every part of a package with its sha256, and put its weights into its network."""
    from geodl.bundle.instantiate import instantiate
    from geodl.bundle.read import read_bundle

    bundle = read_bundle(path)
    parts = bundle.verify_parts()
    net, _ = instantiate(bundle)
    weights = sum(parameter.numel() for parameter in net.parameters())
    return {"path": path, "parts": len(parts), "parameters": weights, "sha256": bundle.sha256}


def add_export(parser: argparse.ArgumentParser) -> tuple[Run, Word]:
    parser.add_argument("path", help="model package: .emd, .dlpk or the folder that save() wrote")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="the new package")
    parser.add_argument(
        "--framework",
        default="ONNX",
        choices=("ONNX", "torchscript"),
        help="what the package holds besides the weights (default: ONNX)",
    )

    def run(options: argparse.Namespace) -> dict[str, Any]:
        from geodl.base.models import MODELS
        from geodl.bundle.read import read_bundle

        bundle = read_bundle(options.path)
        bundle.require_weights()
        model = MODELS[bundle.contract.model_name].from_model(options.path)
        folder = Path(model.save(options.output, framework=options.framework))
        suffix = ".onnx" if options.framework == "ONNX" else ".torchscript.pt"
        return {"path": str(folder), "file": str(folder / f"{folder.name}{suffix}")}

    return run, lambda value: f"{value['file']}"


def add_label(parser: argparse.ArgumentParser) -> tuple[Run, Word]:
    from geodl.tools.classify_objects import classify_objects

    names = add_options(
        parser,
        classify_objects,
        positional=("input_raster", "model"),
    )
    add_client(parser)
    add_trust(parser)

    def run(options: argparse.Namespace) -> dict[str, Any]:
        values = model_of(given(options, names), options)
        found: Any = classify_objects(**values, **client_of(options))
        if (plan := expected(found)) is not None:
            return plan
        field = options.class_label_field or "ClassLabel"
        counts = found[field].value_counts().to_dict()
        return {"path": found.attrs["path"], "features": len(found), "labels": counts}

    def word(value: dict[str, Any]) -> str:
        if "features" not in value or "labels" not in value:
            return expectation(value)
        parts = ", ".join(f"{count} {name}" for name, count in value["labels"].items())
        return f"{value['features']} features ({parts or 'no label'}): {value['path']}"

    return run, word


def add_train_model(parser: argparse.ArgumentParser) -> tuple[Run, Word]:
    from geodl.tools.train_model import train_model

    names = add_options(parser, train_model, positional=("input_folder", "model_type"))

    def run(options: argparse.Namespace) -> dict[str, Any]:
        found: Any = train_model(**given(options, names))
        item = hasattr(found, "assets")
        return {"path": str(found.assets["data"].href if item else found)}

    return run, lambda value: f"model: {value['path']}"


def add_model_list(parser: argparse.ArgumentParser) -> tuple[Run, Word]:
    from geodl.tools.model_package import list_models

    names = add_options(parser, list_models)

    def run(options: argparse.Namespace) -> list[dict[str, Any]]:
        return [model.query_info() for model in list_models(**given(options, names))]

    def word(value: list[dict[str, Any]]) -> str:
        rows = [f"{info['model_name']}  {info['kind']}  {info['path']}" for info in value]
        return "\n".join(rows) or "no models"

    return run, word


def add_install(parser: argparse.ArgumentParser) -> tuple[Run, Word]:
    return _add_method(parser, "install")


def add_uninstall(parser: argparse.ArgumentParser) -> tuple[Run, Word]:
    return _add_method(parser, "uninstall")


def _add_method(parser: argparse.ArgumentParser, method: str) -> tuple[Run, Word]:
    """A method of a package that takes a catalog."""
    from geodl.tools.model_package import Model

    parser.add_argument("path", help="model package: .emd, .dlpk or the folder that save() wrote")
    names = add_options(parser, getattr(Model, method))

    def run(options: argparse.Namespace) -> dict[str, Any]:
        return {f"{method}ed": getattr(Model(options.path), method)(**given(options, names))}

    return run, lambda value: "  ".join(map(str, value.values()))


def add_catalog_list(parser: argparse.ArgumentParser) -> tuple[Run, Word]:
    _add_root(parser)
    parser.add_argument("--text", help="occurs in id, title, description or facts")
    parser.add_argument("--kind", help="raster, features, points, table or model")
    parser.add_argument(
        "--bbox", nargs=4, type=float, metavar=("WEST", "SOUTH", "EAST", "NORTH"), help="degrees"
    )

    def run(options: argparse.Namespace) -> list[dict[str, Any]]:
        found = _catalog(options).search(options.text, options.bbox, options.kind)
        return [_facts(item) for item in found]

    def word(value: list[dict[str, Any]]) -> str:
        rows = [f"{item['id']}  {item['kind']}  {item['path']}" for item in value]
        return "\n".join(rows) or "nothing found"

    return run, word


def add_catalog_add(parser: argparse.ArgumentParser) -> tuple[Run, Word]:
    _add_root(parser)
    parser.add_argument("path", help="product or model to publish")
    parser.add_argument("--id", help="of the item (default: the file's name)")
    parser.add_argument("--title", help="for people")
    parser.add_argument("--description", default="", help="for people")
    parser.add_argument("--overwrite", action="store_true", help="replace an item of that id")

    def run(options: argparse.Namespace) -> dict[str, Any]:
        item = _catalog(options).add(
            options.path,
            id=options.id,
            title=options.title,
            description=options.description,
            overwrite=options.overwrite,
        )
        return _facts(item)

    return run, lambda value: f"{value['id']}: {value['path']}"


def add_catalog_get(parser: argparse.ArgumentParser) -> tuple[Run, Word]:
    _add_root(parser)
    parser.add_argument("id", help="of the item")
    return lambda options: _facts(_catalog(options).get(options.id)), as_lines


def add_catalog_remove(parser: argparse.ArgumentParser) -> tuple[Run, Word]:
    _add_root(parser)
    parser.add_argument("id", help="of the item")

    def run(options: argparse.Namespace) -> dict[str, Any]:
        _catalog(options).remove(options.id)
        return {"removed": options.id}

    return run, lambda value: f"removed: {value['removed']}"


def add_catalog_check(parser: argparse.ArgumentParser) -> tuple[Run, Word]:
    _add_root(parser)
    return (
        lambda options: {"valid": _catalog(options).validate()},
        lambda value: f"{value['valid']} items, all valid",
    )


def _add_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", help="folder or URL of the catalog")


def _catalog(options: argparse.Namespace) -> Any:
    from geodl.catalog.catalog import Catalog

    return Catalog(options.root)


def _facts(item: Any) -> dict[str, Any]:
    from geodl.catalog.items import FACTS_KEY, KIND_KEY

    return {
        "id": item.id,
        "kind": item.properties.get(KIND_KEY),
        "title": item.properties.get("title"),
        "path": item.assets["data"].href,
        "bbox": item.bbox,
        "facts": item.properties.get(FACTS_KEY, {}),
    }
