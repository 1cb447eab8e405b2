"""GeoJSON in longitude and latitude, as RFC 7946 has it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Literal

import geopandas as gpd

from geodl.base.errors import DataWarning
from geodl.io.writers.ogr import write_ogr


class GeoJsonWriter:
    """Writes GeoJSON in EPSG:4326."""

    kind: Literal["vector"] = "vector"

    def write(self, frame: gpd.GeoDataFrame, path: Path) -> None:
        if frame.crs is None:
            warnings.warn(
                f"{path.name} holds pixel coordinates, which others take for degrees; write "
                ".parquet or .gpkg instead.",
                DataWarning,
                stacklevel=4,
            )
        else:
            frame = frame.to_crs("EPSG:4326")
        # 15 significant digits: the 7 decimals of RFC7946=YES are a centimetre, much for a drone.
        write_ogr(frame, path, "GeoJSON", RFC7946="NO")
