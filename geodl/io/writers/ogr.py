"""What the writers that go through GDAL's vector drivers share."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import geopandas as gpd
import pyogrio


def write_ogr(frame: gpd.GeoDataFrame, path: Path, driver: str, **options: Any) -> None:
    """Write features with a GDAL driver.

    Parameters
    ----------
    frame
        May be empty: the layer is made with its columns.
    path
        A file that does not exist.
    driver
        GDAL's name.
    options
        For :func:`pyogrio.write_dataframe`.
    """
    if len(frame) == 0:
        # Without a feature nothing tells the kind of geometry; ours are polygons.
        options.setdefault("geometry_type", "Polygon")
    with warnings.catch_warnings():
        # In pixel space there is no CRS to write.
        warnings.filterwarnings("ignore", message="'crs' was not provided", category=UserWarning)
        pyogrio.write_dataframe(frame, path, driver=driver, **options)
