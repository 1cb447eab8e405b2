"""Generated clouds are what they say."""

from __future__ import annotations

from pathlib import Path

import laspy
import numpy as np

from geodl.testing import make_cloud


def test_a_cloud_has_its_points_classes_and_place(tmp_path: Path) -> None:
    path = make_cloud(tmp_path / "a.laz", points=5000, side=200, extra=[("echo", "2u1")], seed=4)
    read = laspy.read(path)
    assert len(read) == 5000
    assert set(read.classification) == {2, 5, 6}
    assert read.echo.shape == (5000, 2)
    assert read.header.parse_crs().to_epsg() == 32633
    low, high = read.header.mins, read.header.maxs
    assert (low[:2] >= [500_000, 5_500_000]).all()
    assert (high[:2] <= [500_200, 5_500_200]).all()
    again = laspy.read(make_cloud(tmp_path / "b.laz", points=5000, side=200, seed=4))
    np.testing.assert_array_equal(read.X, again.X)
    heights = [np.asarray(read.z)[np.asarray(read.classification) == code] for code in (2, 6)]
    assert heights[1].mean() > heights[0].mean() + 4
