"""What a point cloud model is given."""

import numpy as np
import pytest

from geodl.base.errors import BundleError, ModelDataError
from geodl.core.points import PointFeature, PointInput

POINTS = PointInput(
    block_size=20.0,
    scale=10.0,
    max_points=100,
    features=(PointFeature(name="intensity", minimum=(0.0,), maximum=(200.0,)),),
    codes=(2, 6),
)


def test_a_block_is_scaled_around_its_centre_and_median_height():
    xyz = np.array([[105.0, 90.0, 3.0], [95.0, 110.0, 5.0], [100.0, 100.0, 13.0]])
    got = POINTS.encode(xyz, {"intensity": np.array([0, 100, 200])}, (100.0, 100.0))
    expected = [[0.5, -1, -0.2, 0], [-0.5, 1, 0, 0.5], [0, 0, 0.8, 1]]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_points_without_an_attribute_are_refused_by_its_name():
    with pytest.raises(ModelDataError, match="intensity"):
        POINTS.encode(np.zeros((2, 3)), {}, (0.0, 0.0))


def test_the_blocks_come_back_from_json():
    assert PointInput.from_json(POINTS.to_json()) == POINTS
    assert POINTS.columns == 4


def test_blocks_without_a_size_are_refused():
    with pytest.raises(BundleError, match="above 0"):
        PointInput(block_size=0.0, scale=1.0, max_points=10)
