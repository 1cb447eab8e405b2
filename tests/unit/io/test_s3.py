"""Rasters and features behind ``s3://``, through a real endpoint (moto's server)."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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
NEEDED = "the tests of s3:// need moto[server], boto3 and s3fs"


@pytest.fixture(scope="module")
def bucket() -> Iterator[Any]:
    """``put(path, key)`` on a fresh bucket; the process finds the endpoint by its variables."""
    boto3 = pytest.importorskip("boto3", reason=NEEDED)
    server_module = pytest.importorskip("moto.server", reason=NEEDED)
    s3fs = pytest.importorskip("s3fs", reason=NEEDED)
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    variables = {
        # What GDAL reads, and what boto and s3fs do.
        "AWS_S3_ENDPOINT": f"{host}:{port}",
        "AWS_HTTPS": "NO",
        "AWS_VIRTUAL_HOSTING": "FALSE",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        store = boto3.client("s3")
        store.create_bucket(Bucket="scenes")

        def put(path: Path, key: str) -> str:
            for file in [path] if path.is_file() else sorted(path.rglob("*")):
                if file.is_file():
                    inside = "" if path.is_file() else "/" + file.relative_to(path).as_posix()
                    store.upload_file(str(file), "scenes", key + inside)
            return f"s3://scenes/{key}"

        yield put
        for system in s3fs.S3FileSystem._cache.values():
            # Sockets left to the interpreter's end are warned of.
            system.close_session(system.loop, system._s3)
        s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 255, (3, 64, 80), dtype=np.uint8)


WINDOW = Window(row=10, col=30, height=20, width=40)


def test_a_tiff_is_read_by_window(bucket: Any, make_tif: MakeTif, pixels: np.ndarray) -> None:
    url = bucket(make_tif(pixels, tiled=True, blockxsize=16, blockysize=16), "a/scene.tif")
    source = pickle.loads(pickle.dumps(open_source(url)))
    np.testing.assert_array_equal(source.read(WINDOW).data, pixels[:, 10:30, 30:70])


def test_a_replaced_object_is_another_source(
    bucket: Any, make_tif: MakeTif, pixels: np.ndarray
) -> None:
    key = "b/scene.tif"
    before = open_source(bucket(make_tif(pixels), key)).identity()
    assert before == open_source(f"s3://scenes/{key}").identity()
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


def test_a_missing_object_is_named(bucket: Any) -> None:
    with pytest.raises(SourceError, match=r"s3://scenes/none\.tif"):
        open_source("s3://scenes/none.tif")
