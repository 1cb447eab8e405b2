"""GeoPackage: one layer with the file's name."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import geopandas as gpd

from geodl.io.writers.ogr import write_ogr


class GeoPackageWriter:
    """Writes GeoPackage."""

    kind: Literal["vector"] = "vector"

    def write(self, frame: gpd.GeoDataFrame, path: Path) -> None:
        write_ogr(frame, path, "GPKG", layer=path.stem)
