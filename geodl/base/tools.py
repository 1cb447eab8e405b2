"""Tools by name, for methods of models that are a short way to one."""

from __future__ import annotations

from geodl.base.registry import Registry

TOOLS = Registry("tool", {"classify_points": "geodl.tools.classify_points:classify_points"})
