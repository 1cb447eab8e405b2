"""Networks in formats that run without geodl: TorchScript and ONNX."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from geodl.base.errors import OutputError
from geodl.base.packages import require

# What onnxruntime and torchvision's own operators (suppression, region pooling) both know.
OPSET = 17


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
    with _quiet(), torch.no_grad():
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
