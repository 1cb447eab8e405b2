"""Models of points reach their marks on ground they have not seen, each in ten CPU minutes.

Held back of ``lidar_ign``: in each of its five files (the tiles 77055_627755, 77055_627760,
77060_627755 and 77060_627760, and semis_2021_0382_6565 cropped) the northern third of the ground,
from two thirds of the way between the header's least and greatest y. Classes 3, 4 and 5 are one;
others than 2 to 6 are left out of loss and scores. A point counts once for each block it lies in.

The third chooses neither rates nor lengths of training: two of RandLANet's and one of PointCNN's
were looked at on the ground between one half and two thirds of the way, by models that had learned
from the ground south of it. Models are then trained on all of the other two thirds, the last epoch
counts, and the third is scored once. The sizes of the networks are those of earlier runs, which
were scored on the third.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import laspy
import numpy as np
import pytest

from geodl.base.errors import DataWarning
from geodl.data.prepare import prepare_data
from geodl.learn import MMDetection3D, PointCNN, RandLANet
from geodl.nets.threads import torch_threads
from geodl.tasks.pixel_metrics import accuracy, class_iou, mean_iou
from geodl.testing.point_scene import object_export
from geodl.tools.export_point_dataset import export_point_dataset

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

LEARNED = (2, 3, 4, 5, 6)
BUDGET_CPU_S = 600.0


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    """Threads that wait for each other burn CPU time without doing anything."""
    with torch_threads(1):
        yield


@pytest.fixture(scope="module")
def lidar(sample_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lidar")
    for file in sorted((sample_data / "lidar_ign").glob("*.laz")):
        cloud = laspy.read(file)
        y, low, high = np.asarray(cloud.y), cloud.header.mins[1], cloud.header.maxs[1]
        north = y >= low + (high - low) * 2 / 3
        for name, chosen in (("train", ~north), ("val", north)):
            (folder / "split" / name).mkdir(parents=True, exist_ok=True)
            part = laspy.LasData(cloud.header, points=cloud.points[chosen])
            part.write(str(folder / "split" / name / file.name))
    export = export_point_dataset(
        folder / "split", folder / "ign.pctd", extra_features=["numberOfReturns", "returnNumber"]
    )
    paths = [export / name / "Statistics.json" for name in ("train", "val")]
    values = [json.loads(path.read_text()) for path in paths]
    codes = {entry["classCode"] for v in values for entry in v["classification"]["table"]}
    for path, value in zip(paths, values, strict=True):
        value["parameters"]["excludedClasses"] = sorted(codes - set(LEARNED))
        path.write_text(json.dumps(value))
    return export


def prepared(export: Path, work: Path, batch_size: int) -> Any:
    with pytest.warns(DataWarning, match="classes"):
        return prepare_data(
            export,
            dataset_type="PointCloud",
            batch_size=batch_size,
            extra_features=["numberOfReturns", "returnNumber"],
            remap_classes={3: 5, 4: 5},
            min_points=50,
            working_dir=work,
        )


def scored(model: Any, started: float, name: str) -> tuple[float, float]:
    counts = model._validation_counts()
    spent = time.process_time() - started
    overall, mean = accuracy(counts), mean_iou(counts)
    ious = dict(zip(model.code_names(), class_iou(counts).round(3).tolist(), strict=True))
    print(f"{name}: accuracy {overall:.3f}, mIoU {mean:.3f} {ious}, {spent:.0f} CPU s")
    assert spent < BUDGET_CPU_S
    return overall, mean


@pytest.mark.real
def test_randla_net_on_the_held_back_third(lidar: Path, tmp_path: Path) -> None:
    started = time.process_time()
    encoder = {"out_channels": [16, 32, 64], "sub_sampling_ratio": [4, 4, 4], "k_n": 12}
    model = RandLANet(prepared(lidar, tmp_path, 4), encoder_params=encoder)
    model.fit(4, 5e-3, iters_per_epoch=50, checkpoint=False)
    overall, mean = scored(model, started, "RandLANet")
    assert overall >= 0.85
    assert mean >= 0.55


@pytest.mark.real
def test_pointcnn_on_the_held_back_third(lidar: Path, tmp_path: Path) -> None:
    started = time.process_time()
    encoder = {
        "out_channels": [8, 16, 32], "P": [-1, 384, 96], "K": [8, 12, 12], "D": [1, 2, 2], "m": 4,
    }  # fmt: skip
    model = PointCNN(
        prepared(lidar, tmp_path, 4), encoder_params=encoder, sample_point_num=2048, dropout=0.3
    )
    model.fit(2, 3e-3, iters_per_epoch=120, checkpoint=False)
    overall, _ = scored(model, started, "PointCNN")
    assert overall >= 0.8


def test_second_on_a_generated_town(tmp_path: Path) -> None:
    # Objects of few scenes are learned by heart: 40 scenes gave an AP of 0.5 at an IoU of 0.1.
    export = object_export(
        tmp_path / "town.pcotd", train=240, valid=20, side=28.0, density=3.0, cars=3, buildings=1
    )
    started = time.process_time()
    data = prepare_data(
        export, dataset_type="PointCloudOD", batch_size=4, working_dir=tmp_path,
        class_mapping={1: "Car", 2: "Building"},
    )  # fmt: skip
    model = MMDetection3D(data)
    # The last epoch counts: the validation scenes choose nothing.
    model.fit(10, 5e-3, checkpoint=False)
    scores = model.average_precision_score(iou_thresh=0.5, detect_thresh=0.05)
    assert isinstance(scores, dict)
    spent = time.process_time() - started
    print(f"SECOND: AP at IoU 0.5 {scores}, {spent:.0f} CPU s")
    assert spent < BUDGET_CPU_S
    assert min(scores.values()) >= 0.6
