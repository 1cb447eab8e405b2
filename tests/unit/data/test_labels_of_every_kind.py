"""Items of boxes, instances, whole chips and panoptic labels say what the export's labels say."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from geodl.base.errors import FormatError, UnknownOptionError
from geodl.data import prepare_data
from geodl.formats import open_export
from geodl.testing import Scene, make_scene
from geodl.tools.export_training_data import export_training_data

pytestmark = pytest.mark.filterwarnings("ignore:.*features are left out")

INSTANCES = ["RCNN_Masks", "COCO_instances"]
BOXES = ["KITTI_rectangles", "COCO_rectangles", "YOLO_rectangles"]
TILES = ["Labeled_Tiles", "Imagenet", "MultiLabeled_Tiles"]
PANOPTIC = "Panoptic_Segmentation"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return make_scene(tmp_path_factory.mktemp("scene"), seed=6, size=(150, 180), bands=4)


def export(tmp_path: Path, scene: Scene, mode: str, **options: Any) -> Path:
    if mode == PANOPTIC:
        options = {"input_instance_data": scene.labels} | options
    return Path(
        export_training_data(
            scene.raster, scene.labels, metadata_format=mode, tile_size=48, stride_size=30,
            output_location=tmp_path / "out", progress=False, **options,
        )
    )  # fmt: skip


@pytest.mark.parametrize("mode", INSTANCES + BOXES + TILES + [PANOPTIC])
def test_items_without_augmentation_are_the_labels(tmp_path: Path, scene: Scene, mode: str) -> None:
    path = export(tmp_path, scene, mode)
    folder = open_export(path)
    data: Any = prepare_data(path, transforms=False, batch_size=4)
    data = pickle.loads(pickle.dumps(data))
    assert data.dataset_type == mode
    assert data.classes == folder.classes.names
    refs = {ref.name: ref for ref in folder.chips}
    count = 0
    for dataset in (data.train_ds, data.valid_ds):
        for item in (dataset[n] for n in range(len(dataset))):
            label = folder.chip_format.read_label(refs[item["name"]], folder)
            check(item["target"], label, folder.classes.values, mode)
            assert item["image"].shape == (4, 48, 48)
            count += 1
    assert count == len(folder)
    assert sum(data.class_counts.values()) == sum(folder.class_counts.values())
    assert mode in repr(data)


def check(target: Any, label: Any, values: list[int], mode: str) -> None:
    index = {value: n for n, value in enumerate(values, start=1)}
    if mode in BOXES:
        assert np.abs(target["boxes"].numpy() - label.boxes).max() < 1e-4
        assert target["labels"].tolist() == [index[v] for v in label.values.tolist()]
    elif mode == "MultiLabeled_Tiles":
        assert target.dtype == torch.float32
        assert target.tolist() == [float(v in label.values) for v in values]
    elif mode in TILES:
        assert (target.dtype, target.ndim) == (torch.int64, 0)
        assert values[int(target)] == label.values[0]
    else:
        instances = label.instances if mode == PANOPTIC else label
        assert target["masks"].dtype == torch.bool
        assert np.array_equal(target["masks"].numpy(), instances.masks)
        assert target["labels"].tolist() == [index[v] for v in instances.values.tolist()]
        assert np.array_equal(target["boxes"].numpy(), instances.boxes())
        if mode == PANOPTIC:
            seen = target["classes"].numpy()
            inside = seen >= 0
            expected = np.vectorize({0: 0, **index}.get)(label.values)
            assert np.array_equal(seen[inside], expected[inside])


@pytest.mark.parametrize("mode", ["RCNN_Masks", "Imagenet", "MultiLabeled_Tiles", PANOPTIC])
def test_batches_and_pictures(tmp_path: Path, scene: Scene, mode: str) -> None:
    data: Any = prepare_data(export(tmp_path, scene, mode), batch_size=2, chip_size=32)
    batch = next(iter(data.train_loader()))
    assert batch["image"].shape == (2, 4, 32, 32)
    if mode == "Imagenet":
        assert batch["target"].shape == (2,)
    elif mode == "MultiLabeled_Tiles":
        assert batch["target"].shape == (2, 2)
    else:
        for target in batch["target"]:
            assert target["masks"].shape[1:] == (32, 32)
            assert target["masks"].flatten(1).any(dim=1).all()
            assert len(target["masks"]) == len(target["labels"]) == len(target["boxes"])
    figure = data.show_batch(2, columns=2)
    assert len(figure.axes) == 4
    figure.to_png()


@pytest.mark.parametrize("mode", ["RCNN_Masks", PANOPTIC])
def test_masks_move_with_their_image(tmp_path: Path, scene: Scene, mode: str) -> None:
    """An image that shows nothing but its objects still shows them after augmentation."""
    data: Any = prepare_data(export(tmp_path, scene, mode), batch_size=2, chip_size=32)
    dataset, compared = data.train_ds, 0
    for number in range(len(dataset)):
        chip = dataset.store[dataset.positions[number]]
        masks = dataset.targets.instances if mode == PANOPTIC else dataset.targets
        encoded = chip.target[1:] if mode == PANOPTIC else chip.target
        shown = masks._unpacked(encoded).any(axis=0)
        chip.data[:] = np.where(shown, 200, 1)
        if chip.valid is not None:
            chip.valid[:] = True
        item = dataset[number, 11]
        raw = data.normalization.invert(item["image"].numpy())[0]
        union = item["target"]["masks"].any(dim=0).numpy()
        if union.any() and not union.all():
            # Pixels at the edges are blends where the item is zoomed.
            middle = (raw.max() + raw.min()) / 2
            assert ((raw > middle) == union).mean() > 0.9
            compared += 1
    assert compared > 5


def test_chips_of_many_sizes_are_resized_to_one(tmp_path: Path, scene: Scene) -> None:
    path = export(tmp_path, scene, "Labeled_Tiles", fix_chip_size=False)
    data: Any = prepare_data(path, batch_size=2, chip_size=40)
    assert {tuple(data.train_ds[n]["image"].shape) for n in range(5)} == {(4, 40, 40)}


PLAIN = ["PASCAL_VOC_rectangles", "Classified_Tiles", "3DRCNet", "Labelled_Tiles"]


@pytest.mark.parametrize("name", PLAIN + INSTANCES + BOXES + TILES + [PANOPTIC])
def test_a_plain_folder_is_read_by_its_type_alone(tmp_path: Path, scene: Scene, name: str) -> None:
    mode = {"3DRCNet": "Classified_Tiles", "Labelled_Tiles": "Labeled_Tiles"}.get(name, name)
    path = export(tmp_path, scene, mode)
    counts = open_export(path).class_counts
    for file in ("map.txt", "stats.txt", "esri_accumulated_stats.json",
                 "esri_model_definition.emd"):  # fmt: skip
        (path / file).unlink()
    for number, folder in enumerate(sorted((path / "labels2").glob("*")), start=1):
        folder.rename(folder.with_name(str(number)))
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    data: Any = prepare_data(path, {1: "house"}, dataset_type=name, batch_size=2, chip_size=32)
    assert data.class_counts == counts
    assert data.classes[0] == "house"
    assert all(text in repr(data) for text in map(str, counts or {}))
    assert next(iter(data.train_loader()))["image"].shape == (2, 4, 32, 32)
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before


def test_more_masks_than_n_masks_are_named(tmp_path: Path, scene: Scene) -> None:
    path = export(tmp_path, scene, PANOPTIC)
    data: Any = prepare_data(path, batch_size=2, n_masks=1)
    assert (data.n_masks, data.instance_values) == (1, (1, 2))
    with pytest.raises(FormatError, match=r"pass n_masks=\d+ or more"):
        list(map(data.train_ds.__getitem__, range(len(data.train_ds))))
    other = export(tmp_path / "b", scene, "RCNN_Masks")
    with pytest.raises(UnknownOptionError, match="panoptic"):
        prepare_data(other, n_masks=3)
