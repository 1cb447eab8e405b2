"""Every kind of source through a tool: the same answer as for the same pixels in one file."""

from __future__ import annotations

import datetime
import ssl
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import xarray as xr
from affine import Affine
from distributed import Client
from rasterio.transform import from_origin

import geodl
from geodl.base.errors import SourceError
from geodl.functions import polygonize
from geodl.io.source import open_source
from geodl.testing.tiny import register_tiny_models, tiny_model
from geodl.tools.classify_pixels import classify_pixels
from geodl.tools.detect_objects import detect_objects

ARGUMENTS = {"predict_background": True, "padding": 4}
ORIGIN = (500000, 5000000)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny", "pixels", tile_px=64)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """uint8 (3, H, W), 1..255."""
    coarse = np.random.default_rng(seed).integers(1, 256, (3, height // 8 + 2, width // 8 + 2))
    return np.kron(coarse, np.ones((8, 8), int))[:, :height, :width].astype(np.uint8)


def write(path: Path, data: np.ndarray, **profile: Any) -> Path:
    settings = {
        "driver": "GTiff", "count": len(data), "height": data.shape[1], "width": data.shape[2],
        "dtype": data.dtype.name, "crs": "EPSG:32633", "transform": from_origin(*ORIGIN, 0.5, 0.5),
        "nodata": 0, **profile,
    }  # fmt: skip
    with rasterio.open(path, "w", **settings) as file:
        file.write(data)
    return path


def classify(raster: Any, model: Path, path: Path, **more: Any) -> np.ndarray:
    found = classify_pixels(raster, str(model), ARGUMENTS, path, progress=False, **more)
    return found.to_numpy()  # type: ignore[no-any-return]


def flat(raster: Any, path: Path) -> Path:
    """The source's pixels in one file."""
    source = open_source(raster)
    block = source.read(source.grid.window)
    data = np.where(block.mask, block.data, 0)
    grid = source.grid
    return write(path, data, transform=Affine(*grid.transform), crs=grid.crs)


@pytest.mark.slow
def test_hundreds_of_files_of_mixed_crs_and_resolution_make_one_map(
    model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "tiles"
    folder.mkdir()
    paths = []
    for number in range(240):
        row, col = divmod(number, 20)
        x, y = ORIGIN[0] + col * 8, ORIGIN[1] - row * 8
        if number % 5 == 3:
            # In degrees, a little more than its place.
            west, south, east, north = rasterio.warp.transform_bounds(
                "EPSG:32633", "EPSG:4326", x - 0.5, y - 8.5, x + 8.5, y + 0.5
            )
            size = {"crs": "EPSG:4326", "transform": rasterio.transform.from_bounds(
                west, south, east, north, 18, 18)}  # fmt: skip
            data = picture(18, 18, number)
        elif number % 5 == 4:
            size, data = {"transform": from_origin(x, y, 1.0, 1.0)}, picture(8, 8, number)
        else:
            size, data = {"transform": from_origin(x, y, 0.5, 0.5)}, picture(16, 16, number)
        paths.append(write(folder / f"t{number:03}.tif", data, **size))
    expected = classify(flat(paths, tmp_path / "flat.tif"), model, tmp_path / "flat_map.tif")
    assert expected.shape[1:] >= (192, 320)
    assert (expected != 255).mean() > 0.95
    found = classify(paths, model, tmp_path / "map.tif", block_size=96)
    np.testing.assert_array_equal(found, expected)


def test_a_netcdf_series_is_mapped_one_time_at_a_time(model: Path, tmp_path: Path) -> None:
    data = np.stack([picture(70, 90, seed) for seed in (1, 2)])
    series = xr.DataArray(
        data,
        dims=("time", "band", "y", "x"),
        coords={
            "time": np.array(["2024-05-01", "2024-06-01"], "datetime64[ns]"),
            "y": ORIGIN[1] - 0.25 - np.arange(70) * 0.5,
            "x": ORIGIN[0] + 0.25 + np.arange(90) * 0.5,
        },
        name="image",
    )
    path = tmp_path / "series.nc"
    series.rio.write_crs("EPSG:32633").to_netcdf(path, engine="h5netcdf")
    expected = classify(write(tmp_path / "june.tif", data[1]), model, tmp_path / "june_map.tif")
    june = geodl.open_raster(path, time="2024-06-01")
    np.testing.assert_array_equal(classify(june, model, tmp_path / "a.tif"), expected)
    second = geodl.open_raster(path).isel(time=1)
    np.testing.assert_array_equal(classify(second, model, tmp_path / "b.tif"), expected)
    with pytest.raises(SourceError, match="2024-05-01"):
        classify(path, model, tmp_path / "c.tif")


class Counted:
    """A derived array whose chunks leave a file each time that they are computed."""

    def __init__(self, raster: Path, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        lazy = geodl.open_raster(raster, chunks=(40, 50))
        shown = lazy.copy(data=lazy.data.map_blocks(self._note, dtype="uint8"))
        self.array = shown.where(shown < 250, 100).astype("uint8")

    def _note(self, block: np.ndarray, block_info: Any = None) -> np.ndarray:
        if block_info:
            _, row, col = block_info[0]["chunk-location"]
            with open(self.folder / f"{row}-{col}", "a") as file:
                file.write("x")
        return block

    def times(self) -> list[int]:
        found = [path.stat().st_size for path in self.folder.iterdir()]
        for path in self.folder.iterdir():
            path.unlink()
        return sorted(found)


@pytest.fixture
def counted(tmp_path: Path) -> Counted:
    return Counted(write(tmp_path / "a.tif", picture(110, 130)), tmp_path / "counts")


CHUNKS = 3 * 3


def test_chunks_of_a_derived_array_are_computed_once_in_every_tool(
    counted: Counted, model: Path, tmp_path: Path
) -> None:
    expected = classify(
        flat(counted.array.compute(), tmp_path / "flat.tif"), model, tmp_path / "flat_map.tif"
    )
    counted.times()
    found = classify(counted.array, model, tmp_path / "map.tif", block_size=56)
    np.testing.assert_array_equal(found, expected)
    assert counted.times() == [1] * CHUNKS
    objects = tiny_model(tmp_path / "objects", "objects", tile_px=64)
    arguments = {"padding": 24, "exclude_pad_detections": False}
    detect_objects(
        counted.array, str(objects), arguments, tmp_path / "o.parquet", progress=False,
        block_size=48,
    )  # fmt: skip
    assert counted.times() == [1] * CHUNKS
    polygonize(counted.array.isel(band=0), block_size=64)
    assert counted.times() == [1] * CHUNKS
    lazy = geodl.apply_model(counted.array, str(model), **ARGUMENTS, block_size=56)
    np.testing.assert_array_equal(lazy.compute(scheduler="sync"), expected)
    assert counted.times() == [1] * CHUNKS


@pytest.mark.slow
def test_two_workers_compute_each_chunk_once_together(
    counted: Counted, model: Path, tmp_path: Path, workers: Client
) -> None:
    workers.run(register_tiny_models)
    classify(counted.array, model, tmp_path / "map.tif", block_size=56, client=workers)
    assert counted.times() == [1] * CHUNKS


@pytest.fixture
def stac_items(tmp_path: Path) -> list[Any]:
    pystac = pytest.importorskip("pystac")
    items = []
    for number in range(3):
        data = picture(80, 64, number)
        corner = (ORIGIN[0] + number * 32, ORIGIN[1])
        path = write(tmp_path / f"s{number}.tif", data, transform=from_origin(*corner, 0.5, 0.5))
        west, south, east, north = rasterio.warp.transform_bounds(
            "EPSG:32633", "EPSG:4326", corner[0], corner[1] - 40, corner[0] + 32, corner[1]
        )
        item = pystac.Item(
            f"s{number}",
            geometry=shapely.geometry.mapping(shapely.box(west, south, east, north)),
            bbox=[west, south, east, north],
            datetime=datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC),
            properties={"proj:code": "EPSG:32633"},
        )
        asset = pystac.Asset(
            str(path),
            media_type=pystac.MediaType.COG,
            roles=["data"],
            extra_fields={
                "proj:shape": [80, 64],
                "proj:transform": [0.5, 0, corner[0], 0, -0.5, corner[1]],
                "bands": [{"name": name, "data_type": "uint8"} for name in ("r", "g", "b")],
            },
        )
        item.add_asset("image", asset)
        items.append(item)
    return items


def test_stac_items_are_a_mosaic(stac_items: list[Any], model: Path, tmp_path: Path) -> None:
    paths = [tmp_path / f"s{number}.tif" for number in range(3)]
    expected = classify(paths, model, tmp_path / "files.tif")
    assert expected.shape == (1, 80, 192)
    np.testing.assert_array_equal(classify(stac_items, model, tmp_path / "items.tif"), expected)


# What odc-stac calls, not we.
@pytest.mark.filterwarnings("ignore:The 'shapely.ops.transform:DeprecationWarning")
def test_what_odc_stac_loads_is_a_source(
    stac_items: list[Any], model: Path, tmp_path: Path
) -> None:
    odc_stac = pytest.importorskip("odc.stac", reason="needs odc-stac")
    loaded = odc_stac.load(
        stac_items, bands=["image.1", "image.2", "image.3"], chunks={"x": 50, "y": 50},
        crs="EPSG:32633", resolution=0.5, anchor="edge",
    )  # fmt: skip
    stacked = loaded.isel(time=0).to_dataarray("band")
    paths = [tmp_path / f"s{number}.tif" for number in range(3)]
    expected = classify(paths, model, tmp_path / "files.tif")
    np.testing.assert_array_equal(classify(stacked, model, tmp_path / "odc.tif"), expected)


class _Ranges(SimpleHTTPRequestHandler):
    """Serves parts of files, and notes how much it was asked for."""

    sent = 0

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        content, wanted = path.read_bytes(), self.headers.get("Range", "")
        total = len(content)
        self.send_response(206 if wanted else 200)
        if wanted:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            stop = min(int(last or total - 1), total - 1)
            content = content[int(first) : stop + 1]
            self.send_header("Content-Range", f"bytes {first}-{stop}/{total}")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if body:
            type(self).sent += len(content)
            self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


def _certificate(folder: Path) -> Path:
    """A key and a certificate that it signed itself, for this machine."""
    x509 = pytest.importorskip("cryptography.x509", reason="needs cryptography")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - day).not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    path = folder / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
def https(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The folder ``served`` behind https on this machine."""
    (tmp_path / "served").mkdir()
    certificate = _certificate(tmp_path)
    # A certificate that nobody vouches for.
    monkeypatch.setenv("GDAL_HTTP_UNSAFESSL", "YES")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def handler(*args: object) -> _Ranges:
        return _Ranges(*args, directory=str(tmp_path / "served"))  # type: ignore[arg-type]

    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as service:
        service.socket = context.wrap_socket(service.socket, server_side=True)
        thread = threading.Thread(target=service.serve_forever, daemon=True)
        thread.start()
        yield f"https://localhost:{service.server_address[1]}"
        service.shutdown()
        thread.join()


def test_a_part_of_a_raster_behind_https_is_read_by_ranges(
    https: str, model: Path, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(1, 256, (3, 1024, 1024), dtype=np.uint8)
    path = write(tmp_path / "served" / "a.tif", noise, tiled=True, blockxsize=128, blockysize=128)
    x, y = ORIGIN
    context = {
        "extent": {"xmin": x + 200, "ymin": y - 260, "xmax": x + 250, "ymax": y - 200},
    }
    expected = classify(path, model, tmp_path / "file.tif", context=context)
    _Ranges.sent = 0
    found = classify(f"{https}/a.tif", model, tmp_path / "url.tif", context=context)
    np.testing.assert_array_equal(found, expected)
    assert 0 < _Ranges.sent < path.stat().st_size / 3
    with pytest.raises(SourceError, match=r"none\.tif"):
        classify(f"{https}/none.tif", model, tmp_path / "none_map.tif")


def test_extent_snap_and_mask_may_come_in_another_reference_system(
    model: Path, tmp_path: Path
) -> None:
    raster = write(tmp_path / "a.tif", picture(160, 200))
    x, y = ORIGIN
    plain = {"xmin": x + 20, "ymin": y - 60, "xmax": x + 80, "ymax": y - 10}
    whole = classify(raster, model, tmp_path / "whole.tif")
    part = classify(raster, model, tmp_path / "part.tif", context={"extent": plain})
    np.testing.assert_array_equal(part, whole[:, 20:120, 40:160])
    west, south, east, north = rasterio.warp.transform_bounds(
        "EPSG:32633", "EPSG:4326", *(plain[name] for name in ("xmin", "ymin", "xmax", "ymax"))
    )
    degrees = {"xmin": west, "ymin": south, "xmax": east, "ymax": north}
    degrees["spatialReference"] = {"wkid": 4326}
    found = classify_pixels(
        raster, str(model), ARGUMENTS, tmp_path / "degrees.tif", context={"extent": degrees},
        progress=False,
    )  # fmt: skip
    # The box around a turned box is a little larger, and its pixels are those of the whole map.
    row = round((y - found.rio.bounds()[3]) / 0.5)
    col = round((found.rio.bounds()[0] - x) / 0.5)
    assert (20 - row, 40 - col) in {(a, b) for a in range(6) for b in range(6)}
    height, width = found.shape[1:]
    np.testing.assert_array_equal(found, whole[:, row : row + height, col : col + width])
    mask = gpd.GeoDataFrame(geometry=[shapely.box(x + 20, y - 60, x + 80, y - 10)], crs=32633)
    mask.to_crs(4326).to_file(tmp_path / "mask.gpkg")
    kept = classify(raster, model, tmp_path / "kept.tif", context={"mask": tmp_path / "mask.gpkg"})
    inside = np.zeros(whole.shape, bool)
    inside[:, 20:120, 40:160] = True
    np.testing.assert_array_equal(kept, np.where(inside, whole, 255))
