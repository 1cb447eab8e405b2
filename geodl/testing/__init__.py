"""Generated scenes, small chip folders and conformance checks, for us and for plug-in authors."""

from __future__ import annotations

from geodl.base.registry import lazy_attributes

_PUBLIC = {
    "Scene": "geodl.testing.scene:Scene",
    "make_scene": "geodl.testing.scene:make_scene",
}

__all__ = sorted(_PUBLIC)
__getattr__ = lazy_attributes(__name__, _PUBLIC)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
