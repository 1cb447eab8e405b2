"""geodl turns trained networks into maps."""

from __future__ import annotations

from geodl.base.registry import lazy_attributes

_PUBLIC = {
    "open_raster": "geodl.io.raster:open_raster",
    "open_points": "geodl.tools.open_points:open_points",
    "apply_model": "geodl.tools.apply_model:apply_model",
    "classify_points": "geodl.tools.classify_points:classify_points",
    "detect_objects_3d": "geodl.tools.detect_objects_3d:detect_objects_3d",
    "Catalog": "geodl.catalog.catalog:Catalog",
    "connect": "geodl.runtime.connect:connect",
}

__all__ = sorted(_PUBLIC)
__getattr__ = lazy_attributes(__name__, _PUBLIC)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
