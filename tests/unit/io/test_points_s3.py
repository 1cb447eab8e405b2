"""Clouds behind ``s3://``, through a real endpoint (moto's server)."""

from __future__ import annotations

from pathlib import Path

import fsspec
import laspy
import numpy as np
import pytest

import geodl
from geodl.base.errors import SourceNotFoundError
from geodl.testing.cloud import make_cloud


def test_a_cloud_is_read_from_a_bucket(object_store: str, tmp_path: Path) -> None:
    path = make_cloud(tmp_path / "a.laz", points=2000)
    fsspec.filesystem("s3").put(str(path), f"{object_store}/clouds/a.laz")
    points = geodl.open_points(f"{object_store}/clouds/a.laz")
    np.testing.assert_array_equal(points.x.values, np.asarray(laspy.read(path).x))
    with pytest.raises(SourceNotFoundError):
        geodl.open_points(f"{object_store}/clouds/b.laz")


@pytest.mark.real
def test_an_octree_in_a_bucket_gives_the_points_inside_bounds(
    object_store: str, sample_data: Path
) -> None:
    path = sample_data / "lidar_formats" / "1.2-with-color.copc.laz"
    fsspec.filesystem("s3").put(str(path), f"{object_store}/clouds/c.copc.laz")
    whole = geodl.open_points(path).compute()
    bounds = (636_500.0, 850_000.0, 637_500.0, 851_500.0)
    keep = (whole.x >= bounds[0]) & (whole.x <= bounds[2])
    keep &= (whole.y >= bounds[1]) & (whole.y <= bounds[3])
    found = geodl.open_points(f"{object_store}/clouds/c.copc.laz", bounds=bounds)
    np.testing.assert_array_equal(found.gps_time.values, whole.gps_time[keep.values])
