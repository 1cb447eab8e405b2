"""Whether a process reaches what the blocks of a model's product need."""

from __future__ import annotations

from geodl.bundle import ModelRef, load_model
from geodl.core.blocks import RasterSource
from geodl.runtime.preflight import read_one_pixel


def probe_inputs(source: RasterSource, model: ModelRef, device: str) -> None:
    """Read one pixel and load the model, which the first block then finds loaded.

    Raises
    ------
    SourceError, BundleError
        Names the path that cannot be opened.
    """
    read_one_pixel(source)
    load_model(model, device)
