"""Reading an ONNX file from anywhere: what it takes and gives, whole in itself, under limits.

Nothing of it is run here. A file may keep its weights in other files; those must lie beside it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from geodl.base.errors import BundleError
from geodl.base.packages import require
from geodl.bundle.archive import PackageFiles, plain_name

SUFFIX = ".onnx"
LIMIT_BYTES = 2**31 - 1
"""What protobuf holds in one message."""
METADATA_LIMIT = 2**24

# Operators of ONNX itself, and those that onnxruntime brings; others need a library of their own.
_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
# Loads a compiled network from another file.
_REFUSED = frozenset({"EPContext"})
# What leaves each number as it is.
_PASSING = frozenset(
    {
        "Identity",
        "Cast",
        "Transpose",
        "Reshape",
        "Squeeze",
        "Unsqueeze",
        "Resize",
        "Upsample",
        "Slice",
    }
)
_ACTIVATIONS = {"Softmax": "softmax", "Sigmoid": "sigmoid", "HardSigmoid": "sigmoid"}
_TYPED_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")
_FLOATS = {"float16", "float32", "float64"}


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output.

    Parameters
    ----------
    dtype
        Of numpy.
    shape
        None where a side may have any length.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{self.name!r} ({', '.join('?' if n is None else str(n) for n in self.shape)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxFile:
    """An ONNX network with one input that was found sound.

    Parameters
    ----------
    where
        Its path, for messages.
    content
        The network with all its weights, wherever they lay.
    sha256
        Of each file, the network's own first.
    metadata
        Its texts by key.
    activations
        ``softmax``, ``sigmoid`` or an empty text by output: what it went through last.
    """

    where: str
    content: bytes
    sha256: Mapping[str, str]
    metadata: Mapping[str, str]
    input: Port
    outputs: tuple[Port, ...]
    activations: tuple[str, ...]

    def output(self, name: str) -> Port | None:
        """The output of that name."""
        return next((port for port in self.outputs if port.name == name), None)


def read_onnx(files: PackageFiles, name: str) -> OnnxFile:
    """Read an ONNX file of a package, or one that lies by itself.

    Raises
    ------
    BundleError
        Damaged, too large, with weights outside its folder or shapes that its bytes cannot hold,
        with operators that need a library, or with several inputs.
    MissingPackageError
        onnx is not installed.
    """
    content = files.read(name, LIMIT_BYTES)
    where = files.where if files.where.endswith(name) else f"{files.where}:{name}"
    model = _parsed(content, where)
    sums = {name: hashlib.sha256(content).hexdigest()}
    if _fill(model, files, where, sums, len(content)):
        content = model.SerializeToString()
    _check_operators(model, where)
    graph = model.graph
    return OnnxFile(
        where=where,
        content=content,
        sha256=sums,
        metadata=_metadata(model, where),
        input=_only_input(graph, where),
        outputs=tuple(_port(value, where) for value in graph.output),
        activations=tuple(_activation(graph, value.name) for value in graph.output),
    )


def _parsed(content: bytes, where: str) -> Any:
    """The model, with a graph that has outputs."""
    onnx = require("onnx", "export")
    decode_error = require("google.protobuf.message", "export").DecodeError
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except (decode_error, RuntimeError) as error:
        raise BundleError(
            f"{where} is no readable ONNX file: {error}. Copy or export it again."
        ) from error
    if not model.graph.output or not model.graph.node:
        raise BundleError(
            f"{where} is no readable ONNX file: it holds no network. Export it again."
        )
    return model


def _messages(root: Any) -> Iterator[Any]:
    """All messages in a message, tensors whole."""
    message_class = require("google.protobuf.message", "export").Message
    waiting = [root]
    while waiting:
        message = waiting.pop()
        yield message
        if message.DESCRIPTOR.name == "TensorProto":
            continue
        for field, value in message.ListFields():
            if field.message_type is None:
                continue
            waiting.extend([value] if isinstance(value, message_class) else value)


def _fill(model: Any, files: PackageFiles, where: str, sums: dict[str, str], size: int) -> bool:
    """Check every tensor; take in those that lie in other files. Returns whether there are any."""
    onnx = require("onnx", "export")
    outside: dict[str, bytes] = {}
    for message in _messages(model):
        if message.DESCRIPTOR.name == "SparseTensorProto":
            _check_dims(message.dims, "a sparse tensor", where)
        if message.DESCRIPTOR.name != "TensorProto":
            continue
        if message.data_location == onnx.TensorProto.EXTERNAL:
            size += _take_in(message, files, where, outside)
            if size > LIMIT_BYTES:
                raise BundleError(
                    f"{where} and the files of its weights are larger than {LIMIT_BYTES} bytes."
                )
        _check_tensor(message, where)
    sums |= {name: hashlib.sha256(content).hexdigest() for name, content in outside.items()}
    return bool(outside)


def _take_in(tensor: Any, files: PackageFiles, where: str, outside: dict[str, bytes]) -> int:
    """Move a tensor's bytes into it; returns how many."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    name = plain_name(entries.get("location", ""), f"{where}: the weights {tensor.name!r}")
    if name not in outside:
        outside[name] = files.read(name, LIMIT_BYTES)
    content = outside[name]
    texts = entries.get("offset", "0"), entries.get("length", str(len(content)))
    if not all(text.isdecimal() and len(text) < 20 for text in texts):
        raise BundleError(f"{where}: the weights {tensor.name!r} lie at no place in {name!r}.")
    start, length = map(int, texts)
    if "length" not in entries:
        length = len(content) - start
    if not 0 <= start <= start + length <= len(content):
        raise BundleError(
            f"{where}: the weights {tensor.name!r} lie beyond the {len(content)} bytes of {name!r}."
        )
    tensor.raw_data = content[start : start + length]
    del tensor.external_data[:]
    tensor.ClearField("data_location")
    return length


def _check_dims(dims: Any, what: str, where: str) -> int:
    """Number of elements."""
    count = math.prod(dims)
    if any(side < 0 for side in dims) or count > 8 * LIMIT_BYTES:
        raise BundleError(f"{where}: {what} claims the shape {tuple(dims)}; it is refused.")
    return count


def _check_tensor(tensor: Any, where: str) -> None:
    """Shape against bytes, and no number that is none."""
    onnx = require("onnx", "export")
    what = f"the weights {tensor.name!r}"
    count = _check_dims(tensor.dims, what, where)
    if tensor.data_type == onnx.TensorProto.STRING:
        held, needed = len(tensor.string_data), count
    elif tensor.HasField("raw_data"):
        held, needed = len(tensor.raw_data), -(-count * _bits(tensor, where) // 8)
    else:
        stored = sum(len(getattr(tensor, field)) for field in _TYPED_FIELDS)
        # Small kinds lie packed into wider numbers.
        held, needed = min(8 * stored, count), count
    if held != needed:
        raise BundleError(
            f"{where}: {what} claim the shape {tuple(tensor.dims)}, which its data does not hold; "
            "the file is damaged or made to harm."
        )
    dtype = _dtype_name(tensor.data_type)
    if dtype in _FLOATS:
        raw = tensor.raw_data
        values = (
            np.frombuffer(raw, f"<f{int(dtype[5:]) // 8}")
            if raw
            else np.asarray(tensor.double_data if dtype == "float64" else tensor.float_data)
        )
        # Infinite ones are used as bounds and masks.
        if bool(np.isnan(values).any()):
            raise BundleError(
                f"{where}: {what} hold numbers that are not finite; the model cannot be used."
            )


def _bits(tensor: Any, where: str) -> int:
    onnx = require("onnx", "export")
    names = onnx.TensorProto.DataType
    if tensor.data_type not in names.values():
        raise BundleError(f"{where}: the weights {tensor.name!r} are of an unknown kind.")
    name = names.Name(tensor.data_type)
    if name.endswith(("INT4", "FLOAT4E2M1")):
        return 4
    if name.endswith("INT2"):
        return 2
    if name.startswith("FLOAT8"):
        return 8
    dtype = _dtype_name(tensor.data_type)
    if dtype is None:
        raise BundleError(f"{where}: the weights {tensor.name!r} are of the unknown kind {name}.")
    return 8 * np.dtype(dtype).itemsize if name != "BFLOAT16" else 16


def _dtype_name(kind: int) -> str | None:
    """Numpy's name of a kind of element, of those that numpy has."""
    onnx = require("onnx", "export")
    try:
        return str(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind)).name)
    except (KeyError, TypeError):
        return None


def _check_operators(model: Any, where: str) -> None:
    own = {function.domain for function in model.functions}
    for message in _messages(model):
        if message.DESCRIPTOR.name != "NodeProto":
            continue
        if message.domain not in _DOMAINS | own or message.op_type in _REFUSED:
            raise BundleError(
                f"{where} uses the operator {message.op_type!r} of {message.domain or 'ONNX'!r}, "
                "which needs a library or another file; such a file is not run. Export it with "
                "operators of ONNX alone."
            )


def _metadata(model: Any, where: str) -> dict[str, str]:
    entries = model.metadata_props
    if sum(len(entry.key) + len(entry.value) for entry in entries) > METADATA_LIMIT:
        raise BundleError(f"{where}: the metadata is longer than {METADATA_LIMIT} characters.")
    return {entry.key: entry.value for entry in entries}


def _only_input(graph: Any, where: str) -> Port:
    """The one input that takes (B, C, H, W)."""
    constant = {tensor.name for tensor in graph.initializer}
    found = [value for value in graph.input if value.name not in constant]
    if len(found) != 1:
        names = ", ".join(repr(value.name) for value in found[:5]) or "none"
        raise BundleError(
            f"{where} has {len(found)} inputs ({names}); a network of one image has one."
        )
    port = _port(found[0], where)
    if len(port.shape) != 4 or port.shape[0] == 0:
        raise BundleError(
            f"{where}: the input {port} is no batch of images; expected (batch, bands, height, "
            "width)."
        )
    return port


def _port(value: Any, where: str) -> Port:
    kind = value.type.tensor_type
    dtype = _dtype_name(kind.elem_type) if value.type.HasField("tensor_type") else None
    if dtype is None or np.dtype(dtype).kind not in "fiu":
        raise BundleError(f"{where}: {value.name!r} holds no numbers.")
    shape = tuple(dim.dim_value if dim.dim_value > 0 else None for dim in kind.shape.dim)
    return Port(value.name, dtype, shape)


def _activation(graph: Any, name: str) -> str:
    """What an output went through last, besides what leaves each number as it is."""
    made = {output: node for node in graph.node for output in node.output}
    for _ in range(len(graph.node)):
        node = made.get(name)
        if node is None or not node.input:
            return ""
        if node.op_type not in _PASSING:
            return _ACTIVATIONS.get(node.op_type, "")
        name = node.input[0]
    return ""
