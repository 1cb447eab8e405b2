"""Commands that work: chips, training, inference, weights. Options come from the tools."""

from __future__ import annotations

import argparse
import os
from typing import Any

from geodl.cli.main import Run, Word
from geodl.cli.options import Pairs, add_options, given


def add_chips_export(parser: argparse.ArgumentParser) -> tuple[Run, Word]:
    from geodl.tools.export_training_data import export_training_data

    positional = ("input_raster", "input_class_data")
    names = add_options(parser, export_training_data, positional=positional)
    add_client(parser)

    def run(options: argparse.Namespace) -> dict[str, Any]:
        folder: Any = export_training_data(**given(options, names), **client_of(options))
        return expected(folder) or {"path": str(folder)}

    def word(value: dict[str, Any]) -> str:
        return expectation(value) if "worker_hours" in value else f"chips: {value['path']}"

    return run, word


def add_detect(parser: argparse.ArgumentParser) -> tuple[Run, Word]:
    from geodl.tools.detect_objects import detect_objects

    names = _add_inference(parser, detect_objects)

    def run(options: argparse.Namespace) -> dict[str, Any]:
        found = detect_objects(**model_of(given(options, names), options), **client_of(options))
        return counted_objects(found)

    return run, objects_word


def add_classify(parser: argparse.ArgumentParser) -> tuple[Run, Word]:
    from geodl.tools.classify_pixels import classify_pixels

    names = _add_inference(parser, classify_pixels)

    def run(options: argparse.Namespace) -> dict[str, Any]:
        result: Any = classify_pixels(
            **model_of(given(options, names), options), **client_of(options)
        )
        if (plan := expected(result)) is not None:
            return plan
        if isinstance(result, list):
            return {"path": [one.attrs["path"] for one in result]}
        if hasattr(result, "geometry"):
            return {"path": result.attrs["path"], "features": len(result)}
        rows, cols = result.shape[-2:]
        return {"path": result.attrs["path"], "width": cols, "height": rows}

    def word(value: dict[str, Any]) -> str:
        if "worker_hours" in value:
            return expectation(value)
        if isinstance(value["path"], list):
            return "\n".join(value["path"])
        if "features" in value:
            return f"{value['features']} features: {value['path']}"
        return f"{value['width']} x {value['height']} pixels: {value['path']}"

    return run, word


def add_change(parser: argparse.ArgumentParser) -> tuple[Run, Word]:
    from geodl.tools.detect_change import detect_change_using_deep_learning

    positional = ("from_raster", "to_raster", "model")
    names = add_options(parser, detect_change_using_deep_learning, positional=positional)
    add_client(parser)
    add_trust(parser)

    def run(options: argparse.Namespace) -> dict[str, Any]:
        result = detect_change_using_deep_learning(
            **model_of(given(options, names), options), **client_of(options)
        )
        if (plan := expected(result)) is not None:
            return plan
        paths = {name: result.attrs[name] for name in ("path", "polygons") if name in result.attrs}
        rows, cols = result.shape[-2:]
        return {**paths, "width": cols, "height": rows}

    def word(value: dict[str, Any]) -> str:
        if "worker_hours" in value:
            return expectation(value)
        lines = [f"{value['width']} x {value['height']} pixels: {value['path']}"]
        return "\n".join([*lines, *(f"areas: {p}" for p in [value.get("polygons")] if p)])

    return run, word


def _add_inference(parser: argparse.ArgumentParser, tool: Any) -> list[str]:
    names = add_options(parser, tool, positional=("input_raster", "model"))
    add_client(parser)
    add_trust(parser)
    return names


def add_trust(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--trust-code",
        action="store_true",
        help="run the Python source in the model's package: read it first",
    )


def model_of(values: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of a tool, with a model whose code is trusted if the user says so."""
    if not options.trust_code:
        return values
    from geodl.tools.model_package import Model

    return {**values, "model": Model(values["model"], trust_code=True)}


def counted_objects(found: Any) -> dict[str, Any]:
    """What is told of a frame of objects, or of the hours or plan in its place."""
    if (plan := expected(found)) is not None:
        return plan
    counts = found["Class"].value_counts().to_dict()
    return {"path": found.attrs["path"], "detections": len(found), "classes": counts}


def objects_word(value: dict[str, Any]) -> str:
    """The same for people."""
    if "worker_hours" in value:
        return expectation(value)
    parts = ", ".join(f"{count} {name}" for name, count in value["classes"].items())
    return f"{value['detections']} detections ({parts or 'none'}): {value['path']}"


def expected(found: Any) -> dict[str, Any] | None:
    """What ``--estimate`` or ``--dry-run`` gave; None for the result of a run."""
    from geodl.tools.label_job import LabelPlan
    from geodl.tools.preview import PointRunPlan, RunPlan

    if isinstance(found, float):
        return {"worker_hours": found}
    if isinstance(found, list) and found and isinstance(found[0], RunPlan | LabelPlan):
        plans = [plan.to_json() for plan in found]
        hours = [plan["worker_hours"] for plan in plans if plan["worker_hours"] is not None]
        text = "\n".join(map(str, found))
        return {"plan": text, "plans": plans, "worker_hours": sum(hours)}
    plan = isinstance(found, RunPlan | LabelPlan | PointRunPlan)
    return {"plan": str(found), **found.to_json()} if plan else None


def expectation(value: dict[str, Any]) -> str:
    return str(value.get("plan") or f"{value['worker_hours']:.3g} worker-hours expected")


def add_client(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--client",
        dest="connect_to",
        metavar="TARGET",
        default=os.environ.get("GEODL_CLIENT") or None,
        help="run on a Dask cluster: local, cuda, slurm, an address, a scheduler file or a recipe "
        "(default: GEODL_CLIENT)",
    )


def client_of(options: argparse.Namespace) -> dict[str, Any]:
    if options.connect_to is None:
        return {}
    from geodl.runtime.connect import connect

    return {"client": connect(options.connect_to)}


def add_train(parser: argparse.ArgumentParser) -> tuple[Run, Word]:
    from geodl.base.models import MODELS
    from geodl.data.prepare import prepare_data
    from geodl.models.base import TorchModel

    data_names = add_options(parser, prepare_data, positional=("path",))
    parser.add_argument("model", choices=sorted(MODELS), help="class of the model")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="the model's package")
    parser.add_argument(
        "--model-options",
        nargs="+",
        action=Pairs,
        metavar="NAME=VALUE",
        help="arguments of the model's class, backbone=resnet18 for example",
    )
    parser.add_argument(
        "--data-options",
        nargs="+",
        action=Pairs,
        metavar="NAME=VALUE",
        help="further keywords of prepare_data, split=block for example",
    )
    fit_names = add_options(parser, TorchModel.fit, without=("lr",))
    parser.add_argument("--lr", type=_rate, help="learning rate, or LOW:HIGH over the layers")
    parser.add_argument(
        "--unfreeze", action="store_true", help="train the backbone from the first epoch"
    )
    save_names = add_options(parser, TorchModel.save, without=("name_or_path",))

    def run(options: argparse.Namespace) -> dict[str, Any]:
        data = prepare_data(**given(options, data_names), **(options.data_options or {}))
        model = MODELS[options.model](data, **(options.model_options or {}))
        if options.unfreeze:
            model.unfreeze()
        model.fit(lr=options.lr, **given(options, fit_names))
        folder = model.save(options.output, **given(options, save_names))
        return {"path": str(folder), "epochs": model.record.rows}

    return run, lambda value: f"model: {value['path']}"


def _rate(text: str) -> Any:
    low, colon, high = text.partition(":")
    try:
        return slice(float(low), float(high)) if colon else float(low)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor LOW:HIGH") from None


def add_weights_fetch(parser: argparse.ArgumentParser) -> tuple[Run, Word]:
    parser.add_argument(
        "names",
        nargs="+",
        metavar="NAME",
        help="backbones, resnet34 for example, or detectors trained on COCO: "
        "fasterrcnn_resnet50_fpn_v2, maskrcnn_resnet50_fpn_v2, retinanet_resnet50_fpn_v2, "
        "PekingU/rtdetr_v2_r50vd",
    )
    parser.add_argument("--folder", default=None, help="default: GEODL_WEIGHTS")

    def run(options: argparse.Namespace) -> dict[str, Any]:
        from geodl.nets.weights import fetch

        return {"fetched": fetch(options.names, options.folder)}

    return run, lambda value: "fetched: " + ", ".join(value["fetched"])
