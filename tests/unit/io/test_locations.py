from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import fsspec
import geopandas as gpd
import numpy as np
import pytest
from shapely.geometry import box

from geodl.base.errors import (
    GridMismatchError,
    OptionError,
    SourceError,
    SourceNotFoundError,
    SourceRefusedError,
)
from geodl.core.grid import Window
from geodl.io.crs import crs_label, crs_text, same_crs, transform_bounds
from geodl.io.locations import locate
from geodl.io.source import open_source
from geodl.io.vector import read_features


class _Ranges(SimpleHTTPRequestHandler):
    """A file server that knows ranges and etags, as object stores do, and may refuse."""

    refusal: ClassVar[int | None] = None

    def do_GET(self) -> None:
        if self.refusal is not None:
            self.send_error(self.refusal)
            return
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        content, status = path.read_bytes(), 200
        wanted = self.headers.get("Range", "")
        if wanted.startswith("bytes="):
            first, _, last = wanted[6:].partition("-")
            stop = min(int(last or len(content) - 1), len(content) - 1)
            start, status, total = int(first), 206, len(content)
            content = content[start : stop + 1]
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{stop}/{total}")
        self._describe(path, len(content))
        self.end_headers()
        self.wfile.write(content)

    def do_HEAD(self) -> None:
        if self.refusal is not None:
            self.send_error(self.refusal)
            return
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        self.send_response(200)
        self._describe(path, path.stat().st_size)
        self.end_headers()

    def _describe(self, path: Path, length: int) -> None:
        self.send_header("Content-Length", str(length))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The test's folder served on this machine."""

    def handler(*args: object) -> _Ranges:
        return _Ranges(*args, directory=str(tmp_path))

    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as service:
        thread = threading.Thread(target=service.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{service.server_address[1]}"
        service.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("text", "kind", "stem", "suffix"),
    [
        ("s3://bucket/a/scene.tif", "url", "scene", ".tif"),
        ("https://host/x/scene.tif?token=1", "url", "scene", ".tif"),
        ("/vsicurl/https://host/scene.tif", "gdal", "scene", ".tif"),
        ("memory://folder/scene.tif", "fsspec", "scene", ".tif"),
        ("simplecache::https://host/scene.zarr/", "fsspec", "scene", ".zarr"),
        ("NETCDF:file.nc:t", "gdal", "NETCDF:file", ".nc:t"),
    ],
)
def test_places_are_told_apart(text, kind, stem, suffix):
    location = locate(text)
    assert (location.kind, location.stem, location.suffix) == (kind, stem, suffix)


def test_local_paths_and_file_urls_are_the_same_place(tmp_path, monkeypatch):
    path = tmp_path / "a b.tif"
    path.write_text("")
    assert locate(path) == locate(path.as_uri()) == locate(str(path))
    monkeypatch.chdir(tmp_path)
    assert locate("a b.tif") == locate(path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate("~/a b.tif") == locate(path)
    with pytest.raises(SourceNotFoundError, match=r"none\.tif"):
        locate(tmp_path / "none.tif")


@pytest.mark.parametrize("status", [401, 403])
def test_what_a_server_refuses_is_told_apart(make_tif, noise, server, monkeypatch, status):
    make_tif(noise(1, 512, 512), nodata=0)
    source = open_source(f"{server}/a.tif")
    source.read(Window(row=0, col=0, height=10, width=10))
    monkeypatch.setattr(_Ranges, "refusal", status)
    with pytest.raises(SourceError, match="server may have failed or refused it"):
        source.read(Window(row=500, col=0, height=10, width=10))
    with pytest.raises(SourceRefusedError, match=rf"may not be read.*{status}.*credentials"):
        open_source(f"{server}/a.tif")
    monkeypatch.undo()
    source.read(Window(row=500, col=0, height=10, width=10))


def test_a_url_is_read_by_ranges_and_its_etag_is_its_identity(make_tif, noise, server):
    data = noise(3, 40, 40)
    path = make_tif(data, nodata=0)
    source = open_source(f"{server}/a.tif", bounds=(500100, 4999700, 500300, 4999900))
    np.testing.assert_array_equal(source.read(source.grid.window).data, data[:, 10:30, 10:30])
    first = open_source(f"{server}/a.tif").identity()
    assert "etag" in first["content"]["remote"]
    path.write_bytes(path.read_bytes() + b"\0")
    assert open_source(f"{server}/a.tif").identity() != first


def test_nothing_at_a_url_is_told(server):
    with pytest.raises(SourceNotFoundError, match=r"none\.tif"):
        open_source(f"{server}/none.tif")
    with pytest.raises(SourceError, match=r"none\.gpkg"):
        read_features(f"{server}/none.gpkg")


def test_features_at_a_url(tmp_path, server):
    frame = gpd.GeoDataFrame({"a": [1]}, geometry=[box(0, 0, 1, 1)], crs=4326)
    frame.to_file(tmp_path / "f.fgb", driver="FlatGeobuf")
    frame.to_parquet(tmp_path / "f.parquet")
    for name in ("f.fgb", "f.parquet"):
        assert read_features(f"{server}/{name}")["a"].tolist() == [1]


def test_any_fsspec_place_is_read(make_tif, noise):
    data = noise(2, 20, 20)
    memory = fsspec.filesystem("memory")
    memory.pipe("/place/a.tif", make_tif(data).read_bytes())
    source = open_source("memory://place/a.tif")
    np.testing.assert_array_equal(source.read(source.grid.window).data, data)
    with pytest.raises(SourceError, match=r"none\.tif"):
        open_source("memory://place/none.tif")
    with pytest.raises(SourceError, match="nosuch"):
        open_source("nosuch://place/a.tif")


def test_the_same_crs_is_the_same_text():
    assert (
        crs_text(4326) == crs_text("EPSG:4326") == crs_text("+proj=longlat +datum=WGS84 +type=crs")
    )
    assert same_crs(crs_text(4326), crs_text("OGC:CRS84"))
    assert not same_crs(crs_text(4326), crs_text(32633))
    assert not same_crs(crs_text(4326), None)
    assert same_crs(None, None)
    assert crs_label(crs_text(32633)) == "EPSG:32633"
    assert "pixel space" in crs_label(None)
    with pytest.raises(OptionError, match="mine: 'nonsense'"):
        crs_text("nonsense", "mine")


def test_bounds_are_moved_or_refused():
    utm = crs_text(32633)
    moved = transform_bounds((15.0, 45.0, 15.01, 45.01), crs_text(4326), utm, "x")
    assert moved[0] == pytest.approx(500000, abs=1)
    assert transform_bounds((1, 2, 3, 4), utm, utm, "x") == (1, 2, 3, 4)
    with pytest.raises(GridMismatchError, match="assume_crs"):
        transform_bounds((1, 2, 3, 4), None, utm, "x")
    with pytest.raises(GridMismatchError, match="no place"):
        transform_bounds((1e30, 1e30, 2e30, 2e30), utm, crs_text(4326), "x")
