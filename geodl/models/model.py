"""What every model has, network or not."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from geodl.base.errors import NotSupportedError, OptionError
from geodl.base.options import check_choice


class Model(ABC):
    """What every model has, network or not."""

    dataset_types: ClassVar[tuple[str, ...]]
    """Chip formats the model trains on, by their documented names."""

    @property
    def supported_datasets(self) -> list[str]:
        """Dataset types the model can train on."""
        return list(self.dataset_types)

    @property
    @abstractmethod
    def available_metrics(self) -> list[str]:
        """Names that ``fit(monitor=...)`` takes."""

    @abstractmethod
    def fit(self, *args: Any, **kwargs: Any) -> None:
        """Train."""

    @abstractmethod
    def save(self, name_or_path: str | os.PathLike[str], **kwargs: Any) -> Path:
        """Write the model's package; return its folder."""

    @abstractmethod
    def load(self, name_or_path: str | os.PathLike[str], **kwargs: Any) -> None:
        """Take weights from a package."""


def check_backend(backend: str, args: Sequence[Any], model_name: str) -> None:
    """Refuse the frameworks that geodl does not run on, and arguments without a meaning.

    Raises
    ------
    NotSupportedError
        ``backend="tensorflow"``.
    OptionError
        Another backend, or surplus positional arguments.
    """
    if check_choice(backend, ("pytorch", "tensorflow"), "backend") == "tensorflow":
        raise NotSupportedError(
            f"{model_name} runs on backend='pytorch' only; 'tensorflow' is not offered."
        )
    if args:
        raise OptionError(f"{model_name} has no meaning for the further arguments {args!r}.")
