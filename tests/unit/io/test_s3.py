"""Rasters and features behind ``s3://``, through a real endpoint (moto's server)."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import geopandas as gpd
import numpy as np
import pytest
import rioxarray  # noqa: F401 - the accessor .rio
import shapely
import xarray as xr

from geodl.base.errors import SourceError
from geodl.core.grid import Window
from geodl.io.source import open_source
from geodl.io.vector import read_features

MakeTif = Callable[..., Path]


@pytest.fixture
def bucket(object_store: str) -> Callable[[Path, str], str]:
    """``put(path, key)`` uploads a file or folder and gives its URL."""
    system = fsspec.filesystem("s3")

    def put(path: Path, key: str) -> str:
        system.put(str(path), f"{object_store}/{key}", recursive=path.is_dir())
        return f"{object_store}/{key}"

    return put


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 255, (3, 64, 80), dtype=np.uint8)


WINDOW = Window(row=10, col=30, height=20, width=40)


def test_a_tiff_is_read_by_window(bucket: Any, make_tif: MakeTif, pixels: np.ndarray) -> None:
    url = bucket(make_tif(pixels, tiled=True, blockxsize=16, blockysize=16), "a/scene.tif")
    source = pickle.loads(pickle.dumps(open_source(url)))
    np.testing.assert_array_equal(source.read(WINDOW).data, pixels[:, 10:30, 30:70])


def test_a_replaced_object_is_another_source(
    bucket: Any, object_store: str, make_tif: MakeTif, pixels: np.ndarray
) -> None:
    key = "b/scene.tif"
    before = open_source(bucket(make_tif(pixels), key)).identity()
    assert before == open_source(f"{object_store}/{key}").identity()
    assert before != open_source(bucket(make_tif(pixels // 2), key)).identity()


def test_a_zarr_store_is_read_by_window(bucket: Any, tmp_path: Path, pixels: np.ndarray) -> None:
    array = xr.DataArray(
        pixels,
        dims=("band", "y", "x"),
        coords={"y": 100.0 - np.arange(64), "x": np.arange(80.0)},
        name="image",
    )
    array.rio.write_crs("EPSG:32633").to_zarr(tmp_path / "scene.zarr", consolidated=False)
    url = bucket(tmp_path / "scene.zarr", "c/scene.zarr")
    source = pickle.loads(pickle.dumps(open_source(url, variable="image")))
    np.testing.assert_array_equal(source.read(WINDOW).data, pixels[:, 10:30, 30:70])


def test_features_are_read(bucket: Any, tmp_path: Path) -> None:
    made = gpd.GeoDataFrame(
        {"name": ["a", "b"]}, geometry=[shapely.box(0, 0, 1, 1)] * 2, crs="EPSG:32633"
    )
    made.to_parquet(tmp_path / "a.parquet")
    found = read_features(bucket(tmp_path / "a.parquet", "d/a.parquet"))
    assert list(found["name"]) == ["a", "b"]


def test_a_missing_object_is_named(object_store: str) -> None:
    with pytest.raises(SourceError, match=r"/none\.tif"):
        open_source(f"{object_store}/none.tif")
