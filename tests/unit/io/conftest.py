"""Small rasters on disk."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import from_origin

MakeTif = Callable[..., Path]


@pytest.fixture
def make_tif(tmp_path: Path) -> MakeTif:
    """``make_tif(data, name="a.tif", *, origin, cell, mask, descriptions, **profile)``."""

    def make(
        data: np.ndarray,
        name: str = "a.tif",
        *,
        origin: tuple[float, float] = (500000.0, 5000000.0),
        cell: float = 10.0,
        mask: np.ndarray | None = None,
        descriptions: tuple[str, ...] | None = None,
        colorinterp: tuple[Any, ...] | None = None,
        **profile: Any,
    ) -> Path:
        data = data if data.ndim == 3 else data[None]
        options: dict[str, Any] = {
            "driver": "GTiff",
            "count": data.shape[0],
            "height": data.shape[1],
            "width": data.shape[2],
            "dtype": data.dtype.name,
            "crs": "EPSG:32633",
            "transform": from_origin(*origin, cell, cell),
        } | profile
        path = tmp_path / name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with (
                rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
                rasterio.open(path, "w", **options) as dataset,
            ):
                dataset.write(data)
                if mask is not None:
                    dataset.write_mask(mask)
                if descriptions is not None:
                    dataset.descriptions = descriptions
                if colorinterp is not None:
                    dataset.colorinterp = colorinterp
        return path

    return make


@pytest.fixture
def noise() -> Callable[..., np.ndarray]:
    """``noise(*shape, dtype="uint8", seed=0)``: pixels from 1 to 250, no two rows alike."""

    def make(*shape: int, dtype: str = "uint8", seed: int = 0) -> np.ndarray:
        return np.random.default_rng(seed).integers(1, 251, shape).astype(dtype)

    return make
