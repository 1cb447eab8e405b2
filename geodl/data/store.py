"""Decoded chips, kept in memory up to a limit of bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# Raw chips of 256 px, 8 bits and 3 bands: about 5000.
DEFAULT_LIMIT_BYTES = 2**30


@dataclass(frozen=True, slots=True)
class LoadedChip:
    """A chip as it is kept.

    Parameters
    ----------
    data
        (C, H, W), the export's dtype and values.
    valid
        bool (H, W), True where there is data; None: everywhere.
    target
        The encoded label, see :class:`geodl.data.targets.TargetKind`.
    """

    data: np.ndarray
    valid: np.ndarray | None
    target: Any

    @property
    def nbytes(self) -> int:
        target = self.target if isinstance(self.target, tuple) else (self.target,)
        arrays = (self.data, *(() if self.valid is None else (self.valid,)), *target)
        return sum(array.nbytes for array in arrays)


class ChipStore:
    """Reads chips by position and keeps them while there is room.

    Nothing is evicted: epochs visit every chip once in another order, and for that the first
    chips that fit give as many hits as memory allows, while the least recently used ones give
    fewer. Pickled without its chips, so that worker processes start with a small message.

    Parameters
    ----------
    chips
        What ``load`` takes, one per position.
    load
        Module-level function or picklable object: reads and decodes one chip.
    limit_bytes
        Most that the kept arrays take in this process.
    """

    def __init__(
        self,
        chips: Sequence[Any],
        load: Callable[[Any], LoadedChip],
        limit_bytes: int = DEFAULT_LIMIT_BYTES,
    ) -> None:
        self.chips = tuple(chips)
        self.load = load
        self.limit_bytes = limit_bytes
        self._forget()

    def _forget(self) -> None:
        self.held_bytes = 0
        self._kept: dict[int, LoadedChip] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"chips": self.chips, "load": self.load, "limit_bytes": self.limit_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def __len__(self) -> int:
        return len(self.chips)

    def __getitem__(self, position: int) -> LoadedChip:
        """The chip at ``position``. Raises what ``load`` raises, which names the file."""
        kept = self._kept.get(position)
        if kept is not None:
            return kept
        chip = self.load(self.chips[position])
        with self._lock:
            fits = self.held_bytes + chip.nbytes <= self.limit_bytes
            if fits and position not in self._kept:
                self._kept[position] = chip
                self.held_bytes += chip.nbytes
        return chip
