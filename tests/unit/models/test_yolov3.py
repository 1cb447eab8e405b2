from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geodl.base.errors import DataWarning, ModelDataError
from geodl.data.prepare import prepare_data
from geodl.models.yolov3 import COCO_NAMES, DARKNET, PRIORS, YOLOv3, fitting_priors

pytestmark = pytest.mark.filterwarnings("ignore::geodl.base.errors.OfflineWarning")
SMALL = "mobilenetv3_small_050"


def test_chips_of_other_sizes_are_refused_with_the_nearest(box_chips: Path, tmp_path: Path) -> None:
    data = prepare_data(box_chips, chip_size=60, batch_size=4, working_dir=tmp_path)
    with pytest.raises(ModelDataError, match=r"chip_size=64"):
        YOLOv3(data, backbone=SMALL)


def test_without_data_it_is_an_untrained_network_for_coco() -> None:
    with pytest.warns(DataWarning, match="untrained"):
        model = YOLOv3(backbone=SMALL)
    assert model.contract.classes.names == list(COCO_NAMES)
    assert len(COCO_NAMES) == 80
    assert model.parameters["anchors"] == [[float(w), float(h)] for w, h in PRIORS]
    with pytest.raises(ModelDataError, match="prepare_data"):
        model.fit(1)


def test_without_data_a_saved_model_is_opened(box_chips: Path, tmp_path: Path) -> None:
    data = prepare_data(box_chips, chip_size=64, batch_size=4, working_dir=tmp_path)
    model = YOLOv3(data, backbone=SMALL)
    assert model.supported_backbones == ["darknet53"]
    folder = model.save(tmp_path / "saved", compute_metrics=False)
    opened = YOLOv3(pretrained_path=folder)
    assert opened.contract == model.contract
    assert opened.parameters["anchors"] == model.parameters["anchors"]
    assert opened.parameters["n_bands"] == 3


def test_the_backbone_is_darknet(box_chips: Path, tmp_path: Path, monkeypatch: Any) -> None:
    data = prepare_data(box_chips, chip_size=64, batch_size=4, working_dir=tmp_path)
    chosen: dict[str, Any] = {}
    monkeypatch.setattr(
        YOLOv3, "_setup", lambda self, data, parameters, path: chosen.update(parameters)
    )
    YOLOv3(data)
    assert chosen["backbone"] == DARKNET


def test_priors_are_clusters_of_the_objects_of_each_grid() -> None:
    rng = np.random.default_rng(0)
    small = rng.normal((12, 12), 0.5, (40, 2))
    long = rng.normal((30, 10), 0.5, (40, 2))
    priors = np.array(fitting_priors(np.concatenate([small, long]), 416))
    assert np.abs(priors[:3] - [12, 12]).max(axis=1).min() < 1.5
    assert np.abs(priors[:3] - [30, 10]).max(axis=1).min() < 1.5
    # No object of the middle and coarse grids: those of the paper.
    assert priors[3:].tolist() == [[float(w), float(h)] for w, h in PRIORS[3:]]
    assert np.array(fitting_priors(np.zeros((0, 2)), 208)).tolist() == [
        [w / 2, h / 2] for w, h in sorted_priors()
    ]


def sorted_priors() -> list[tuple[int, int]]:
    """The paper's, by area within each grid."""
    parts = [sorted(PRIORS[i : i + 3], key=lambda p: p[0] * p[1]) for i in (0, 3, 6)]
    return [pair for part in parts for pair in part]
