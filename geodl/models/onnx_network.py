"""Networks in ONNX files, run by onnxruntime in place of a network of torch."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geodl.base.errors import BundleError, OptionError
from geodl.base.packages import require
from geodl.bundle.onnx_definition import OWN_KEY
from geodl.bundle.onnx_file import OnnxFile, Port
from geodl.nets.memory import free_bytes

# A share of 0 would be a score of minus infinity, and the odds of 1 infinite.
_LEAST = float(np.finfo(np.float32).tiny)


class OnnxNetwork(nn.Module):
    """An ONNX network that takes and gives tensors of torch; it cannot be trained.

    Parameters
    ----------
    file
        Found sound.

    Raises
    ------
    BundleError
        onnxruntime refuses it.
    """

    def __init__(self, file: OnnxFile) -> None:
        super().__init__()
        self.file = file
        self.session: Any = None
        self._opened = "", 0
        self._open("cpu")

    def outputs(self, x: Tensor) -> list[list[np.ndarray]]:
        """What the network gives for a batch: arrays in order of its outputs, of every run.

        Runs are of as many images as the network takes: all, or a fixed number.
        """
        port = self.file.input
        for side, taken in zip(x.shape[2:], port.shape[2:], strict=True):
            if taken not in (None, side):
                raise OptionError(
                    f"{self.file.where} takes tiles of {taken} px only, not {side}; leave "
                    "tile_size and tta_scales out"
                )
        self._open(x.device.type)
        pixels = x.detach().cpu().contiguous().numpy()
        pixels = _cast(pixels, np.dtype(port.dtype))
        size = port.shape[0] or len(pixels)
        runs = []
        for start in range(0, len(pixels), size):
            part = pixels[start : start + size]
            short = size - len(part)
            if short:
                part = np.concatenate([part, np.zeros((short, *part.shape[1:]), part.dtype)])
            runs.append(self._run(part))
        return runs

    def working_bytes(self, tile_px: int, batch: int) -> int:
        """Most bytes that lie between the network's operators at one time, for a batch of tiles.

        Told from the shapes in the file; operators whose shape is known only when they run count
        as nothing.
        """
        onnx = require("onnx", "export")
        model = onnx.load_from_string(self.file.content)
        sides = (self.file.input.shape[0] or batch, *self.file.input.shape[1:2], tile_px, tile_px)
        port = next(value for value in model.graph.input if value.name == self.file.input.name)
        for dim, side in zip(port.type.tensor_type.shape.dim, sides, strict=True):
            if side is not None:
                dim.dim_value = side
        try:
            model = onnx.shape_inference.infer_shapes(model)
        except (onnx.shape_inference.InferenceError, ValueError):
            return 0
        return _most_alive(model.graph)

    def _run(self, pixels: np.ndarray) -> list[np.ndarray]:
        try:
            found = self.session.run(None, {self.file.input.name: pixels})
        except _runtime_errors() as error:
            raise BundleError(f"{self.file.where} cannot be run: {_first_line(error)}") from error
        return [np.asarray(part) for part in found]

    def _open(self, device: str) -> None:
        """Run where the tensors lie, if onnxruntime was built for it, on torch's threads."""
        threads = torch.get_num_threads()
        if (device, threads) != self._opened:
            self.session = _session(self.file, device, threads)
            self._opened = device, threads


class PixelNetwork(OnnxNetwork):
    """Scores of pixels as logits, background first.

    Parameters
    ----------
    layout
        ``scores``: probabilities, background first. ``classes``: probabilities or logits by
        ``activation``, with or without ``background``. ``mask``: of one class alone.
    classes
        K.
    """

    def __init__(self, file: OnnxFile, layout: Mapping[str, Any], classes: int) -> None:
        super().__init__(file)
        self.layout, self.classes = layout, classes

    def forward(self, x: Tensor) -> Tensor:
        """float32 (B, K + 1, H, W)."""
        runs = [run[0] for run in self.outputs(x)]
        scores = _joined(runs, x, self.file.outputs[0], self.file.where)
        own = self.layout["layout"]
        channels = self.classes + (own == "scores" or bool(self.layout.get("background")))
        if scores.shape != (len(x), channels, *x.shape[2:]):
            raise BundleError(
                f"{self.file.where} gives {tuple(scores.shape)} for {tuple(x.shape)}; expected "
                f"{(len(x), channels, *x.shape[2:])}."
            )
        return self._logits(scores)

    def _logits(self, scores: Tensor) -> Tensor:
        own, activation = self.layout["layout"], self.layout.get("activation")
        if own == "mask":
            logits = scores if activation != "sigmoid" else torch.logit(scores, _LEAST)
            return torch.cat([torch.zeros_like(logits), logits], dim=1)
        if own == "scores" or activation:
            scores = scores.log()
        if own == "classes" and not self.layout.get("background"):
            nowhere = torch.full_like(scores[:, :1], -torch.inf)
            scores = torch.cat([nowhere, scores], dim=1)
        return scores


class LabelNetwork(OnnxNetwork):
    """Scores of images as logits.

    Parameters
    ----------
    several
        Of classes that do not exclude each other.
    """

    def __init__(self, file: OnnxFile, classes: int, several: bool) -> None:
        super().__init__(file)
        self.classes, self.several = classes, several
        # What geodl writes are probabilities, however its graph ends.
        self.shares = bool(file.activations[0]) or OWN_KEY in file.metadata

    def forward(self, x: Tensor) -> Tensor:
        """float32 (B, K)."""
        runs = [run[0] for run in self.outputs(x)]
        scores = _joined(runs, x, self.file.outputs[0], self.file.where)
        if scores.shape != (len(x), self.classes):
            raise BundleError(
                f"{self.file.where} gives {tuple(scores.shape)} for {len(x)} images; expected "
                f"{(len(x), self.classes)}."
            )
        if not self.shares:
            return scores
        return torch.logit(scores, _LEAST) if self.several else scores.log()


def _most_alive(graph: Any) -> int:
    """Bytes of tensors that are alive together at most, in the order of the graph's operators."""
    sizes = {}
    for value in (*graph.value_info, *graph.output):
        kind = value.type.tensor_type
        sides = [dim.dim_value for dim in kind.shape.dim]
        # Four bytes each; scores and features are float32.
        sizes[value.name] = 4 * math.prod(sides) if kind.HasField("shape") else 0
    last = {name: i for i, node in enumerate(graph.node) for name in node.input}
    alive, most = 0, 0
    for i, node in enumerate(graph.node):
        alive += sum(sizes.get(name, 0) for name in node.output)
        most = max(most, alive)
        alive -= sum(sizes.get(name, 0) for name in set(node.input) if last[name] == i)
    return most


def _joined(runs: Sequence[np.ndarray], x: Tensor, port: Port, where: str) -> Tensor:
    """float32 of all runs, as many as there are images, on their device."""
    if any(run.ndim != len(port.shape) or run.ndim == 0 for run in runs):
        raise BundleError(f"{where} gives {runs[0].shape} as {port}.")
    whole = np.concatenate(runs)[: len(x)].astype(np.float32, copy=False)
    return torch.from_numpy(whole).to(x.device)


def _cast(pixels: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """float32 pixels as the network takes them; whole numbers are kept within their range."""
    if dtype.kind == "f":
        return pixels.astype(dtype, copy=False)
    info = np.iinfo(dtype)
    return pixels.clip(info.min, info.max).astype(dtype)


# ---- onnxruntime


def _session(file: OnnxFile, device: str, threads: int) -> Any:
    runtime = require("onnxruntime", "export")
    _limit_memory()
    options = runtime.SessionOptions()
    # As many threads as torch has here, so that processes x threads equal the cores.
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = ["CPUExecutionProvider"]
    if device == "cuda" and "CUDAExecutionProvider" in runtime.get_available_providers():
        providers.insert(0, "CUDAExecutionProvider")
    try:
        return runtime.InferenceSession(file.content, options, providers=providers)
    except _runtime_errors() as error:
        raise BundleError(f"{file.where} cannot be run: {_first_line(error)}") from error


@functools.cache
def _limit_memory() -> None:
    """Let no network take more memory than there is: a few bytes of a file may ask for any."""
    runtime = require("onnxruntime", "export")
    place = runtime.OrtMemoryInfo(
        "Cpu", runtime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, runtime.OrtMemType.DEFAULT
    )
    # Grown by what is asked for, not by powers of two.
    limits = {"max_mem": free_bytes(torch.device("cpu")), "arena_extend_strategy": 1}
    runtime.create_and_register_allocator(place, runtime.OrtArenaCfg(limits))


@functools.cache
def _runtime_errors() -> tuple[type[Exception], ...]:
    """What onnxruntime raises; its errors have no base of their own."""
    state = require("onnxruntime.capi.onnxruntime_pybind11_state", "export")
    own = [v for v in vars(state).values() if isinstance(v, type) and issubclass(v, Exception)]
    return (*own, RuntimeError, ValueError, TypeError, MemoryError)


def _first_line(error: Exception) -> str:
    text = (str(error).splitlines() or [""])[0].strip()
    return f"{text[:300] or type(error).__name__}."
