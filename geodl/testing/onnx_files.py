"""ONNX files as other programs write them, with answers that are known beforehand.

For tests of what reads and runs them; the networks cost almost nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geodl.base.packages import require

OPSET, IR_VERSION = 17, 8
CELL_PX = 8
"""Side of the cells that :func:`spot_detector` finds."""


def onnx_bytes(
    nodes: Sequence[Any],
    *,
    shape: Sequence[int | str],
    outputs: Mapping[str, Sequence[int | str]],
    constants: Mapping[str, np.ndarray] | None = None,
    metadata: Mapping[str, Any] | None = None,
    dtype: str = "float32",
) -> bytes:
    """An ONNX network of nodes that take ``x``.

    Parameters
    ----------
    nodes
        Of ``onnx.helper.make_node``.
    shape, outputs
        Of the input and of each output, float32; texts are sides of any length.
    metadata
        Values that are no texts are written as JSON.
    dtype
        Of the input.
    """
    onnx = require("onnx", "export")
    make, kinds = onnx.helper, onnx.TensorProto
    graph = make.make_graph(
        list(nodes),
        "network",
        [make.make_tensor_value_info("x", make.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)],
        [make.make_tensor_value_info(k, kinds.FLOAT, list(v)) for k, v in outputs.items()],
        [onnx.numpy_helper.from_array(v, k) for k, v in (constants or {}).items()],
    )
    model = make.make_model(
        graph, opset_imports=[make.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    for key, value in (metadata or {}).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value if isinstance(value, str) else json.dumps(value)
    return bytes(model.SerializeToString())


def band_segmentor(
    path: Path,
    *,
    bands: int = 3,
    tile_px: int | str = 64,
    ending: str = "Softmax",
    dtype: str = "float32",
    batch: int | str = 1,
    **metadata: Any,
) -> Path:
    """Write a network that scores each pixel by its bands: the brightest band is the class.

    Parameters
    ----------
    tile_px
        A text for tiles of any side.
    ending
        ``Softmax``, ``Sigmoid`` (of the first band against a half), or an empty text for logits.
    **metadata
        Of the file; by default those of a Segmentor with background and two classes.
    """
    onnx = require("onnx", "export")
    one = ending == "Sigmoid"
    weight = np.zeros((1 if one else bands, bands, 1, 1), np.float32)
    weight[range(len(weight)), range(len(weight))] = 50
    bias = np.full(len(weight), -25 if one else 0, np.float32)
    last = "logits" if ending else "scores"
    node, plain = onnx.helper.make_node, dtype == "float32"
    nodes = (
        []
        if plain
        else [
            node("Cast", ["x"], ["numbers"], to=1),
            node("Div", ["numbers", "full"], ["pixels"]),
        ]
    )
    nodes.append(node("Conv", ["x" if plain else "pixels", "weight", "bias"], [last]))
    if ending == "Softmax":
        nodes.append(node("Softmax", ["logits"], ["scores"], axis=1))
    elif one:
        nodes.append(node("Sigmoid", ["logits"], ["scores"]))
    given = metadata or {
        "model_type": "Segmentor",
        "class_names": {"0": "_background", "1": "green", "2": "blue"},
    }
    path.write_bytes(
        onnx_bytes(
            nodes,
            shape=[batch, bands, tile_px, tile_px],
            outputs={"scores": [batch, len(weight), tile_px, tile_px]},
            constants={"weight": weight, "bias": bias, "full": np.array(255, np.float32)},
            metadata=given,
            dtype=dtype,
        )
    )
    return path


def spot_detector(
    path: Path,
    det_type: str = "YOLO_Ultralytics",
    *,
    bands: int = 3,
    tile_px: int = 64,
    objectness: float = 1.0,
    **metadata: Any,
) -> Path:
    """Write a network that gives every cell of 8 pixels as a box; a class for each band.

    The score of a class is the mean of its band, 0..1. With masks these are the bright pixels of
    the last band.

    Parameters
    ----------
    det_type
        As the QGIS plugin Deepness calls the order of the outputs.
    objectness
        Of every box, where the order has it.
    """
    onnx = require("onnx", "export")
    node, side = onnx.helper.make_node, tile_px // CELL_PX
    centres = (np.arange(side, dtype=np.float32) + 0.5) * CELL_PX
    y, x = np.meshgrid(centres, centres, indexing="ij")
    size = np.full(side * side, CELL_PX, np.float32)
    boxes = np.stack([x.ravel(), y.ravel(), size, size])[None]
    rows = det_type in ("YOLO_v5_or_v7_default", "YOLO_v6")
    before = [boxes, np.full((1, 1, side * side), objectness, np.float32)] if rows else [boxes]
    nodes = [
        node("AveragePool", ["x"], ["means"], kernel_shape=[CELL_PX] * 2, strides=[CELL_PX] * 2),
        node("Reshape", ["means", "flat"], ["classes"]),
        node("Concat", ["before", "classes"], ["columns" if rows else "found"], axis=1),
    ]
    if rows:
        nodes.append(node("Transpose", ["columns"], ["found"], perm=[0, 2, 1]))
    outputs: dict[str, Sequence[int | str]] = {}
    masks = det_type.endswith("segmentation")
    if masks:
        nodes[2].output[0] = "boxes"
        nodes += [
            node("Concat", ["boxes", "one"], ["found"], axis=1),
            node("Slice", ["x", "start", "stop", "axis"], ["last"]),
            node("AveragePool", ["last"], ["shares"], kernel_shape=[2, 2], strides=[2, 2]),
            node("Sub", ["shares", "half"], ["above"]),
            node("Mul", ["above", "steep"], ["maps"]),
        ]
        outputs["maps"] = [1, 1, tile_px // 2, tile_px // 2]
    count = 4 + rows + bands + masks
    shape = [1, side * side, count] if rows else [1, count, side * side]
    given = metadata or {
        "model_type": "Detector",
        "det_type": det_type,
        "class_names": {str(i): f"class {i}" for i in range(bands)},
        "det_conf": 0.6,
        "det_iou_thresh": 0.4,
    }
    content = onnx_bytes(
        nodes,
        shape=[1, bands, tile_px, tile_px],
        outputs={"found": shape, **outputs},
        constants={
            "one": np.ones((1, 1, side * side), np.float32),
            "start": np.array([bands - 1], np.int64),
            "stop": np.array([bands], np.int64),
            "axis": np.array([1], np.int64),
            "half": np.array(0.5, np.float32),
            "steep": np.array(50, np.float32),
            "before": np.concatenate(before, axis=1),
            "flat": np.array([1, bands, side * side], np.int64),
        },
        metadata=given,
    )
    path.write_bytes(content)
    return path
