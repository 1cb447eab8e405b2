"""The catalog of products and models."""

from __future__ import annotations

from geodl.base.packages import require

require("pystac", "catalog")
