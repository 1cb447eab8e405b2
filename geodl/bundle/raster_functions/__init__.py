"""Python raster functions that packages carry, so that ArcGIS Pro can run a model of geodl.

``pixels`` and ``features`` are what is written into a package, under the name of its class. They
are only text here: they import no other part of geodl but by name, when Pro calls them.
"""

from __future__ import annotations

from importlib import resources

from geodl.core.contract import TaskKind

_FUNCTIONS: dict[TaskKind, tuple[str, str]] = {
    "pixels": ("ArcGISImageClassifier", "pixels.py"),
    "objects": ("ArcGISObjectDetector", "features.py"),
    "instances": ("ArcGISInstanceDetector", "features.py"),
    "tiles": ("ArcGISObjectClassifier", "features.py"),
}


def raster_function(kind: TaskKind) -> tuple[str, bytes] | None:
    """File name and source of the function for a kind of model; None where there is none.

    Its class is called as the file without ``.py``, as Pro expects.
    """
    if kind not in _FUNCTIONS:
        return None
    name, source = _FUNCTIONS[kind]
    text = resources.files(__name__).joinpath(source).read_text(encoding="utf-8")
    text = text.replace("class RasterFunction:", f"class {name}:")
    if kind == "tiles":
        text = text.replace('INPUT = "raster"', 'INPUT = "rasters"')
    return f"{name}.py", text.encode("utf-8")
