"""The area that a run is kept to: polygons of ``context["mask"]``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import shapely
from rasterio.features import geometry_mask
from rasterio.transform import Affine

from geodl.base.files import sha256_json
from geodl.base.quiet import quiet_lock
from geodl.core.grid import GeoGrid, Window


@dataclass(frozen=True)
class Area:
    """Polygons in the CRS of the run's grid.

    Parameters
    ----------
    polygons
        WKB of each.
    """

    polygons: tuple[bytes, ...]

    @classmethod
    def of(cls, geometries: np.ndarray) -> Area:
        """From shapely geometries (N,); what has no area is dropped."""
        present = geometries[~shapely.is_missing(geometries)]
        # Twice: mending may put polygons with lines into a collection.
        parts = shapely.get_parts(shapely.get_parts(shapely.make_valid(present)))
        kept = parts[(shapely.get_dimensions(parts) == 2) & ~shapely.is_empty(parts)]
        return cls(tuple(shapely.to_wkb(kept)))

    @cached_property
    def _tree(self) -> shapely.STRtree:
        return shapely.STRtree(shapely.from_wkb(list(self.polygons)))

    def meets(self, grid: GeoGrid, window: Window) -> bool:
        """Whether any polygon reaches a window."""
        box = shapely.box(*grid.window_bounds(window))
        return len(self._tree.query(box, predicate="intersects")) > 0

    def inside(self, grid: GeoGrid, window: Window) -> np.ndarray:
        """bool (H, W): pixels of ``window`` whose centre lies in a polygon."""
        found = self._tree.query(shapely.box(*grid.window_bounds(window)))
        geometries = self._tree.geometries[np.sort(found)]
        if len(geometries) == 0:
            return np.zeros((window.height, window.width), bool)
        transform = Affine(*grid.crop(window).transform)
        with quiet_lock:
            outside = geometry_mask(geometries, (window.height, window.width), transform)
        return ~outside

    def fingerprint(self) -> str:
        return sha256_json([polygon.hex() for polygon in self.polygons])
