"""Python raster function for Detect Objects and Classify Objects Using Deep Learning.

It belongs to a model package that geodl wrote. ArcGIS Pro calls it with blocks of pixels; geodl,
which must be installed in Pro's Python environment, answers. geodl itself never runs this file.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

# "rasters" where each object has a chip of its own.
INPUT = "raster"


class RasterFunction:
    """Features that a model finds in a block, or labels of the chips of a batch."""

    def __init__(self) -> None:
        self.name = "Detector of geodl"
        self.description = "Finds or labels objects in a raster with a network that geodl trained."
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

    def getFields(self) -> str:
        """Fields of the features, as JSON."""
        return str(self._engine.fields())

    def getGeometryType(self) -> int:
        """4: polygons."""
        return 4

    def vectorize(self, **pixelBlocks: Any) -> dict[str, str]:
        """Features in pixels from the block's upper left corner without padding, as JSON."""
        found = self._engine.features(
            pixelBlocks[f"{INPUT}_pixels"], pixelBlocks.get(f"{INPUT}_mask")
        )
        return {"output_vectors": found}


MANDATORY = [
    {
        "name": INPUT,
        "dataType": INPUT,
        "value": None,
        "required": True,
        "displayName": INPUT.capitalize(),
        "description": "Imagery to run the model over.",
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
