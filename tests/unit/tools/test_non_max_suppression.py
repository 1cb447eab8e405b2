"""geodl.functions.non_max_suppression over features."""

import geopandas as gpd
import numpy as np
import pytest
import shapely
import torch
from torchvision.ops import batched_nms

from geodl.base.errors import DataError, OptionError, OutputExistsError
from geodl.functions import non_max_suppression

CRS = "EPSG:32633"


def crowd(count=600, seed=0):
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 120, (count, 2)) + np.array([500000, 5000000])
    size = rng.integers(4, 20, (count, 2))
    return gpd.GeoDataFrame(
        {
            "name": [f"f{k}" for k in range(count)],
            "confidence": rng.permutation(count) / count * 100,
            "ClassValue": rng.integers(1, 4, count),
        },
        geometry=shapely.box(*np.hstack([low, low + size]).T),
        crs=CRS,
    )


@pytest.mark.parametrize("class_wise", [True, False])
def test_boxes_kept_are_those_of_torchvision(class_wise):
    frame = crowd()
    kept = non_max_suppression(frame, max_overlap_ratio=0.3003, class_wise=class_wise)
    # float32 of torchvision bears no map coordinates; no ratio of such sizes is 0.3003.
    moved = frame.bounds.to_numpy() - np.array([500000, 5000000] * 2)
    boxes = torch.tensor(moved, dtype=torch.float32)
    labels = torch.tensor(frame.ClassValue.to_numpy()) * int(class_wise)
    scores = torch.tensor(frame.confidence.to_numpy(), dtype=torch.float32)
    expected = batched_nms(boxes, scores, labels, 0.3003)
    assert kept.name.tolist() == frame.name.iloc[np.sort(expected)].tolist()
    assert kept.crs == frame.crs
    assert list(kept.columns) == list(frame.columns)
    assert 0 < len(kept) < len(frame)


def test_a_ring_is_no_box_and_small_parts_of_a_large_one_go_by_the_other_measure():
    # Two triangles that fill one square: their bounds are the same, they share nothing.
    halves = [shapely.Polygon([(0, 0), (4, 0), (0, 4)]), shapely.Polygon([(4, 4), (4, 0), (0, 4)])]
    inside = shapely.box(20, 20, 21, 21), shapely.box(18, 18, 28, 28)
    frame = gpd.GeoDataFrame(
        {"Confidence": [90.0, 80.0, 50.0, 60.0]}, geometry=[*halves, *inside], crs=CRS
    )
    assert len(non_max_suppression(frame, max_overlap_ratio=0.1)) == 4
    kept = non_max_suppression(frame, max_overlap_ratio=0.1, measure="smaller")
    assert kept.Confidence.tolist() == [90.0, 80.0, 60.0]


def test_the_order_of_the_features_does_not_matter():
    frame = crowd()
    frame["confidence"] = 50.0
    mixed = frame.sample(frac=1, random_state=3)
    kept = [non_max_suppression(f, max_overlap_ratio=0.2) for f in (frame, mixed)]
    assert set(kept[0].name) == set(kept[1].name)


def test_files_in_and_out(tmp_path):
    crowd(60).to_file(tmp_path / "found.gpkg")
    target = tmp_path / "kept.parquet"
    kept = non_max_suppression(tmp_path / "found.gpkg", output_name=target)
    assert kept.attrs["path"] == str(target)
    assert gpd.read_parquet(target).name.tolist() == kept.name.tolist()
    with pytest.raises(OutputExistsError, match="overwrite"):
        non_max_suppression(crowd(5), output_name=target)
    assert len(non_max_suppression(crowd(5).iloc[:0], output_name=target, overwrite=True)) == 0


def test_what_cannot_be_ranked_is_refused():
    frame = crowd(5)
    with pytest.raises(OptionError, match="confidence"):
        non_max_suppression(frame, "confidenze")
    with pytest.raises(OptionError, match="'Confidence'"):
        non_max_suppression(frame.drop(columns="confidence"))
    with pytest.raises(DataError, match="finite"):
        non_max_suppression(frame.assign(confidence=[1, 2, 3, 4, None]))
    with pytest.raises(DataError, match="Point"):
        non_max_suppression(frame.assign(geometry=frame.centroid))
    with pytest.raises(OptionError, match="smaller"):
        non_max_suppression(frame, measure="small")
    with pytest.raises(OptionError, match="max_overlap_ratio"):
        non_max_suppression(frame, max_overlap_ratio=1.5)
