"""Python raster function for Classify Pixels and Detect Change Using Deep Learning.

It belongs to a model package that geodl wrote. ArcGIS Pro calls it with blocks of pixels; geodl,
which must be installed in Pro's Python environment, answers. geodl itself never runs this file.
"""

from __future__ import annotations

import importlib
import os
from typing import Any


class RasterFunction:
    """Class values, or scores, of the pixels of a block."""

    def __init__(self) -> None:
        self.name = "Pixel classifier of geodl"
        self.description = "Classifies every pixel of a raster with a network that geodl trained."
        self._engine: Any = None

    def initialize(self, **kwargs: Any) -> None:
        """Open the model definition ``model``, a path or JSON text, for ``device``."""
        if "model" in kwargs:
            self._engine = open_engine(kwargs["model"], kwargs.get("device"))

    def getParameterInfo(self) -> list[dict[str, Any]]:
        """Inputs and arguments; of a model that is not opened yet the two that all have."""
        return MANDATORY if self._engine is None else MANDATORY + self._engine.parameters()

    def getConfiguration(self, **scalars: Any) -> dict[str, Any]:
        """Bands, padding and size of the blocks, from the values of the arguments."""
        found: dict[str, Any] = self._engine.configure(scalars)
        return found

    def updateRasterInfo(self, **kwargs: Any) -> dict[str, Any]:
        """Bands, pixel type and classes of the output."""
        kwargs["output_info"].update(self._engine.raster_info())
        return kwargs

    def updatePixels(self, tlc: Any, shape: Any, props: Any, **pixelBlocks: Any) -> dict[str, Any]:
        """The output's pixels and mask, from a block with its padding."""
        pixels, mask = self._engine.pixels(
            pixelBlocks["raster_pixels"], pixelBlocks.get("raster_mask")
        )
        # (rows, columns) of a single band, else (bands, rows, columns); the mask has no bands.
        pixels = pixels[0] if len(shape) == 2 else pixels
        pixelBlocks["output_pixels"] = pixels.astype(props["pixelType"], copy=False)
        pixelBlocks["output_mask"] = mask
        return pixelBlocks

    def updateKeyMetadata(self, names: Any, bandIndex: int, **keyMetadata: Any) -> dict[str, Any]:
        """What kind of raster the output is."""
        if bandIndex == -1:
            keyMetadata["datatype"] = self._engine.data_type
        return keyMetadata


MANDATORY = [
    {
        "name": "raster",
        "dataType": "raster",
        "value": None,
        "required": True,
        "displayName": "Raster",
        "description": "Raster to run the model over.",
    },
    {
        "name": "model",
        "dataType": "string",
        "value": None,
        "required": True,
        "displayName": "Model Definition (EMD)",
        "description": "Model definition as a file or JSON text.",
    },
]


def open_engine(model: str, device: Any) -> Any:
    """What answers for this model. Raises ImportError where geodl is not installed."""
    try:
        engine = importlib.import_module("geodl.tools.raster_function")
    except ImportError as error:
        raise ImportError(
            "This model needs geodl in the Python environment of ArcGIS Pro: clone that "
            f"environment and run `pip install geodl` in it ({error})."
        ) from error
    return engine.open_function(model, os.path.dirname(os.path.abspath(__file__)), device)
