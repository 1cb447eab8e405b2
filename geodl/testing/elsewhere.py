"""A second Python process that opens model packages: it has seen neither model nor data.

One process serves many packages, since loading torch takes longer than most of them.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor


class OtherProcess:
    """Opens packages and tells what they answer; a context manager.

    The process starts with the first question.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.communicate()
            self._process = None

    def _asked(self, question: str) -> bool:
        """Whether the process has answered."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            return False
        stdin.write(question + "\n")
        stdin.flush()
        return bool(stdout.readline())

    def answers(
        self, model_class: type, package: Path, inputs: Sequence[Tensor], folder: Path
    ) -> list[Tensor]:
        """What the package answers there, as :func:`model_answers` gives it.

        Parameters
        ----------
        model_class
            Importable by its module and name.
        inputs
            Of :func:`model_answers`.
        folder
            For files on the way.
        """
        _write(folder / "inputs.npz", inputs)
        question = {
            "module": model_class.__module__,
            "class": model_class.__name__,
            "package": str(package),
            "folder": str(folder),
        }
        if not self._asked(json.dumps(question)):
            self.close()
            raise AssertionError(
                f"{model_class.__name__}: the other process cannot open {package}; its error "
                "output says why"
            )
        return _read(folder / "answers.npz")


def model_answers(model: Any, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Everything that a model says of inputs: its network's own tensors, and its predictions.

    Parameters
    ----------
    inputs
        One batch (B, C, H, W); of a model of point clouds blocks (N, D).
    """
    model.net.eval()
    if model.task.kind in ("points", "boxes3d"):
        from geodl.testing.point_conformance import decoded_blocks

        return [part for block in decoded_blocks(model, list(inputs)) for part in block]
    from geodl.testing.conformance import answers

    (x,) = inputs
    with torch.inference_mode():
        predicted = model.task.predict(model.net, x)
    return [*answers(model.net, x), *map(torch.as_tensor, numbers(predicted))]


def numbers(value: Any) -> Iterator[np.ndarray]:
    """The arrays of numbers in nested predictions, in order."""
    if isinstance(value, Tensor):
        yield value.detach().cpu().numpy()
    elif isinstance(value, np.ndarray):
        if value.dtype.kind in "biuf":
            yield value
    elif isinstance(value, bool | int | float | np.number):
        yield np.asarray(value)
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from numbers(part)
    elif is_dataclass(value):
        for field in fields(value):
            yield from numbers(getattr(value, field.name))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from numbers(part)


def _write(path: Path, tensors: Sequence[Tensor]) -> None:
    np.savez(path, *[tensor.detach().cpu().numpy() for tensor in tensors])


def _read(path: Path) -> list[Tensor]:
    with np.load(path) as file:
        return [torch.from_numpy(file[f"arr_{i}"]) for i in range(len(file.files))]


def _answer(question: Mapping[str, str]) -> None:
    folder = Path(question["folder"])
    model_class = getattr(importlib.import_module(question["module"]), question["class"])
    model = model_class.from_model(question["package"])
    _write(folder / "answers.npz", model_answers(model, _read(folder / "inputs.npz")))


def main() -> None:
    """Answer questions, one JSON object a line, until there are no more."""
    replies, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        _answer(json.loads(line))
        replies.write("done\n")
        replies.flush()


if __name__ == "__main__":
    main()
