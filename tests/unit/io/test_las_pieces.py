"""Pieces of a point file: every point once, with its surroundings, record by record as it was."""

from __future__ import annotations

from pathlib import Path

import laspy
import numpy as np
import pytest

from geodl.io.las_file import open_las
from geodl.io.las_pieces import BUFFER_SHARE, cut_file
from geodl.io.locations import locate
from geodl.testing.cloud import make_cloud


def rows(cloud: laspy.LasData) -> np.ndarray:
    """(N,) the bytes of each record."""
    records = np.ascontiguousarray(cloud.points.array)
    return records.view(f"V{records.dtype.itemsize}").astype(object)


@pytest.mark.parametrize(("point_format", "suffix"), [(1, ".las"), (7, ".laz")])
def test_each_point_is_in_one_core_and_seen_from_near(
    tmp_path: Path, point_format: int, suffix: str
) -> None:
    path = make_cloud(
        tmp_path / f"a{suffix}",
        points=5000,
        side=120,
        point_format=point_format,
        extra=[("o", "f4")],
    )
    pieces = cut_file(open_las(locate(path)), tmp_path / "pieces", 700)
    assert 6 <= len(pieces) <= 20
    whole = laspy.read(path)
    raw = rows(whole)
    x, y = np.asarray(whole.x), np.asarray(whole.y)
    owned = []
    for piece in pieces:
        own = laspy.read(piece.path)
        assert own.header.parse_crs() == whole.header.parse_crs()
        x0, y0, x1, y1 = piece.core
        # Half a stored step aside: floor and ceiling of the buffer are one step at most.
        pad = (x1 - x0) * BUFFER_SHARE
        for reach, compare in ((pad - 0.02, np.ndarray.__le__), (pad + 0.02, np.ndarray.__ge__)):
            near = (x > x0 - reach) & (x < x1 + reach) & (y > y0 - reach) & (y < y1 + reach)
            seen = np.isin(raw, rows(own))
            assert compare(near, seen).all()
        # laspy's own comparison rounds to stored steps.
        px, py = np.asarray(own.x), np.asarray(own.y)
        inside = (px > x0) & (px < x1) & (py > y0) & (py < y1)
        owned.append(rows(own)[inside])
    assert np.array_equal(np.sort(np.concatenate(owned)), np.sort(raw))
