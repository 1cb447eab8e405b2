"""``ds.geodl``: tiles, heights, rasters, thinning and writers of points."""

from __future__ import annotations

import json
import pickle
import threading
from pathlib import Path
from typing import Any

import laspy
import numpy as np
import pyarrow.parquet as pq
import pyproj
import pytest
import xarray as xr

import geodl
from geodl.base.errors import DataError, OptionError, OutputError, PlanError, UnknownOptionError
from geodl.core.points import lattice_index
from geodl.io import point_tiles
from geodl.testing.cloud import make_cloud


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cloud(
        tmp_path_factory.mktemp("cloud") / "a.laz", points=8000, point_format=7,
        extra=[("echo", "3u2")],
    )  # fmt: skip


@pytest.fixture
def points(path: Path) -> Any:
    return geodl.open_points(path)


@pytest.fixture(params=["memory", "disk", "changed"])
def cloud(request: pytest.FixtureRequest, points: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The points, sorted in memory, on disk, and as a Dataset that no file stands for."""
    if request.param == "disk":
        monkeypatch.setattr(point_tiles, "MEMORY_POINTS", 100)
    if request.param == "changed":
        return points.assign(double=points.z * 2).chunk({"point": 3000})
    return points


def test_each_point_is_in_one_core_and_in_every_buffer_it_reaches(cloud: Any) -> None:
    size, buffer = 17.0, 6.0
    tiles = cloud.geodl.tiles(size, buffer)
    read = cloud.compute()
    owned = np.zeros(len(read.x), int)
    for tile in tiles:
        x0, y0, x1, y1 = tile.core
        assert (x0, y0) == (tile.col * size, tile.row * size)
        near = (read.x >= x0 - buffer) & (read.x < x1 + buffer)
        near &= (read.y >= y0 - buffer) & (read.y < y1 + buffer)
        np.testing.assert_array_equal(tile.index, np.flatnonzero(near.values))
        np.testing.assert_array_equal(tile.xyz[:, 2], read.z.values[tile.index])
        np.testing.assert_array_equal(tile.attributes["echo"], read.echo.values[tile.index])
        owned[tile.index[tile.inside]] += 1
    assert (owned == 1).all()
    assert len(tiles) == len(list(tiles)) == 49
    assert tiles[3].col == tiles.spec(3).col


def test_a_sorted_folder_is_kept_for_its_own_cloud(points: Any, path: Path, tmp_path: Path) -> None:
    first = points.geodl.tiles(20, dims=["intensity"], folder=tmp_path / "sorted")
    stamps = {f: f.stat().st_mtime_ns for f in (tmp_path / "sorted").glob("0*.npy")}
    again = points.geodl.tiles(20, dims=["intensity"], folder=tmp_path / "sorted")
    assert stamps == {f: f.stat().st_mtime_ns for f in (tmp_path / "sorted").glob("0*.npy")}
    assert set(first[0].attributes) == {"intensity"}
    np.testing.assert_array_equal(first[7].index, again[7].index)
    with pytest.raises(OptionError, match="another cloud"):
        points.geodl.tiles(30, dims=["intensity"], folder=tmp_path / "sorted")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        points.geodl.tiles(30, folder=tmp_path / "file" / "sorted")


def test_sorting_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = geodl.open_points(make_cloud(tmp_path / "a.las", points=4000), chunks=500)
    folder = tmp_path / "sorted"
    saved = point_tiles.save_part
    threads = set()

    def failing(place: Path, stem: str, part: Any) -> None:
        threads.add(threading.current_thread().name)
        if len(list(place.glob("*.cells.npy"))) >= 2:
            raise OSError("the disk is full")
        saved(place, stem, part)

    monkeypatch.setattr(point_tiles, "save_part", failing)
    with pytest.raises(OutputError, match="disk is full"):
        points.geodl.tiles(20, folder=folder)
    assert all(name.startswith("geodl-sort") for name in threads)
    done = {f: f.stat().st_mtime_ns for f in folder.glob("*.cells.npy")}
    assert len(done) >= 2
    monkeypatch.undo()
    tiles = points.geodl.tiles(20, folder=folder)
    assert {f: f.stat().st_mtime_ns for f in done} == done
    read = np.sort(np.concatenate([tile.index[tile.inside] for tile in tiles]))
    np.testing.assert_array_equal(read, np.arange(points.sizes["point"]))


def test_sizes_that_make_no_tile_are_refused(points: Any) -> None:
    with pytest.raises((OptionError, PlanError)):
        points.geodl.tiles(0)
    with pytest.raises(OptionError):
        points.geodl.tiles(10, -1)
    with pytest.raises(UnknownOptionError, match="intensity"):
        points.geodl.tiles(10, dims=["intensty"])
    with pytest.raises(DataError, match="no points"):
        xr.Dataset({"a": ("b", [1])}).geodl.tiles(10)
    with pytest.raises(DataError, match="along 'point'"):
        points.rename(point="p").geodl.tiles(10)


def test_lattice_cells_own_their_lower_edge() -> None:
    side = 0.1
    values = np.arange(-50, 50) * side
    found = lattice_index(values, side)
    assert (found * side <= values).all()
    assert (values < (found + 1) * side).all()


def test_heights_are_over_the_ground(cloud: Any) -> None:
    found = cloud.geodl.height_above_ground(tile_size=40.0).compute()
    height, code = found.height_above_ground.values, found.classification.values
    assert abs(height[code == 2]).max() < 0.3
    assert 4 < height[code == 6].min() < height[code == 6].max() < 11
    assert height[code == 5].max() > 5
    with pytest.raises(DataError, match="ground"):
        cloud.isel(point=code == 6).geodl.height_above_ground()


@pytest.mark.parametrize("chunk", [7, 512])
def test_rasters_are_what_their_cells_hold(cloud: Any, chunk: int) -> None:
    cell = 5.0
    read = cloud.compute()
    count = cloud.geodl.rasterize(cell, "count", chunk=chunk)
    col = np.floor(read.x.values / cell).astype(int) - round(float(count.x[0] / cell - 0.5))
    row = round(float(count.y[0] / cell + 0.5)) - np.ceil(read.y.values / cell).astype(int)
    expected = np.zeros(count.shape, int)
    np.add.at(expected, (row, col), 1)
    np.testing.assert_array_equal(count.values, expected)
    assert count.rio.crs.to_epsg() == 32633
    density = cloud.geodl.rasterize(cell, chunk=chunk)
    np.testing.assert_allclose(density.values, expected / 25)
    top = np.full(count.shape, -np.inf)
    np.maximum.at(top, (row, col), read.z.values)
    top[np.isinf(top)] = np.nan
    for kind in ("dsm", "max"):
        found = cloud.geodl.rasterize(cell, kind, chunk=chunk)
        np.testing.assert_array_equal(found.values, top.astype(np.float32))
    total = np.zeros(count.shape)
    np.add.at(total, (row, col), read.intensity.values)
    mean = cloud.geodl.rasterize(cell, "mean", dim="intensity", chunk=chunk).values
    np.testing.assert_allclose(mean[expected > 0], (total / expected.clip(1))[expected > 0], 1e-5)
    least = cloud.geodl.rasterize(cell, "min", chunk=chunk).values
    assert np.nanmax(least - top) <= 0


@pytest.mark.parametrize("cell", [0.1, 0.3, 0.7, 1 / 3])
def test_points_on_the_edges_of_cells_lie_in_one_chunk(cell: float) -> None:
    steps = np.arange(60) * 0.1
    x, y = (v.ravel() for v in np.meshgrid(700_000.3 + steps, 6_200_000.7 + steps))
    own = xr.Dataset({a: ("point", v) for a, v in zip("xyz", (x, y, 0 * x), strict=True)})
    whole = own.geodl.rasterize(cell, "count")
    assert int(whole.sum()) == len(x)
    for chunk in (5, 7, 16):
        cut = own.geodl.rasterize(cell, "count", chunk=chunk)
        xr.testing.assert_identical(cut.compute(), whole.compute())


def test_the_points_of_a_raster_are_in_its_graph_once(points: Any) -> None:
    array = points.geodl.rasterize(2.0, chunk=5)
    graph = dict(array.data.__dask_graph__())
    assert len(pickle.dumps(graph[array.data.__dask_keys__()[3][2]])) < 2000


def test_values_that_are_nan_count_nowhere_and_places_must_be_finite(points: Any) -> None:
    half = points.assign(z=points.z.where(points.z > 101)).compute()
    top = half.geodl.rasterize(10.0, "max").values
    np.testing.assert_array_equal(
        top[top > 101], points.geodl.rasterize(10.0, "max").values[top > 101]
    )
    low = half.geodl.rasterize(10.0, "mean").values
    assert np.nanmin(low) > 101
    heights = half.geodl.height_above_ground().height_above_ground.values
    np.testing.assert_array_equal(np.isnan(heights), np.isnan(half.z.values))
    lost = points.assign(x=points.x.where(points.x > 500_050, np.inf))
    for wrong in (lambda p: p.tiles(10), lambda p: p.rasterize(1), lambda p: p.thin(spacing=1)):
        with pytest.raises(DataError, match="not finite"):
            wrong(lost.geodl)


def test_a_folder_of_points_in_memory_is_not_taken_for_others(points: Any, tmp_path: Path) -> None:
    few = points.compute()
    few.geodl.tiles(20, dims=[], folder=tmp_path / "sorted")
    with pytest.raises(OptionError, match="another cloud"):
        few.assign(z=few.z + 1).geodl.tiles(20, dims=[], folder=tmp_path / "sorted")


def test_heights_in_degrees_are_those_in_metres(points: Any) -> None:
    back = pyproj.Transformer.from_crs(32633, 4326, always_xy=True)
    lon, lat = back.transform(points.x.values, points.y.values)
    degrees = points.assign(x=("point", lon), y=("point", lat))
    degrees.attrs["crs_wkt"] = pyproj.CRS(4326).to_wkt()
    height = degrees.geodl.height_above_ground().height_above_ground.values
    code = points.classification.values
    assert abs(height[code == 2]).max() < 0.4
    assert 4 < height[code == 6].min() < height[code == 6].max() < 11


def test_the_terrain_is_the_ground_under_buildings(points: Any) -> None:
    found = points.geodl.rasterize(2.0, "dtm", chunk=20)
    x, y = np.meshgrid(found.x.values - 500_000, found.y.values - 5_500_000)
    ground = 100 + 2 * np.sin(x / 60) + 2 * np.cos(y / 80)
    inside = (x > 3) & (y > 3) & (x < 97) & (y < 97)
    assert abs(found.values - ground)[inside].max() < 0.25


def test_rasters_refuse_what_they_cannot_make(points: Any) -> None:
    with pytest.raises(OptionError, match="dsm"):
        points.geodl.rasterize(2.0, "dsms")
    with pytest.raises(OptionError, match="larger resolution"):
        points.geodl.rasterize(1e-7)
    with pytest.raises(OptionError, match="echo"):
        points.geodl.rasterize(2.0, "mean", dim="echo")
    with pytest.raises(DataError, match="classification"):
        points[["x", "y", "z"]].geodl.rasterize(2.0, "dtm")


def test_thinning_keeps_every_nth_or_one_in_each_cube(cloud: Any) -> None:
    assert cloud.geodl.thin(100).sizes["point"] == 80
    cloud = cloud.chunk({"point": 700}) if "double" in cloud else cloud
    few = cloud.geodl.thin(spacing=5.0).compute()
    cubes = np.floor(np.stack([few[a].values for a in "xyz"], 1) / 5.0)
    assert len(np.unique(cubes, axis=0)) == len(cubes)
    read = cloud.compute()
    everything = np.floor(np.stack([read[a].values for a in "xyz"], 1) / 5.0)
    _, first = np.unique(everything, axis=0, return_index=True)
    np.testing.assert_array_equal(few.z.values, read.z.values[np.sort(first)])
    with pytest.raises(OptionError, match="one of"):
        cloud.geodl.thin()


@pytest.mark.parametrize("suffix", [".las", ".laz"])
def test_a_written_cloud_is_the_same(points: Any, path: Path, tmp_path: Path, suffix: str) -> None:
    written = points.geodl.to_las(tmp_path / f"b{suffix}")
    before, after = laspy.read(path), laspy.read(written)
    assert before.points.array.tobytes() == after.points.array.tobytes()
    assert after.header.parse_crs() == before.header.parse_crs()


@pytest.mark.parametrize(
    ("name", "values"),
    [("intensity", 70_000), ("return_number", 16), ("classification", -1), ("user_data", np.nan),
     ("intensity", 0.5)],
)  # fmt: skip
def test_values_that_las_would_wrap_are_refused(
    points: Any, tmp_path: Path, name: str, values: float
) -> None:
    wrong = points.assign({name: ("point", np.full(points.sizes["point"], values))})
    with pytest.raises(DataError, match=f"{name} has values"):
        wrong.geodl.to_las(tmp_path / "a.las")
    assert not (tmp_path / "a.las").exists()


def test_points_chosen_by_where_are_written(points: Any, path: Path, tmp_path: Path) -> None:
    ground = points.where(points.classification.compute() == 2, drop=True)
    assert ground.return_number.dtype.kind == "f"
    before, after = laspy.read(path), laspy.read(ground.geodl.to_las(tmp_path / "a.laz"))
    chosen = np.asarray(before.classification) == 2
    for name in ("intensity", "return_number", "red", "gps_time", "edge_of_flight_line"):
        np.testing.assert_array_equal(after[name], np.asarray(before[name])[chosen])


def test_a_written_cloud_keeps_what_its_header_says(tmp_path: Path) -> None:
    path = make_cloud(tmp_path / "a.las", points=50, point_format=1)
    las = laspy.read(path)
    las.header.global_encoding.gps_time_type = laspy.header.GpsTimeType.STANDARD
    las.header.system_identifier, las.header.file_source_id = "SCANNER", 7
    las.write(path)
    after = laspy.read(geodl.open_points(path).geodl.to_las(tmp_path / "b.las")).header
    assert after.global_encoding.gps_time_type == laspy.header.GpsTimeType.STANDARD
    assert (after.system_identifier, after.file_source_id) == ("SCANNER", 7)


@pytest.mark.parametrize("point_format", [1, 6])
def test_a_crs_without_a_number_is_written_as_text(tmp_path: Path, point_format: int) -> None:
    points = geodl.open_points(make_cloud(tmp_path / "a.las", points=9, point_format=point_format))
    own = pyproj.CRS("+proj=lcc +lat_1=43 +lat_2=45 +lat_0=44 +lon_0=-120 +units=ft +type=crs")
    for crs in (own, pyproj.CRS("EPSG:32633+5773")):
        written = points.assign_attrs(crs_wkt=crs.to_wkt()).geodl.to_las(tmp_path / "b.laz")
        after = geodl.open_points(written)
        assert after.geodl.crs.equals(crs)
        np.testing.assert_array_equal(after.x, points.x)
    with pytest.raises(OptionError, match="no CRS"):
        _ = points.assign_attrs(crs_wkt="rubbish").geodl.crs


def test_several_files_are_written_with_the_finest_scale(tmp_path: Path) -> None:
    fine = laspy.read(make_cloud(tmp_path / "a.las", points=20))
    fine.change_scaling(scales=[1e-4] * 3)
    fine.x = np.asarray(fine.x) + 0.0003
    fine.write(tmp_path / "b.las")
    points = geodl.open_points([tmp_path / "a.las", tmp_path / "b.las"])
    after = geodl.open_points(points.geodl.to_las(tmp_path / "c.las"))
    np.testing.assert_allclose(after.x, points.x, rtol=0, atol=1e-9)


def test_coordinates_that_became_degrees_keep_their_digits(points: Any, tmp_path: Path) -> None:
    degrees = points.assign(x=points.x / 1e6, y=points.y / 1e6)
    degrees.attrs["crs_wkt"] = pyproj.CRS(4326).to_wkt()
    after = geodl.open_points(degrees.geodl.to_las(tmp_path / "a.las"))
    np.testing.assert_allclose(after.x, degrees.x, rtol=0, atol=1e-7)


def test_new_variables_become_extra_dimensions(points: Any, tmp_path: Path) -> None:
    few = points.isel(point=slice(10, 60)).assign(
        height=points.z.isel(point=slice(10, 60)).astype("f4"),
        near=points.z.isel(point=slice(10, 60)) > 100,
    )
    after = laspy.read(few.geodl.to_las(tmp_path / "b.las"))
    assert len(after) == 50
    np.testing.assert_array_equal(after["height"], few.height.values)
    np.testing.assert_array_equal(after["near"], few.near.values)
    plain = few[["x", "y", "z", "nir"]] if "nir" in few else few[["x", "y", "z", "red"]]
    assert laspy.read(plain.geodl.to_las(tmp_path / "c.laz")).point_format.id == 7
    with pytest.raises(OptionError, match="suffix"):
        few.geodl.to_las(tmp_path / "b.xyz")
    with pytest.raises(DataError, match="longer than 32"):
        few.rename(height="h" * 40).geodl.to_las(tmp_path / "d.las")
    far = few.assign(x=few.x * 1e6)
    with pytest.raises(DataError, match="does not fit"):
        far.geodl.to_las(tmp_path / "e.las")
    assert not (tmp_path / "e.las").exists()


def test_a_cloud_without_a_file_is_written_with_fine_scales(tmp_path: Path) -> None:
    own = xr.Dataset({a: ("point", np.random.default_rng(0).uniform(0, 9, 20)) for a in "xyz"})
    after = laspy.read(own.geodl.to_las(tmp_path / "a.laz"))
    np.testing.assert_allclose(np.asarray(after.x), own.x, atol=6e-4)
    assert own.geodl.crs is None


def test_a_parquet_table_holds_every_variable(points: Any, tmp_path: Path) -> None:
    written = points.geodl.to_parquet(tmp_path / "a.parquet")
    table = pq.read_table(written)
    assert table.num_rows == 8000
    np.testing.assert_array_equal(table["z"].to_numpy(), points.z.values)
    assert table["echo"][5].as_py() == points.echo[5].values.tolist()
    assert "WGS 84 / UTM zone 33N" in table.schema.metadata[b"crs_wkt"].decode()
    assert json.loads(table.schema.metadata[b"geodl"])["point_format"] == 7
    points.assign_attrs(own=np.int64(3)).geodl.to_parquet(tmp_path / "b.parquet")
    with pytest.raises(OptionError, match="parquet"):
        points.geodl.to_parquet(tmp_path / "a.csv")


def test_pictures_show_some_of_the_points(points: Any) -> None:
    figure = points.geodl.plot(most_points=1000)
    assert len(figure.data[0].x) == 1000
    assert len(points.geodl.plot("rgb", most_points=10).data[0].marker.color) == 10
    with pytest.raises(OptionError, match="most_points"):
        points.geodl.plot(most_points=0)
    with pytest.raises(DataError, match="nir"):
        points.geodl.plot("nir")
