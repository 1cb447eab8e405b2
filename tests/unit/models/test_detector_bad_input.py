"""What detectors make of bad or odd chips: named, refused, or trained without a fault."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch

from geodl.base.errors import FormatError, OfflineWarning, TrainingError
from geodl.base.models import MODELS
from geodl.data.prepare import prepare_data

SIDE = 64
SMALL = {"backbone": "mobilenetv3_small_050"}
Box = tuple[int, tuple[float, float, float, float]]


def write(
    folder: Path,
    boxes: Sequence[Sequence[Box]],
    *,
    dtype: str = "uint8",
    values: Sequence[int] = (3, 9),
    spoil: float | None = None,
) -> Path:
    """A Pascal VOC export: a list of (class value, box) for each chip."""
    rng = np.random.default_rng(0)
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for number, objects in enumerate(boxes):
        image = rng.integers(0, 200, (3, SIDE, SIDE)).astype(dtype)
        if spoil is not None:
            image[:, :20, :20] = spoil
        profile = {"driver": "GTiff", "width": SIDE, "height": SIDE, "count": 3, "dtype": dtype}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with rasterio.open(folder / f"images/{number}.tif", "w", **profile) as file:
                file.write(image)
        rows = "".join(
            f"<object><name>{v}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax>"
            f"<ymax>{d}</ymax></bndbox></object>"
            for v, (a, b, c, d) in objects
        )
        (folder / f"labels/{number}.xml").write_text(f"<annotation>{rows}</annotation>")
    lines = [f"images\\{n}.tif  labels\\{n}.xml" for n in range(len(boxes))]
    (folder / "map.txt").write_text("\n".join(lines) + "\n")
    mode = {"MetaDataMode": "PASCAL_VOC_rectangles", "ImageSpaceUsed": "MAP_SPACE"}
    classes = [{"Value": v, "Name": f"kind {v}"} for v in values]
    (folder / "esri_model_definition.emd").write_text(json.dumps({**mode, "Classes": classes}))
    counts = [sum(v == value for chip in boxes for v, _ in chip) for value in values]
    stats = {
        **mode, "NumBands": 3, "TileSizeX": SIDE, "TileSizeY": SIDE, "NumTiles": len(boxes),
        "NumClasses": len(values), "FeatureStats": {"NumFeaturesPerClass": counts},
        "Classes": [{"ClassValue": v, "ClassName": f"kind {v}"} for v in values],
    }  # fmt: skip
    (folder / "esri_accumulated_stats.json").write_text(json.dumps(stats))
    return folder


def prepared(folder: Path) -> Any:
    return prepare_data(
        folder, chip_size=SIDE, batch_size=4, val_split_pct=0.34, transforms=False,
        working_dir=folder.parent / "work",
    )  # fmt: skip


def made(data: Any, name: str = "YOLOv3", **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OfflineWarning)
        return MODELS[name](data, **SMALL, **options)


GOOD: list[Box] = [(3, (4, 5, 20, 22)), (9, (30, 30, 50, 55))]


@pytest.mark.parametrize("name", ["SingleShotDetector", "FasterRCNN", "RetinaNet", "YOLOv3"])
def test_chips_without_objects_are_background(name: str, tmp_path: Path) -> None:
    # The first batches hold no box at all.
    data = prepared(write(tmp_path / "chips", [[]] * 5 + [GOOD]))
    few = {"rpn_post_nms_top_n_train": 32, "rpn_post_nms_top_n_test": 8}
    model = made(data, name, **(few if name == "FasterRCNN" else {}))
    model.fit(1, 1e-4)
    assert np.isfinite(model.record.rows[0]["train_loss"])
    scores = model.average_precision_score()
    assert list(scores) == ["kind 3", "kind 9"]


def test_gaps_in_class_values_are_kept(tmp_path: Path) -> None:
    data = prepared(write(tmp_path / "chips", [GOOD] * 6))
    model = made(data)
    assert [entry.value for entry in model.contract.classes] == [3, 9]
    item = data.train_ds[0]["target"]
    assert item["labels"].tolist() == [1, 2]
    model.fit(1, 1e-4)


def test_one_class_is_enough(tmp_path: Path) -> None:
    data = prepared(write(tmp_path / "chips", [[GOOD[0]]] * 6, values=(3,)))
    model = made(data)
    model.fit(1, 1e-4)
    assert set(model.average_precision_score()) == {"kind 3"}


def every_item(folder: Path) -> None:
    data = prepared(folder)
    for part in (data.train_ds, data.valid_ds):
        for i in range(len(part)):
            part[i]


@pytest.mark.parametrize(
    "box",
    [
        (20.0, 5.0, 4.0, 22.0),
        (4.0, 5.0, 4.0, 22.0),
        (4.0, 5.0, 20.0, 5.0),
        (40.0, 40.0, 90.0, 90.0),
    ],
    ids=["reversed", "no width", "no height", "beyond the chip"],
)
def test_boxes_that_cannot_be_are_named(box: Any, tmp_path: Path) -> None:
    folder = write(tmp_path / "chips", [GOOD] * 5 + [[(3, box)]])
    with pytest.raises(FormatError, match=r"5\.xml"):
        every_item(folder)


def test_pixels_that_are_no_number_count_as_no_data(tmp_path: Path) -> None:
    folder = write(tmp_path / "chips", [GOOD] * 6, dtype="float32", spoil=np.nan)
    data = prepared(folder)
    assert torch.isfinite(data.train_ds[0]["image"]).all()
    model = made(data)
    model.fit(1, 1e-4)
    assert np.isfinite(model.record.rows[0]["train_loss"])


def test_a_loss_that_is_no_number_names_its_chips_and_keeps_the_weights(tmp_path: Path) -> None:
    data = prepared(write(tmp_path / "chips", [GOOD] * 6))
    model = made(data)
    model.fit(1, 1e-4)
    before = {key: value.clone() for key, value in model.net.state_dict().items()}
    head = model.net.heads[0][1].bias
    calls = []

    def poison(value: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return value * torch.nan

    hook = model.net.heads[0].register_forward_hook(lambda *parts: poison(parts[2]))
    with pytest.raises(TrainingError, match=r"\d\.tif|\d") as caught:
        model.fit(1, 1e-4)
    hook.remove()
    assert calls
    assert any(data.train_ds.names[i] in str(caught.value) for i in range(len(data.train_ds)))
    assert torch.isfinite(head).all()
    for key, value in model.net.state_dict().items():
        if "running" not in key and "tracked" not in key:
            assert torch.equal(value, before[key]), key
