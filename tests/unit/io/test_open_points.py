"""``open_points``: what laspy reads, lazily and by part."""

from __future__ import annotations

import gc
import pickle
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dask
import laspy
import numpy as np
import pytest
import xarray as xr
from pyproj import CRS

import geodl
from geodl.base.errors import (
    DataWarning,
    GeodlError,
    MissingPackageError,
    OptionError,
    SourceError,
    SourceNotFoundError,
    UnknownOptionError,
)
from geodl.io import las_file
from geodl.io.cloud import open_cloud
from geodl.io.manifest import write_manifest
from geodl.io.points import cloud_of
from geodl.testing.cloud import make_cloud

REAL = ("lidar_ign", "trees_zurich/lidar", "lidar_forest", "lidar_formats")
BROKEN = {"simple-laszip-compressor-version-1.2r0.laz"}


def crs_of(header: Any) -> Any:
    try:
        return header.parse_crs()
    except Exception:  # noqa: BLE001 - whatever laspy raises: it states none that can be read
        return None


def assert_equals_laspy(path: Path) -> None:
    points = geodl.open_points(path)
    read = laspy.read(path)
    assert points.sizes["point"] == len(read)
    assert points.geodl.crs == crs_of(read.header)
    np.testing.assert_array_equal(points.attrs["mins"], read.header.mins)
    np.testing.assert_array_equal(points.attrs["maxs"], read.header.maxs)
    assert all(dask.is_dask_collection(v.data) for v in points.data_vars.values())
    found = points.compute()
    names = [n for n in read.point_format.dimension_names if n not in ("X", "Y", "Z")]
    assert set(found.data_vars) == {"x", "y", "z", *names}
    for name in ("x", "y", "z", *names):
        expected = np.asarray(read[name])
        assert found[name].dtype == expected.dtype, name
        np.testing.assert_array_equal(found[name].values, expected, err_msg=name)


@pytest.mark.parametrize("point_format", range(11))
@pytest.mark.parametrize("suffix", [".las", ".laz"])
def test_every_point_format_reads_as_laspy_does(
    tmp_path: Path, point_format: int, suffix: str
) -> None:
    extra = [("height", "f4"), ("echo", "3u2")]
    path = make_cloud(tmp_path / f"a{suffix}", points=400, point_format=point_format, extra=extra)
    assert_equals_laspy(path)


@pytest.mark.parametrize("suffix", [".las", ".laz"])
@pytest.mark.parametrize("minor", range(5))
def test_every_version_reads_as_laspy_does(tmp_path: Path, minor: int, suffix: str) -> None:
    path = make_cloud(
        tmp_path / f"a{suffix}", points=200, point_format=1, version=f"1.{max(1, minor)}"
    )
    if minor == 0:
        # laspy writes no 1.0, whose header has the same places.
        data = bytearray(path.read_bytes())
        data[25] = 0
        path.write_bytes(data)
    assert_equals_laspy(path)
    assert geodl.open_points(path).attrs["las_version"] == f"1.{minor}"


@pytest.mark.real
@pytest.mark.parametrize("folder", REAL)
def test_real_files_read_as_laspy_does(sample_data: Path, folder: str) -> None:
    files = [f for f in sorted((sample_data / folder).iterdir()) if f.suffix in (".las", ".laz")]
    assert files
    for path in files:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)
            if path.name in BROKEN:
                with pytest.raises(SourceError):
                    geodl.open_points(path)
            else:
                assert_equals_laspy(path)


@pytest.mark.real
def test_a_crs_that_proj_refuses_is_none_with_a_warning(sample_data: Path) -> None:
    with pytest.warns(DataWarning, match="without CRS"):
        points = geodl.open_points(sample_data / "lidar_formats" / "las14_pdrf6.laz")
    assert points.geodl.crs is None


def test_points_are_read_by_parts_of_whole_chunks(tmp_path: Path) -> None:
    path = make_cloud(tmp_path / "a.laz", points=130_000)
    points = geodl.open_points(path, chunks=60_000)
    assert points.chunks["point"] == (50_000, 50_000, 30_000)
    assert geodl.open_points(path).chunks["point"] == (130_000,)
    las = make_cloud(tmp_path / "a.las", points=1000)
    assert geodl.open_points(las, chunks={"point": 300}).chunks["point"] == (300, 300, 300, 100)
    one = points.isel(point=slice(99_990, 100_010)).compute()
    np.testing.assert_array_equal(one.x, np.asarray(laspy.read(path).x)[99_990:100_010])


def test_dimensions_are_chosen_and_unknown_ones_named(tmp_path: Path) -> None:
    path = make_cloud(tmp_path / "a.las", points=100)
    assert set(geodl.open_points(path, dims=["intensity"]).data_vars) == {
        "x", "y", "z", "intensity",
    }  # fmt: skip
    with pytest.raises(UnknownOptionError, match="'intensity'"):
        geodl.open_points(path, dims=["intensty"])


@pytest.mark.parametrize("name", ["a.las", "a.laz"])
def test_bounds_keep_what_lies_inside_in_the_files_order(tmp_path: Path, name: str) -> None:
    path = make_cloud(tmp_path / name, points=5000)
    whole = geodl.open_points(path).compute()
    bounds = (500_020.0, 5_500_030.0, 500_060.5, 5_500_031.0)
    keep = (whole.x >= bounds[0]) & (whole.x <= bounds[2])
    keep &= (whole.y >= bounds[1]) & (whole.y <= bounds[3])
    found = geodl.open_points(path, bounds=bounds).compute()
    assert 0 < found.sizes["point"] < 200
    np.testing.assert_array_equal(found.gps_time, whole.gps_time[keep.values])
    assert geodl.open_points(path, bounds=(0, 0, 1, 1)).compute().sizes["point"] == 0
    with pytest.raises(OptionError, match="xmin"):
        geodl.open_points(path, bounds=(3, 0, 1, 1))


def test_a_cloud_that_was_opened_twice_is_known_twice(tmp_path: Path) -> None:
    path = make_cloud(tmp_path / "a.las", points=100)
    points = geodl.open_points(path)
    geodl.open_points(path).z.mean().compute()
    gc.collect()
    assert cloud_of(points).count == 100


def test_bounds_keep_to_the_size_of_chunks(tmp_path: Path) -> None:
    path = make_cloud(tmp_path / "a.las", points=1000)
    points = geodl.open_points(path, bounds=(500_000, 5_500_000, 500_050, 5_500_100), chunks=100)
    assert max(points.chunks["point"]) <= 100
    assert len(points.chunks["point"]) == 10


def test_points_beyond_what_the_header_says_break_nothing(tmp_path: Path) -> None:
    path = make_cloud(tmp_path / "a.las", points=1000)
    data = bytearray(path.read_bytes())
    # Greatest x of the header, some metres too small.
    data[179:187] = np.float64(500_080).tobytes()
    path.write_bytes(data)
    points = geodl.open_points(path, bounds=(499_000, 5_499_000, 500_085, 5_600_000))
    assert len(points.x.values) == points.sizes["point"]


@pytest.mark.parametrize("left", [[0.0] * 6, [np.nan] * 6, [np.inf, -np.inf] * 3])
def test_a_header_that_names_no_area_hides_no_point(tmp_path: Path, left: list[float]) -> None:
    path = make_cloud(tmp_path / "a.las", points=200, side=50, origin=(0.0, 0.0))
    whole = geodl.open_points(path, bounds=(0, 0, 20, 20)).x.values
    content = bytearray(path.read_bytes())
    struct.pack_into("<6d", content, 179, *left)
    path.write_bytes(content)
    found = geodl.open_points(path, bounds=(0, 0, 20, 20))
    np.testing.assert_array_equal(found.x.values, whole)
    assert 0 < len(whole) < 200
    extent = open_cloud(path).extent
    xyz = np.asarray(laspy.read(path).xyz)
    np.testing.assert_allclose(extent, (*xyz[:, :2].min(axis=0), *xyz[:, :2].max(axis=0)))


@pytest.mark.parametrize("suffix", [".las", ".laz"])
def test_a_file_that_was_replaced_is_told(tmp_path: Path, suffix: str) -> None:
    path = make_cloud(tmp_path / f"a{suffix}", points=200, side=50)
    found = geodl.open_points(path)
    make_cloud(path, points=300, side=50)
    with pytest.raises(SourceError, match="has changed since it was opened"):
        found.x.compute()


def test_the_accessor_cuts_by_bounds_as_opening_does(tmp_path: Path) -> None:
    path = make_cloud(tmp_path / "a.laz", points=2000)
    bounds = (500_020.0, 5_500_010.0, 500_060.0, 5_500_050.0)
    points = geodl.open_points(path, dims=["intensity"], chunks=500)
    cut = points.geodl.within(bounds)
    xr.testing.assert_identical(cut, geodl.open_points(path, dims=["intensity"], bounds=bounds))
    changed = points.assign(double=points.z * 2).geodl.within(bounds)
    np.testing.assert_array_equal(changed.intensity, cut.intensity)
    assert dask.is_dask_collection(changed.double.data)
    again = cut.geodl.within((500_030, 5_500_000, 500_100, 5_500_100))
    assert again.attrs["bounds"] == [500_030.0, 5_500_010.0, 500_060.0, 5_500_050.0]
    np.testing.assert_array_equal(again.x, cut.x.values[cut.x.values >= 500_030])
    assert cut.geodl.within((0, 0, 1, 1)).sizes["point"] == 0
    with pytest.raises(OptionError, match="xmin"):
        points.geodl.within((1, 2))  # type: ignore[arg-type]


def test_files_outside_the_bounds_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(4):
        make_cloud(
            tmp_path / f"{k}.laz", points=500, origin=(500_000.0 + 100 * k, 5_500_000.0), seed=k
        )
    read: list[str] = []
    decode = las_file.LasFile.read_raw

    def counting(self: Any, part: Any) -> Any:
        read.append(Path(self.name).name)
        return decode(self, part)

    monkeypatch.setattr(las_file.LasFile, "read_raw", counting)
    found = geodl.open_points(tmp_path, bounds=(500_150, 5_499_000, 500_300.001, 5_501_000))
    # Only the file that the edge cuts is read to count its points.
    assert sorted(set(read)) == ["1.laz"]
    assert 700 < found.compute().sizes["point"] < 800
    assert sorted(set(read)) == ["1.laz", "2.laz"]


@pytest.mark.real
def test_an_octree_is_read_where_it_is_needed(
    sample_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sample_data / "lidar_formats" / "1.2-with-color.copc.laz"
    whole = geodl.open_points(path).compute()
    x0, x1 = np.quantile(whole.x, [0.1, 0.25])
    y0, y1 = np.quantile(whole.y, [0.1, 0.25])
    bounds = (float(x0), float(y0), float(x1), float(y1))
    keep = ((whole.x >= x0) & (whole.x <= x1) & (whole.y >= y0) & (whole.y <= y1)).values
    cloud = open_cloud(path, bounds=bounds)
    assert sum(part.count for part in cloud.parts) < 0.5 * len(whole.x)
    found = geodl.open_points(path, bounds=bounds).compute()
    np.testing.assert_array_equal(found.gps_time, whole.gps_time[keep])


def test_a_folder_is_one_cloud_in_one_crs(tmp_path: Path) -> None:
    one = make_cloud(tmp_path / "a.laz", points=300, crs=32633)
    (tmp_path / "sub").mkdir()
    two = make_cloud(
        tmp_path / "sub" / "b.las", points=200, crs=32632, point_format=7,
        origin=(900_000.0, 5_500_000.0),
    )  # fmt: skip
    points = geodl.open_points(tmp_path)
    assert points.sizes["point"] == 500
    assert points.geodl.crs == CRS.from_epsg(32633)
    read = [laspy.read(path) for path in (one, two)]
    np.testing.assert_array_equal(points.x[:300].values, read[0].x)
    from pyproj import Transformer

    move = Transformer.from_crs(32632, 32633, always_xy=True).transform
    x, y = move(np.asarray(read[1].x), np.asarray(read[1].y))
    np.testing.assert_allclose(points.x[300:].values, x)
    np.testing.assert_allclose(points.y[300:].values, y)
    np.testing.assert_array_equal(points.z[300:].values, read[1].z)
    # Colours that the first file lacks are 0 there.
    assert points.red[:300].values.max() == 0
    np.testing.assert_array_equal(points.red[300:].values, read[1].red)
    assert [facts["point_count"] for facts in points.attrs["files"]] == [300, 200]
    listed = geodl.open_points([two, one])
    assert listed.geodl.crs == CRS.from_epsg(32632)


def test_points_that_have_no_place_in_the_clouds_crs_are_named(tmp_path: Path) -> None:
    make_cloud(tmp_path / "a.las", points=20)
    make_cloud(tmp_path / "b.las", points=20, crs=4326)
    cloud = geodl.open_points(tmp_path)
    with pytest.raises(SourceError, match=r"b\.las: 20 of 20 points in EPSG:4326"):
        cloud.x.compute()


def test_heights_in_different_units_are_told(tmp_path: Path) -> None:
    make_cloud(tmp_path / "a.las", points=20, crs="EPSG:32633+5703")
    make_cloud(tmp_path / "b.las", points=20, crs="EPSG:32633+6360")
    with pytest.warns(DataWarning, match="in metre, those of .* in US survey foot"):
        geodl.open_points(tmp_path)


def test_files_without_a_crs_take_that_of_the_others(tmp_path: Path) -> None:
    make_cloud(tmp_path / "a.las", points=10, crs=None)
    assert geodl.open_points(tmp_path / "a.las").geodl.crs is None
    make_cloud(tmp_path / "b.las", points=10)
    with pytest.warns(DataWarning, match="state no CRS"):
        points = geodl.open_points(tmp_path)
    assert points.geodl.crs == CRS.from_epsg(32633)


def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="nothing"):
        geodl.open_points(tmp_path / "nothing.laz")
    with pytest.raises(SourceNotFoundError, match="holds no LAS"):
        geodl.open_points(tmp_path)
    with pytest.raises(SourceNotFoundError, match="matches"):
        geodl.open_points(tmp_path / "*.laz")
    with pytest.raises(SourceNotFoundError, match="empty"):
        geodl.open_points([])
    (tmp_path / "scan.e57").write_bytes(b"ASTM-E57")
    with pytest.raises(SourceError, match="convert it to LAZ"):
        geodl.open_points(tmp_path / "scan.e57")
    (tmp_path / "text.las").write_text("x y z")
    with pytest.raises(SourceError, match="no LAS or LAZ"):
        geodl.open_points(tmp_path / "text.las")
    (tmp_path / "text.las").unlink()
    with pytest.raises(SourceError, match="convert it to LAZ"):
        geodl.open_points(tmp_path)
    for wrong in (3, None, b"a.las", {"a": 1}):
        with pytest.raises(OptionError, match="give a path"):
            geodl.open_points(wrong)
    path = make_cloud(tmp_path / "a.las", points=10)
    for chunks in (None, (5, 5), "1MB", 0, {"points": 5}):
        with pytest.raises((OptionError, UnknownOptionError), match="chunks"):
            geodl.open_points(path, chunks=chunks)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="dims=5"):
        geodl.open_points(path, dims=5)  # type: ignore[arg-type]


def test_each_file_is_taken_once_and_patterns_reach_into_folders(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    path = make_cloud(tmp_path / "deep" / "er" / "a b.las", points=10)
    assert geodl.open_points(f"{tmp_path}/**/*.las").sizes["point"] == 10
    with pytest.warns(DataWarning, match="more than once"):
        assert geodl.open_points([path, tmp_path, str(path)]).sizes["point"] == 10
    (tmp_path / "scan.e57").write_bytes(b"ASTM-E57")
    with pytest.warns(DataWarning, match=r"scan\.e57"):
        assert geodl.open_points(tmp_path).sizes["point"] == 10


def test_copies_that_geodl_made_are_left_out_beside_their_sources(tmp_path: Path) -> None:
    for name in ("a.las", "results/a.las", "b_classified.las"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        make_cloud(tmp_path / name, points=10)
    write_manifest(tmp_path / "results", {})
    write_manifest(tmp_path / "b_classified.las", {})
    with pytest.warns(DataWarning, match=r"b_classified\.las and 1 more"):
        assert geodl.open_points(tmp_path).sizes["point"] == 10
    assert geodl.open_points(tmp_path / "results").sizes["point"] == 10
    (tmp_path / "a.las").unlink()
    assert geodl.open_points(tmp_path).sizes["point"] == 20


def test_a_server_without_ranges_is_named(tmp_path: Path) -> None:
    make_cloud(tmp_path / "a.las", points=100)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Whole, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(SourceError, match="range requests"):
            geodl.open_points(f"http://127.0.0.1:{server.server_port}/a.las")
    finally:
        server.shutdown()
        server.server_close()


class _Whole(SimpleHTTPRequestHandler):
    """Python's own server: it gives whole files, whatever range is asked for."""

    def log_message(self, *given: Any) -> None:
        pass


def test_datasets_travel_to_workers(tmp_path: Path) -> None:
    path = make_cloud(tmp_path / "a.laz", points=500)
    points = pickle.loads(pickle.dumps(geodl.open_points(path)))
    np.testing.assert_array_equal(points.z.values, np.asarray(laspy.read(path).z))


def test_urls_are_read_by_ranges(tmp_path: Path) -> None:
    path = make_cloud(tmp_path / "a.laz", points=200_000, side=400)
    make_cloud(tmp_path / "b.las", points=300)
    with served(tmp_path) as (base, asked):
        points = geodl.open_points(f"{base}/a.laz", chunks=50_000)
        head = sum(asked)
        assert head < 20_000
        few = points.isel(point=slice(0, 10)).compute()
        np.testing.assert_array_equal(few.x, np.asarray(laspy.read(path).x)[:10])
        assert sum(asked) - head < 0.3 * path.stat().st_size
        assert geodl.open_points(f"{base}/b.las").compute().sizes["point"] == 300
        with pytest.raises(SourceNotFoundError):
            geodl.open_points(f"{base}/c.laz")


@pytest.mark.real
def test_an_octree_behind_a_url_is_read_where_it_is_needed(sample_data: Path) -> None:
    path = sample_data / "lidar_formats" / "1.2-with-color.copc.laz"
    whole = laspy.read(path)
    x, y = np.asarray(whole.x), np.asarray(whole.y)
    (x0, x1), (y0, y1) = np.quantile(x, [0.1, 0.2]), np.quantile(y, [0.1, 0.2])
    keep = (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)
    bounds = (float(x0), float(y0), float(x1), float(y1))
    with served(path.parent) as (base, asked):
        points = geodl.open_points(f"{base}/{path.name}", bounds=bounds)
        np.testing.assert_array_equal(points.gps_time.values, whole.gps_time[keep])
        assert points.red.values.sum() == np.asarray(whole.red)[keep].astype(np.int64).sum()
    assert keep.any()
    assert max(asked) < path.stat().st_size / 2


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, list[int]]]:
    """Address of a server of ranges, and the lengths that are asked for."""
    asked: list[int] = []
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(_Ranges, directory=str(folder), asked=asked)
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


class _Ranges(SimpleHTTPRequestHandler):
    """Serves ranges of files, and notes how many bytes were asked for."""

    def __init__(self, *given: Any, asked: list[int], **options: Any) -> None:
        self.asked = asked
        super().__init__(*given, **options)

    def log_message(self, *given: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        wanted = self.headers.get("Range")
        first, stop = 0, len(data)
        if wanted:
            low, high = wanted.removeprefix("bytes=").split("-")
            first, stop = int(low), min(int(high) + 1, len(data))
        self.asked.append(stop - first)
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(stop - first))
        self.send_header("Accept-Ranges", "bytes")
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{stop - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(data[first:stop])


def test_pipelines_need_pdal_and_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_cloud(tmp_path / "a.las", points=10)
    with pytest.raises(OptionError, match="list of stages"):
        geodl.open_points(path, pipeline="filters.smrf")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="no filter"):
        geodl.open_points(path, pipeline=[{"type": "readers.las"}])
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match="conda install"):
        geodl.open_points(path, pipeline=[{"type": "filters.smrf"}])
    assert issubclass(MissingPackageError, GeodlError)
