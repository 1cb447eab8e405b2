"""Model packages: the definition (EMD), the weights, and the zip of both (DLPK).

Reading never runs code from a package, and refuses what is corrupt, foreign or unsafe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from geodl.base.registry import lazy_attributes

if TYPE_CHECKING:
    from geodl.bundle.cache import LoadedModel, ModelRef, load_model, resolve_model
    from geodl.bundle.read import Bundle, read_bundle

__all__ = ["Bundle", "LoadedModel", "ModelRef", "load_model", "read_bundle", "resolve_model"]

__getattr__ = lazy_attributes(
    __name__,
    {
        "Bundle": "geodl.bundle.read:Bundle",
        "read_bundle": "geodl.bundle.read:read_bundle",
        "LoadedModel": "geodl.bundle.cache:LoadedModel",
        "ModelRef": "geodl.bundle.cache:ModelRef",
        "load_model": "geodl.bundle.cache:load_model",
        "resolve_model": "geodl.bundle.cache:resolve_model",
    },
)
