"""PDAL pipelines, with the real program where there is one."""

from __future__ import annotations

import shutil
from pathlib import Path

import laspy
import numpy as np
import pyproj
import pytest

import geodl
from geodl.base.errors import SourceError
from geodl.io import pdal
from geodl.testing.cloud import make_cloud

needs_pdal = pytest.mark.skipif(
    shutil.which("pdal") is None,
    reason="no pdal on the PATH; tests/pdal/install_pdal.sh FOLDER unpacks one",
)


@needs_pdal
def test_ground_is_found_by_a_filter_of_pdal(tmp_path: Path) -> None:
    for k, suffix in enumerate((".las", ".laz")):
        make_cloud(tmp_path / f"{k}{suffix}", points=4000, seed=k, point_format=7)
    stages = [
        {"type": "filters.ferry", "dimensions": "Classification=>Truth"},
        {"type": "filters.assign", "assignment": "Classification[:]=0"},
        {"type": "filters.smrf", "cell": 2.0, "window": 30.0},
    ]
    points = geodl.open_points(tmp_path, pipeline=stages).compute()
    assert points.sizes["point"] == 8000
    assert points.geodl.crs == pyproj.CRS.from_epsg(32633)
    truth, found = points.Truth.values, points.classification.values
    assert (found[truth == 2] == 2).mean() > 0.9
    assert (found[truth == 6] == 2).mean() < 0.1
    read = laspy.read(tmp_path / "0.las")
    assert sorted(points.z.values[:4000]) == sorted(np.asarray(read.z))
    assert sorted(points.red.values[:4000]) == sorted(np.asarray(read.red))


@needs_pdal
def test_what_pdal_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    path = make_cloud(tmp_path / "a.las", points=10)
    with pytest.raises(SourceError, match=r"filters\.nonsense"):
        geodl.open_points(path, pipeline=["filters.nonsense"])


@needs_pdal
@pytest.mark.parametrize("point_format", [1, 7])
def test_a_large_file_runs_tile_by_tile_with_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point_format: int
) -> None:
    path = make_cloud(
        tmp_path / "a.laz", points=9000, side=160, point_format=point_format, extra=[("own", "f4")]
    )
    # The count of neighbours within 5 m: a tile without those around it would count fewer.
    stages = [
        {"type": "filters.radialdensity", "radius": 5.0},
        {"type": "filters.ferry", "dimensions": "RadialDensity=>Density"},
    ]
    whole = geodl.open_points(path, pipeline=stages).compute()
    monkeypatch.setattr(pdal, "TILE_POINTS", 2000)
    tiled = geodl.open_points(path, pipeline=stages)
    assert len(tiled.attrs["files"]) >= 4
    assert tiled.geodl.crs == whole.geodl.crs
    tiled = tiled.compute()
    assert set(tiled.data_vars) == set(whole.data_vars)
    assert tiled.sizes == whole.sizes == {"point": 9000}
    first, second = (np.lexsort((d.gps_time, d.own, d.z, d.y, d.x)) for d in (whole, tiled))
    for name in whole.data_vars:
        np.testing.assert_array_equal(whole[name].values[first], tiled[name].values[second])
    moved = geodl.open_points(
        path, pipeline=[{"type": "filters.reprojection", "out_srs": "EPSG:32632"}]
    )
    assert "files" not in moved.attrs
    assert moved.sizes == {"point": 9000}


@needs_pdal
def test_points_that_move_to_degrees_keep_their_digits(tmp_path: Path) -> None:
    path = make_cloud(tmp_path / "a.las", points=300)
    moved = geodl.open_points(
        path, pipeline=[{"type": "filters.reprojection", "out_srs": "EPSG:4326"}]
    )
    own = geodl.open_points(path)
    to_degrees = pyproj.Transformer.from_crs(32633, 4326, always_xy=True)
    x, y = to_degrees.transform(own.x.values, own.y.values)
    np.testing.assert_allclose(moved.x, x, rtol=0, atol=1e-8)
    np.testing.assert_allclose(moved.y, y, rtol=0, atol=1e-8)
    assert moved.geodl.crs.to_epsg() == 4326
