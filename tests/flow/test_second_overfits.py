"""SECOND learns one scene by heart: targets, anchors, losses and decoding fit together."""

from __future__ import annotations

from pathlib import Path

import pytest

from geodl.data.prepare import prepare_data
from geodl.learn import MMDetection3D
from geodl.testing.point_scene import object_export


@pytest.mark.slow
def test_one_scene_is_learned_by_heart(tmp_path: Path) -> None:
    export = object_export(
        tmp_path / "town.pcotd", train=1, valid=1, side=22.0, density=2.5, cars=2, buildings=1
    )
    data = prepare_data(
        export,
        dataset_type="PointCloudOD",
        batch_size=2,
        working_dir=tmp_path,
        class_mapping={1: "Car", 2: "Building"},
        transforms=False,
    )
    model = MMDetection3D(data)
    model.fit(120, 3e-3, checkpoint=False)
    scores = model.average_precision_score(iou_thresh=0.5, detect_thresh=0.05, view_type="train")
    assert isinstance(scores, dict)
    assert min(scores.values()) > 0.9
