"""FlatGeobuf with its spatial index."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import geopandas as gpd

from geodl.io.writers.ogr import write_ogr


class FlatGeobufWriter:
    """Writes FlatGeobuf."""

    kind: Literal["vector"] = "vector"

    def write(self, frame: gpd.GeoDataFrame, path: Path) -> None:
        # The index has nothing to stand on without features, and GDAL then warns.
        write_ogr(frame, path, "FlatGeobuf", SPATIAL_INDEX="YES" if len(frame) else "NO")
