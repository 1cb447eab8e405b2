"""Generated scenes, small chip folders and conformance checks, for us and for plug-in authors."""

from __future__ import annotations

from geodl.base.registry import lazy_attributes

_PUBLIC = {
    "ModelCase": "geodl.testing.conformance:ModelCase",
    "Dates": "geodl.testing.scene:Dates",
    "Scene": "geodl.testing.scene:Scene",
    "check_model": "geodl.testing.conformance:check_model",
    "make_chips": "geodl.testing.chips:make_chips",
    "make_cloud": "geodl.testing.cloud:make_cloud",
    "make_dates": "geodl.testing.scene:make_dates",
    "make_scene": "geodl.testing.scene:make_scene",
}

__all__ = sorted(_PUBLIC)
__getattr__ = lazy_attributes(__name__, _PUBLIC)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
