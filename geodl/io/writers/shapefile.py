"""Shapefile: a set of files that belong together, the ``.shp`` appearing last."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import geopandas as gpd

from geodl.base.errors import OutputError
from geodl.io.writers.ogr import write_ogr

_NAME_LENGTH = 10


class ShapefileWriter:
    """Writes Shapefile with UTF-8 texts."""

    kind: Literal["vector"] = "vector"

    def write(self, frame: gpd.GeoDataFrame, path: Path) -> None:
        names = [str(name) for name in frame.columns if name != frame.geometry.name]
        short = [name[:_NAME_LENGTH].lower() for name in names]
        twice = sorted({name for name in names if short.count(name[:_NAME_LENGTH].lower()) > 1})
        if twice:
            raise OutputError(
                f"{path.name}: a Shapefile's field names have {_NAME_LENGTH} characters, so "
                f"{', '.join(twice)} cannot be told apart; write .gpkg or rename them."
            )
        renamed = {name: name[:_NAME_LENGTH] for name in names if len(name) > _NAME_LENGTH}
        write_ogr(frame.rename(columns=renamed), path, "ESRI Shapefile", encoding="UTF-8")
