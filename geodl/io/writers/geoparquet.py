"""GeoParquet with a bounding box per feature, so that readers skip what they do not need."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import geopandas as gpd


class GeoParquetWriter:
    """Writes GeoParquet 1.1."""

    kind: Literal["vector"] = "vector"

    def write(self, frame: gpd.GeoDataFrame, path: Path) -> None:
        frame.to_parquet(
            path,
            index=False,
            compression="zstd",
            write_covering_bbox=True,
            schema_version="1.1.0",
        )
