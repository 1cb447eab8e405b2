"""Networks in formats that run without geodl: TorchScript and ONNX."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.onnx import symbolic_helper

from geodl.base.errors import OutputError
from geodl.base.packages import require

# What onnxruntime and torchvision's own operators (suppression, region pooling) both know.
OPSET = 17
_POOLING = "aten::adaptive_avg_pool2d"


def to_torchscript(module: nn.Module, example: Tensor) -> bytes:
    """A traced module, which ``torch.jit.load`` opens.

    Parameters
    ----------
    module
        In eval mode; takes one tensor.
    example
        Of the only shape that the result will take.

    Raises
    ------
    OutputError
        The module cannot be traced; says why.
    """
    buffer = io.BytesIO()
    with _quiet(), torch.no_grad():
        try:
            # No second run to compare: suppression gives other lengths for other pixels.
            traced = torch.jit.trace(module, example, check_trace=False)
            torch.jit.save(traced, buffer)
        except RuntimeError as error:
            raise _failed("TorchScript", error) from error
    return buffer.getvalue()


def to_onnx(module: nn.Module, example: Tensor, name: str, outputs: Sequence[str]) -> bytes:
    """A module as an ONNX model with one input.

    Parameters
    ----------
    module, example
        As in :func:`to_torchscript`.
    name
        Of the input.
    outputs
        Names of the outputs; their first axis may have any length.

    Raises
    ------
    OutputError
        The module uses what ONNX does not have; says what.
    MissingPackageError
        onnx is not installed.
    """
    require("onnx", "export")
    buffer = io.BytesIO()
    with _quiet(), torch.no_grad(), _pools_as_products():
        try:
            torch.onnx.export(
                module,
                (example,),
                buffer,  # type: ignore[arg-type]  # taken by the exporter that is asked for
                input_names=[name],
                output_names=list(outputs),
                dynamic_axes={output: {0: "objects"} for output in outputs},
                opset_version=OPSET,
                # Detectors loop over what they find, which the newer exporter does not follow.
                dynamo=False,
            )
        except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
            raise _failed("ONNX", error) from error
    return buffer.getvalue()


def _failed(target: str, error: Exception) -> OutputError:
    cause = (str(error).splitlines() or [type(error).__name__])[0]
    return OutputError(
        f"The network cannot be written as {target}: {cause}. Save it with framework='PyTorch'."
    )


def _shares(side: int, count: int) -> Tensor:
    """float32 (count, side): what each cell adds to each mean, with torch's own bounds."""
    table = torch.zeros(count, side)
    for i in range(count):
        start, stop = i * side // count, -(-(i + 1) * side // count)
        table[i, start:stop] = 1 / (stop - start)
    return table


def _pooled(graph: Any, x: Any, size: Any) -> Any:
    """Adaptive average pooling as two products; ONNX has it for sizes that divide only."""
    rows, cols = symbolic_helper._parse_arg(size, "is")
    height, width = x.type().sizes()[-2:]
    if None in (height, width):
        return symbolic_helper._unimplemented("adaptive_avg_pool2d", "of any size", x)
    down = graph.op("Constant", value_t=_shares(height, rows))
    across = graph.op("Constant", value_t=_shares(width, cols).T.contiguous())
    return graph.op("MatMul", graph.op("MatMul", down, x), across)


@contextmanager
def _pools_as_products() -> Iterator[None]:
    """Write every pooling to a grid with :func:`_pooled`."""
    torch.onnx.register_custom_op_symbolic(  # type: ignore[attr-defined]
        _POOLING, _pooled, OPSET
    )
    try:
        yield
    finally:
        torch.onnx.unregister_custom_op_symbolic(  # type: ignore[attr-defined]
            _POOLING, OPSET
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Tracers warn of every shape they keep, which is wanted here, and of their own age."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
