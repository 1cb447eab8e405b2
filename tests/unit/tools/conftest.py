"""Rasters whose right answer is known, and tiny models that give it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from geodl.testing.tiny import tiny_model

WriteRaster = Callable[..., Path]


@pytest.fixture
def write_raster(tmp_path: Path) -> WriteRaster:
    """Write (C, H, W) to a tiled GeoTIFF in UTM 33 N with 0.5 m cells."""

    def write(data: np.ndarray, name: str = "scene.tif", **profile: Any) -> Path:
        path = tmp_path / name
        settings: dict[str, Any] = {
            "driver": "GTiff",
            "count": len(data),
            "height": data.shape[1],
            "width": data.shape[2],
            "dtype": data.dtype.name,
            "crs": "EPSG:32633",
            "transform": from_origin(500000, 5000000, 0.5, 0.5),
            "tiled": True,
            "blockxsize": 64,
            "blockysize": 64,
            **profile,
        }
        with rasterio.open(path, "w", **settings) as file:
            file.write(data)
        return path

    return write


@pytest.fixture
def pixel_model(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "tiny_pixels", "pixels")


@pytest.fixture
def object_model(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "tiny_objects", "objects")
