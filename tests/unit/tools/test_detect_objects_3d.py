"""``detect_objects_3d``: boxes as polygons, and what they must not depend on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import laspy
import numpy as np
import pyproj
import pytest
from pandas.testing import assert_frame_equal

import geodl
from geodl.base.errors import (
    ModelDataError,
    OptionError,
    OutputExistsError,
    RunCancelledError,
    RunMismatchError,
)
from geodl.io.manifest import read_manifest
from geodl.testing.tiny_boxes import tiny_boxes
from geodl.testing.tiny_points import tiny_points
from geodl.tools import point_job

# Centre x, y, side and height of blocks on a plane; one on a corner of four blocks and tiles.
HOUSES = ((1020.0, 2020.0, 4.0, 3.0), (1064.0, 2064.0, 6.0, 5.0), (1090.5, 2033.0, 3.0, 4.0))


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(1)
    ground = np.column_stack([rng.uniform([1000, 2000], [1100, 2100], (4000, 2)), np.zeros(4000)])
    parts = [ground]
    for x, y, side, height in HOUSES:
        ticks = np.arange(-side / 2, side / 2 + 0.01, 0.5)
        flat = np.stack(np.meshgrid(ticks, ticks), axis=2).reshape(-1, 2) + np.array([x, y])
        for level in (height / 2, height):
            parts.append(np.column_stack([flat, np.full(len(flat), level)]))
    header = laspy.LasHeader(point_format=6, version="1.4")
    header.offsets, header.scales = (1000.0, 2000.0, 0.0), (0.001,) * 3
    header.add_crs(pyproj.CRS.from_epsg(32633))
    las = laspy.LasData(header)
    las.xyz = np.concatenate(parts)
    path = tmp_path_factory.mktemp("cloud") / "plane.laz"
    las.write(path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_boxes(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def whole(cloud: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "found.parquet"
    geodl.detect_objects_3d(cloud, model, path, progress=False)
    return path


def test_each_object_is_found_once_with_its_numbers(whole: Path) -> None:
    found = gpd.read_parquet(whole)
    assert found.crs == "EPSG:32633"
    assert list(found.columns) == [
        "Class", "ClassValue", "Confidence", "z", "height", "length", "width", "yaw", "geometry",
    ]  # fmt: skip
    found = found.assign(x=found.centroid.x).sort_values("x")
    expected = sorted(HOUSES)
    np.testing.assert_allclose(found["x"], [h[0] for h in expected], atol=1e-3)
    np.testing.assert_allclose(found.centroid.y, [h[1] for h in expected], atol=1e-3)
    np.testing.assert_allclose(found["length"], [h[2] for h in expected], atol=1e-3)
    np.testing.assert_allclose(found["z"], [h[3] / 2 for h in expected], atol=1e-3)
    np.testing.assert_allclose(found["height"], [h[3] / 2 for h in expected], atol=1e-3)
    np.testing.assert_allclose(found.area, [h[2] ** 2 for h in expected], rtol=1e-3)
    assert found["Class"].tolist() == ["Car", "House", "Car"]
    assert found["ClassValue"].tolist() == [1, 7, 1]
    assert found["Confidence"].round(3).tolist() == [90.0, 90.0, 90.0]
    assert (found["yaw"] == 0).all()
    assert read_manifest(whole)["tool"] == "detect_objects_3d"


@pytest.mark.parametrize("size", [17.0, 40.0])
def test_tiles_do_not_change_the_result(
    cloud: Path, model: Path, whole: Path, size: float, tmp_path: Path
) -> None:
    path = tmp_path / "again.parquet"
    again = geodl.detect_objects_3d(cloud, model, path, tile_size=size, progress=False)
    expected = gpd.read_parquet(whole)
    again = again.sort_values("length", ignore_index=True)
    expected = expected.sort_values("length", ignore_index=True)
    np.testing.assert_allclose(again.bounds, expected.bounds, atol=1e-4)


def test_a_cancelled_search_goes_on_with_its_own_tiles(
    cloud: Path, model: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "found.parquet"
    run = point_job.run_blocks

    def stopping(*given: Any, watch: Any = None, **options: Any) -> Any:
        def stop(done: int, total: int) -> None:
            if done == 9:
                options["cancel"].set()

        return run(*given, watch=watch and stop, **options)

    monkeypatch.setattr(point_job, "run_blocks", stopping)
    future = geodl.detect_objects_3d(cloud, model, path, tile_size=30, progress=False, future=True)
    with pytest.raises(RunCancelledError):
        future.result(timeout=120)
    assert not path.exists()
    monkeypatch.undo()
    with pytest.raises(RunMismatchError, match="another output,"):
        geodl.detect_objects_3d(cloud, model, path, threshold=0.5, progress=False)
    geodl.detect_objects_3d(cloud, model, path, progress=False)
    assert_frame_equal(gpd.read_parquet(path).to_wkb(), gpd.read_parquet(whole).to_wkb())
    manifest = read_manifest(path)
    assert manifest["layout"]["size"] == 30
    assert manifest["blocks"]["resumed"] >= 9


def test_a_dry_run_tells_what_would_be_done(cloud: Path, model: Path, tmp_path: Path) -> None:
    plan: Any = geodl.detect_objects_3d(cloud, model, tmp_path / "a.gpkg", dry_run=True)
    assert plan.points > 4000
    assert plan.output == str(tmp_path / "a.gpkg")
    assert not list(tmp_path.iterdir())
    with pytest.raises(OptionError, match="no path"):
        geodl.detect_objects_3d(cloud, model, None)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="Dask"):
        geodl.detect_objects_3d(cloud, model, tmp_path / "a.gpkg", report=tmp_path / "a.html")


def test_a_higher_threshold_finds_less(cloud: Path, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "none.gpkg"
    found = geodl.detect_objects_3d(cloud, model, path, threshold=0.95, progress=False)
    assert len(found) == 0
    assert path.exists()
    hours = geodl.detect_objects_3d(cloud, model, tmp_path / "x.parquet", estimate=True)
    assert 0 < hours < 1
    with pytest.raises(OutputExistsError, match=r"none\.gpkg"):
        geodl.detect_objects_3d(cloud, model, path)


def test_what_does_not_fit_is_refused(cloud: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="threshold"):
        geodl.detect_objects_3d(cloud, model, tmp_path / "a.parquet", threshold=2)
    classes = tiny_points(tmp_path / "classes")
    with pytest.raises(ModelDataError, match="boxes"):
        geodl.detect_objects_3d(cloud, classes, tmp_path / "a.parquet")
    with pytest.raises(OptionError, match="tif"):
        geodl.detect_objects_3d(cloud, model, tmp_path / "a.tif")
