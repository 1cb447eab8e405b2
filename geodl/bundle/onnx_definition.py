"""The model definition of an ONNX file: geodl's own, or told by the metadata of others.

Others are files for the QGIS plugin Deepness, whose documented keys are read, and exports of
Ultralytics, which name their task and classes.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from geodl.base.errors import BundleError, FormatError
from geodl.base.files import parse_json
from geodl.bundle.onnx_file import OnnxFile
from geodl.bundle.schema import CLASSES_LIMIT, TILE_LIMIT_PX
from geodl.core.contract import TaskKind

OWN_KEY = "geodl"
"""Metadata key of geodl's own files: their whole definition."""
LAYOUT_KEY = "onnx"
"""In the model parameters: how the network's outputs are read."""
FOREIGN_NAME = "OnnxModel"
"""Name of a model that no class of geodl made."""
DEFAULT_TILE_PX = 512

_OWN_LAYOUTS: dict[TaskKind, str] = {
    "pixels": "scores", "tiles": "labels", "objects": "boxes", "instances": "masks",
}  # fmt: skip
_MODEL_TYPES: dict[TaskKind, str] = {
    "pixels": "ImageClassification", "tiles": "ObjectClassification",
    "objects": "ObjectDetection", "instances": "InstanceDetection",
}  # fmt: skip
_KINDS: dict[str, TaskKind] = {"segmentor": "pixels", "detector": "objects", "classifier": "tiles"}
# Ultralytics names the task in its own words.
_TASKS = {"detect": "detector", "segment": "detector", "classify": "classifier"}
_BOX_LAYOUTS = {
    "yolo_v5_or_v7_default": "yolo5",
    "yolo_v6": "yolo6",
    "yolo_v9": "yolo8",
    "yolo_ultralytics": "yolo8",
    "yolo_ultralytics_segmentation": "prototypes",
}
_BACKGROUND = frozenset({"background", "bg", "nodata", "unlabeled", "unlabelled", "unclassified"})
_NAMES_LIMIT = 2**20


def own_layout(kind: TaskKind) -> dict[str, Any] | None:
    """How outputs of a file that geodl wrote are read; None of a kind that it writes none of."""
    layout = _OWN_LAYOUTS.get(kind)
    return None if layout is None else {"layout": layout}


def stated_layout(file: OnnxFile, kind: TaskKind, classes: int) -> dict[str, Any] | None:
    """How outputs of another program's file are read, given what its definition says it finds.

    Raises
    ------
    BundleError
        Outputs that do not fit the classes.
    """
    first = file.outputs[0]
    activation = {"activation": file.activations[0]}
    if kind == "pixels" and len(first.shape) == 4:
        channels = first.shape[1] or classes + 1
        if channels == classes == 1:
            return {"layout": "mask", **activation}
        if channels in (classes, classes + 1):
            return {"layout": "classes", "background": channels > classes, **activation}
    if kind == "tiles" and len(first.shape) == 2 and first.shape[1] in (None, classes):
        return {"layout": "labels", **activation}
    if kind in ("objects", "instances"):
        masks = ("masks",) if kind == "instances" else ()
        if all(file.output(name) for name in ("boxes", "scores", "labels", *masks)):
            return own_layout(kind)
        names, layout = _Foreign(file).boxes()
        fitting = (layout["layout"] == "prototypes") == (kind == "instances")
        if len(names) == classes and fitting:
            return layout
    if kind in _OWN_LAYOUTS:
        raise BundleError(
            f"{file.where}: the output {first} does not fit {classes} classes of {kind}."
        )
    return None


def identity_statistics(bands: int) -> dict[str, list[float]]:
    """``NormalizationStats`` of a network that takes the raw values."""
    zeros, ones = [0.0] * bands, [1.0] * bands
    return {
        "band_min_values": zeros, "band_max_values": ones,
        "scaled_mean_values": zeros, "scaled_std_values": ones,
    }  # fmt: skip


def definition_of(file: OnnxFile) -> tuple[dict[str, Any], dict[str, Any]]:
    """The EMD of an ONNX file without its files, and defaults of ``model_arguments``.

    Raises
    ------
    BundleError
        Metadata that is missing, wrong or of a kind of model that is not run; names the key.
    """
    if OWN_KEY in file.metadata:
        return _own(file), {}
    return _Foreign(file).definition()


def _own(file: OnnxFile) -> dict[str, Any]:
    try:
        emd = parse_json(file.metadata[OWN_KEY], f"{file.where}: the metadata {OWN_KEY!r}")
    except FormatError as error:
        raise BundleError(str(error)) from error
    if not isinstance(emd, dict) or not isinstance(emd.get("Geodl"), dict):
        raise BundleError(f"{file.where}: the metadata {OWN_KEY!r} is no model definition.")
    return emd


class _Foreign:
    """Metadata of another program as a model definition."""

    def __init__(self, file: OnnxFile) -> None:
        self.file = file
        _, channels, height, width = file.input.shape
        self.sides = height, width
        self.bands = channels or len(self._numbers("standardization_mean"))
        if not self.bands:
            raise self._fail(
                "standardization_mean", "is missing, and the input does not say how many bands"
            )

    def definition(self) -> tuple[dict[str, Any], dict[str, Any]]:
        kind = self._kind()
        names = self._names()
        if kind == "pixels":
            classes, layout = self._pixels(names)
        elif kind == "tiles":
            classes, layout = self._labels(names)
        else:
            classes, layout = self._boxes(names)
            kind = "instances" if layout["layout"] == "prototypes" else "objects"
        tile = self._tile()
        emd: dict[str, Any] = {
            "ModelName": FOREIGN_NAME,
            "ModelType": _MODEL_TYPES[kind],
            "ExtractBands": list(range(self.bands)),
            "ImageHeight": self.sides[0] or tile,
            "ImageWidth": self.sides[1] or tile,
            "Classes": [{"Value": i, "Name": name} for i, name in enumerate(classes, start=1)],
            "NormalizationStats": self._statistics(),
            "ModelParameters": {LAYOUT_KEY: layout},
        }
        if "resolution" in self.file.metadata:
            # In centimetres.
            cell = self._number("resolution", 1e-3, 1e9) / 100
            emd |= {"MinCellSize": {"x": cell, "y": cell}, "MaxCellSize": {"x": cell, "y": cell}}
        return emd, self._arguments(kind, tile)

    # ---- what it is

    def _kind(self) -> TaskKind:
        text = str(self._value("model_type", "")).lower()
        if not text and "task" in self.file.metadata:
            task = str(self._value("task", ""))
            text = _TASKS.get(task.lower(), task)
        if not text and len(self.file.outputs[0].shape) == 4:
            text = "segmentor"
        if text not in _KINDS:
            key = "model_type" if "task" not in self.file.metadata else "task"
            raise self._fail(
                key, f"is {text!r}; networks that are run are Segmentor, Detector and Classifier"
            )
        return _KINDS[text]

    def _pixels(self, names: list[str]) -> tuple[list[str], dict[str, Any]]:
        shape = self.file.outputs[0].shape
        if len(shape) != 4 or len(self.file.outputs) != 1:
            raise BundleError(
                f"{self.file.where}: the output {self.file.outputs[0]} of {len(self.file.outputs)} "
                "is no raster of scores; a Segmentor has one output (batch, classes, height, "
                "width)."
            )
        layout: dict[str, Any] = {"layout": "classes", "activation": self.file.activations[0]}
        channels = shape[1] or len(names)
        if channels == 1:
            return [names[-1] if names else "class_1"], {**layout, "layout": "mask"}
        if not channels or (names and len(names) != channels):
            raise self._fail("class_names", f"has {len(names)} names; the output has {shape[1]}")
        named = names or ["background", *(f"class_{i}" for i in range(1, channels))]
        plain = "".join(c for c in named[0].lower() if c.isalnum())
        layout["background"] = plain in _BACKGROUND
        return (named[1:] if layout["background"] else named), layout

    def _labels(self, names: list[str]) -> tuple[list[str], dict[str, Any]]:
        output = self.file.outputs[0]
        count = output.shape[1] if len(output.shape) == 2 else None
        count = count or len(names)
        if len(output.shape) != 2 or not count or (names and len(names) != count):
            raise self._fail(
                "class_names", f"has {len(names)} names; a Classifier gives (batch, classes), not "
                f"{output}"
            )  # fmt: skip
        activation = self.file.activations[0]
        layout = {"layout": "labels", "activation": activation}
        return names or [f"class_{i}" for i in range(1, count + 1)], layout

    def _boxes(self, names: list[str]) -> tuple[list[str], dict[str, Any]]:
        task = str(self._value("task", "")).lower()
        default = {"detect": "YOLO_Ultralytics", "segment": "YOLO_Ultralytics_segmentation"}
        text = str(self._value("det_type", default.get(task, "")))
        layout = _BOX_LAYOUTS.get(text.lower())
        if layout is None:
            raise self._fail("det_type", f"is {text!r}; read are {', '.join(_BOX_LAYOUTS)}")
        output = self.file.outputs[0]
        axis, before = (2, 5) if layout in ("yolo5", "yolo6") else (1, 4)
        more = self._mask_weights() if layout == "prototypes" else 0
        side = output.shape[axis] if len(output.shape) == 3 else -1
        count = len(names) or (side or 0) - before - more
        if count < 1 or (side is not None and side != before + count + more):
            columns = f"{before} + classes{f' + {more}' if more else ''}"
            rows = f"(1, {columns}, boxes)" if axis == 1 else f"(1, boxes, {columns})"
            raise self._fail("det_type", f"{text} stands for {rows}; the output is {output}")
        named = names or [f"class_{i}" for i in range(1, count + 1)]
        return named, {"layout": layout}

    def _mask_weights(self) -> int:
        """How many numbers of a box weigh the prototypes of masks, which are the second output."""
        masks = self.file.outputs[1] if len(self.file.outputs) == 2 else None
        if masks is None or len(masks.shape) != 4 or not masks.shape[1]:
            raise self._fail(
                "det_type", "stands for a second output (1, prototypes, height, width) of masks"
            )
        return masks.shape[1]

    def boxes(self) -> tuple[list[str], dict[str, Any]]:
        """Class names and layout of a detector."""
        return self._boxes(self._names())

    # ---- how it is run

    def _tile(self) -> int:
        for key in ("tile_size", "tiles_size"):
            if key in self.file.metadata:
                return int(self._number(key, 1, TILE_LIMIT_PX))
        return DEFAULT_TILE_PX

    def _statistics(self) -> dict[str, list[float]]:
        if self.file.input.dtype == "uint8":
            return identity_statistics(self.bands)
        mean = self._numbers("standardization_mean") or [0.0] * self.bands
        std = self._numbers("standardization_std") or [1.0] * self.bands
        if len(mean) != self.bands or len(std) != self.bands:
            raise self._fail("standardization_mean", f"and _std need {self.bands} numbers each")
        return {
            "band_min_values": [0.0] * self.bands, "band_max_values": [255.0] * self.bands,
            "scaled_mean_values": mean, "scaled_std_values": std,
        }  # fmt: skip

    def _arguments(self, kind: TaskKind, tile: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        known: Mapping[str, str] = {}
        if kind == "pixels":
            found = {"predict_background": True, "threshold": 0.5}
            known = {"threshold": "seg_thresh"}
        elif kind in ("objects", "instances"):
            found = {"threshold": 0.5}
            known = {"threshold": "det_conf", "nms_overlap": "det_iou_thresh"}
        for name, key in known.items():
            if key in self.file.metadata:
                found[name] = self._number(key, 0, 1)
        if "tiles_overlap" in self.file.metadata and kind != "tiles":
            share = self._number("tiles_overlap", 0, 90) / 100
            found["padding"] = int((self.sides[0] or tile) * share / 2)
        return found

    # ---- values

    def _fail(self, key: str, message: str) -> BundleError:
        return BundleError(f"{self.file.where}: the metadata {key!r} {message}.")

    def _value(self, key: str, default: Any = None) -> Any:
        """JSON, or the text as it is."""
        text = self.file.metadata.get(key)
        if text is None:
            return default
        try:
            return parse_json(text, key)
        except FormatError:
            return text

    def _number(self, key: str, low: float, high: float) -> float:
        value = self._value(key)
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if isinstance(value, bool) or not low <= number <= high:
            raise self._fail(key, f"is {_short(value)}; expected a number of {low:g} to {high:g}")
        return number

    def _numbers(self, key: str) -> list[float]:
        values = self._value(key, [])
        plain = isinstance(values, list) and all(type(v) in (int, float) for v in values)
        if not plain or len(values) > CLASSES_LIMIT or any(abs(v) > 1e9 for v in values):
            raise self._fail(key, f"is {_short(values)}; expected a list of numbers")
        return [float(v) for v in values]

    def _names(self) -> list[str]:
        """Class names by output; none where the file has none."""
        key = "class_names" if "class_names" in self.file.metadata else "names"
        value = _literal(self.file.metadata.get(key, ""))
        if isinstance(value, list) and value and all(isinstance(v, dict) for v in value):
            if len(value) != 1:
                raise self._fail(key, f"is of {len(value)} heads; networks with one are run")
            value = value[0]
        if isinstance(value, Mapping):
            value = self._in_order(key, value)
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise self._fail(key, f"is {_short(value)}; expected names by number")
        if len(value) > CLASSES_LIMIT or not all(isinstance(name, str) and name for name in value):
            raise self._fail(key, "holds what is no name")
        return list(value)

    def _in_order(self, key: str, table: Mapping[Any, Any]) -> list[Any]:
        by_number = {str(number): name for number, name in table.items()}
        wanted = [str(i) for i in range(len(table))]
        if sorted(by_number) != sorted(wanted):
            raise self._fail(key, "does not count from 0 without a gap")
        return [by_number[number] for number in wanted]


def _literal(text: str) -> Any:
    """JSON, or what Python prints of a dict or list; an empty list of no text."""
    if not text or len(text) > _NAMES_LIMIT:
        return [] if not text else None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"{text[:77]}..."
