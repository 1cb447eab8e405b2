"""Real networks give points and objects the same answer for every layout of tiles and any cores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import laspy
import numpy as np
import pytest
import torch
from geopandas import GeoDataFrame

import geodl
from geodl.data.prepare import prepare_data
from geodl.learn import MMDetection3D, PointCNN, RandLANet, SQNSeg
from geodl.nets.threads import torch_threads
from geodl.testing.cloud import make_cloud
from geodl.testing.point_scene import classified_export, object_export

FEW = {"out_channels": [4, 8], "sub_sampling_ratio": [4, 4], "k_n": 6}
CONVOLVED = {"out_channels": [4, 8], "P": [-1, 32], "K": [6, 6], "D": [1, 2], "m": 2}
SCENE: dict[str, Any] = {"side": 24.0, "density": 2.0, "cars": 1, "buildings": 1, "trees": 0}
# Of tiles, and what is seen around them; blocks are of 12 and 24 units.
LAYOUTS = ((17.0, 25.0),)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cloud(tmp_path_factory.mktemp("cloud") / "a.laz", points=1000, side=30)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("town")
    export = classified_export(
        folder / "town.pctd", train=1, valid=1, block_size=12.0, max_points=120, **SCENE
    )
    return prepare_data(export, dataset_type="PointCloud", batch_size=2, working_dir=folder)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (RandLANet, {"encoder_params": FEW}),
        (SQNSeg, {"encoder_params": FEW}),
        # Fewer at once than a block has: it is run in parts.
        (PointCNN, {"encoder_params": CONVOLVED, "sample_point_num": 70}),
    ],
)
def test_scores_do_not_depend_on_tiles(
    cloud: Path, town: Any, tmp_path: Path, model: Any, options: dict[str, Any]
) -> None:
    saved = model(town, **options).save(tmp_path / "model", compute_metrics=False)
    found = []
    for number, (size, buffer) in enumerate(((500.0, 12.0), *LAYOUTS)):
        path = tmp_path / f"{number}.las"
        with torch_threads(1 + 2 * number):
            geodl.classify_points(
                cloud, saved, path, tile_size=size, buffer=buffer, probabilities=True,
                progress=False,
            )  # fmt: skip
        found.append(laspy.read(path).points.array)
    # Neither all alike nor by chance.
    assert len(np.unique(found[0]["probability_2"])) > 500
    for other in found[1:]:
        assert np.array_equal(found[0], other)


def test_objects_do_not_depend_on_tiles(cloud: Path, tmp_path: Path) -> None:
    export = object_export(tmp_path / "town.pcotd", train=1, valid=1, **SCENE)
    data = prepare_data(
        export, dataset_type="PointCloudOD", batch_size=2, working_dir=tmp_path, seed=3
    )
    model = MMDetection3D(data, voxel_parms={"voxel_size": [1.0, 1.0, 1.0]})
    block = model.task.prepare([data.valid_ds[0]["points"]])
    with torch.inference_mode():
        scores = torch.sigmoid(model.net.eval()(block).scores)
    # The weights are random; some boxes of a block are enough.
    threshold = float(scores.quantile(0.97))
    saved = model.save(tmp_path / "model", compute_metrics=False)
    found: list[GeoDataFrame] = []
    for number, (size, buffer) in enumerate(((500.0, 24.0), *LAYOUTS)):
        with torch_threads(1 + 2 * number):
            boxes = geodl.detect_objects_3d(
                cloud, saved, tmp_path / f"{number}.parquet", tile_size=size, buffer=buffer,
                threshold=threshold, nms_overlap=0.01, progress=False,
            )  # fmt: skip
        found.append(boxes)
    assert len(found[0]) > 3
    for other in found[1:]:
        assert found[0].to_wkb().equals(other.to_wkb())
