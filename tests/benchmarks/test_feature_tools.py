"""A million boxes through the tools over features: seconds, against reading and writing them."""

from __future__ import annotations

import time
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely

from geodl.functions import non_max_suppression
from geodl.learn import compute_accuracy_for_object_detection

pytestmark = pytest.mark.bench

COUNT = 1_000_000


@pytest.fixture(scope="module")
def boxes() -> gpd.GeoDataFrame:
    """Two hundred thousand objects of four classes, five boxes on each."""
    rng = np.random.default_rng(0)
    centre = rng.uniform(0, 60000, (COUNT // 5, 2)).repeat(5, 0) + rng.normal(0, 3, (COUNT, 2))
    half = rng.uniform(8, 15, (COUNT, 2))
    return gpd.GeoDataFrame(
        {
            "Confidence": rng.random(COUNT) * 100,
            "ClassValue": rng.integers(1, 5, COUNT // 5).repeat(5),
        },
        geometry=shapely.box(*np.hstack([centre - half, centre + half]).T),
        crs=32633,
    )


def test_a_million_boxes(boxes: gpd.GeoDataFrame, tmp_path: Path) -> None:
    started = time.perf_counter()
    boxes.to_parquet(tmp_path / "boxes.parquet")
    gpd.read_parquet(tmp_path / "boxes.parquet")
    around = time.perf_counter() - started

    started = time.perf_counter()
    kept = non_max_suppression(boxes, max_overlap_ratio=0.3)
    suppressing = time.perf_counter() - started

    started = time.perf_counter()
    table = compute_accuracy_for_object_detection(
        boxes, kept, out_accuracy_table_name=tmp_path / "table.csv"
    )
    judging = time.perf_counter() - started
    print(
        f"\n{COUNT} boxes: written and read {around:.1f} s; suppression {suppressing:.1f} s keeps "
        f"{len(kept)}; accuracy {judging:.1f} s"
    )
    assert table.set_index("Class").loc["All", "Recall"] == 1.0
    assert suppressing < 60
    assert judging < 120
