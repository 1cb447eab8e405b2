"""Pixels with their mask: what a source answers and a dataset holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from geodl.core.grid import GeoGrid, Window


@dataclass(frozen=True, slots=True)
class RasterBlock:
    """Pixels of one window.

    Parameters
    ----------
    data
        (C, H, W), the source's dtype and values.
    mask
        bool (H, W), True where at least one band has data.
    """

    data: np.ndarray
    mask: np.ndarray


@runtime_checkable
class RasterSource(Protocol):
    """A raster on one grid, read by window. Picklable; each process opens its own handles."""

    # Properties, so that frozen classes fit.
    @property
    def name(self) -> str: ...
    @property
    def grid(self) -> GeoGrid: ...
    @property
    def count(self) -> int: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def band_names(self) -> tuple[str, ...]: ...
    @property
    def nodata(self) -> float | None: ...

    def read(self, window: Window) -> RasterBlock:
        """Pixels of a window inside ``grid``. Raises SourceError, which names the file."""
        ...

    def identity(self) -> dict[str, Any]:
        """JSON that changes when the content may have changed: sizes, times, etags; no path."""
        ...
