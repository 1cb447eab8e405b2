"""Commands around detected objects: accuracy, overlaps, videos."""

from __future__ import annotations

import argparse
from typing import Any

from geodl.cli.main import Run, Word
from geodl.cli.options import add_options, given
from geodl.cli.work import add_client, client_of, expectation, expected


def add_accuracy(parser: argparse.ArgumentParser) -> tuple[Run, Word]:
    from geodl.tools.object_accuracy import compute_accuracy_for_object_detection as accuracy

    names = add_options(parser, accuracy, positional=("detected_features", "ground_truth_features"))
    add_client(parser)

    def run(options: argparse.Namespace) -> dict[str, Any]:
        table: Any = accuracy(**given(options, names), **client_of(options))
        if (plan := expected(table)) is not None:
            return plan
        rows = table.astype(object).where(table.notna(), None).to_dict("records")
        return {**table.attrs, "rows": rows}

    def word(value: dict[str, Any]) -> str:
        if "worker_hours" in value:
            return expectation(value)
        lines = [
            f"{row['Class']:20} IoU {row['Min_IoU']:.2f}  precision {row['Precision']:.3f}  "
            f"recall {row['Recall']:.3f}  F1 {row['F1_Score']:.3f}  AP {_share(row['AP'])}  "
            f"TP {row['True_Positive']}  FP {row['False_Positive']}  FN {row['False_Negative']}"
            for row in value["rows"]
        ]
        places = [f"table: {value['path']}"]
        places += [f"report: {value['report']}"] if value["report"] else []
        return "\n".join([*lines, *places])

    return run, word


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def add_suppress(parser: argparse.ArgumentParser) -> tuple[Run, Word]:
    from geodl.tools.non_max_suppression import non_max_suppression

    names = add_options(parser, non_max_suppression, positional=("features", "output_name"))

    def run(options: argparse.Namespace) -> dict[str, Any]:
        kept = non_max_suppression(**given(options, names))
        return {"path": kept.attrs["path"], "features": len(kept)}

    return run, lambda value: f"{value['features']} features kept: {value['path']}"


def add_video(parser: argparse.ArgumentParser) -> tuple[Run, Word]:
    from geodl.models.detector import DetectorModel

    parser.add_argument("model", help="a detector's .emd or .dlpk file, or its folder")
    names = add_options(
        parser, DetectorModel.predict_video, positional=("input_video_path", "metadata_file")
    )

    def run(options: argparse.Namespace) -> dict[str, Any]:
        values = given(options, names)
        _detector(options.model).predict_video(**values)
        return {"path": values["metadata_file"]}

    return run, lambda value: f"detections by frame: {value['path']}"


def _detector(path: str) -> Any:
    from geodl.base.errors import NotSupportedError
    from geodl.base.models import MODELS
    from geodl.bundle.read import read_bundle

    name = read_bundle(path).contract.model_name
    model_class = MODELS[name]
    if not hasattr(model_class, "predict_video"):
        raise NotSupportedError(f"{path} holds a {name}, which finds no objects in videos.")
    return model_class.from_model(path)
