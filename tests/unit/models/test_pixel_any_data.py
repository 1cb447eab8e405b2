"""Every pixel model from raster to map: other bands and dtypes, class values with gaps, nodata."""

import warnings

import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import from_origin

from geodl.base.errors import OfflineWarning
from geodl.base.models import MODELS
from geodl.core.classes import ClassTable
from geodl.core.contract import IGNORE_INDEX
from geodl.data.prepare import prepare_data
from geodl.tools.classify_pixels import classify_pixels
from geodl.tools.detect_change import detect_change_using_deep_learning
from geodl.tools.export_training_data import export_training_data

VALUES = (0, 4, 200)
HEIGHT, WIDTH, CHIP = 64, 96, 32
# What a dtype of sensors holds: bytes, reflectance times 10000, and shares.
TOPS = {"uint8": 250, "uint16": 9000, "float32": 0.9}
RESNET = {"backbone": "resnet18"}
CASES = [
    ("UnetClassifier", RESNET, 13, "uint16"),
    ("PSPNetClassifier", RESNET, 8, "float32"),
    ("DeepLab", RESNET, 1, "uint16"),
    ("HEDEdgeDetector", RESNET, 4, "float32"),
    ("BDCNEdgeDetector", RESNET, 13, "uint8"),
    ("ConnectNet", {**RESNET, "mtl_model": "linknet"}, 8, "uint16"),
    ("MultiTaskRoadExtractor", {}, 3, "float32"),
    ("ChangeDetector", RESNET, 8, "uint16"),
]


def write(path, data, nodata=0):
    with rasterio.open(
        path, "w", driver="GTiff", height=HEIGHT, width=WIDTH, count=len(data), dtype=data.dtype,
        crs="EPSG:32633", transform=from_origin(5e5, 5e6, 0.5, 0.5), nodata=nodata,
    ) as file:  # fmt: skip
        file.write(data)
    return str(path)


def ground(bands, dtype, seed):
    """An image whose brightness tells its class, without data in a corner; and the classes."""
    rng = np.random.default_rng(seed)
    index = np.kron(rng.integers(0, 3, (8, 12)), np.ones((8, 8), int))
    level = (index[None] + 1 + rng.random((bands, HEIGHT, WIDTH))) / 4
    image = (level * TOPS[dtype]).astype(dtype)
    image[:, :20, :24] = 0
    return image, np.array(VALUES, np.uint8)[index][None]


def exported(folder, bands, dtype, pair):
    """The images, and a data object of their chips."""
    image, classes = ground(bands, dtype, 0)
    images, more = [write(folder / "a.tif", image)], {}
    if pair:
        later = ground(bands, dtype, 1)[0]
        # Without data in the earlier image only.
        later[:, :20, :24] = TOPS[dtype]
        images.append(write(folder / "b.tif", later))
        classes = np.where(classes == 200, 200, 0).astype(np.uint8)
        more = {"additional_input_raster": images[1]}
    labels = write(folder / "labels.tif", classes, nodata=None)
    chips = export_training_data(
        images[0], labels, "TIFF", CHIP, metadata_format="Classified_Tiles",
        output_location=folder / "chips", progress=False, **more,
    )  # fmt: skip
    kind = {"dataset_type": "ChangeDetection"} if pair else {}
    data = prepare_data(
        chips, chip_size=CHIP, batch_size=4, val_split_pct=0.3, transforms=False,
        working_dir=folder, **kind,
    )  # fmt: skip
    return images, data


@pytest.mark.parametrize(("name", "options", "bands", "dtype"), CASES, ids=[c[0] for c in CASES])
def test_a_model_learns_and_maps_any_data(name, options, bands, dtype, tmp_path):
    pair = name == "ChangeDetector"
    images, data = exported(tmp_path, bands, dtype, pair)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OfflineWarning)
        model = MODELS[name](data, **options)
    assert model.contract.source_bands == bands * (1 + pair)
    items = [item for chips in (model.data.train_ds, model.data.valid_ds) for item in chips]
    assert max(float(item["image"].abs().max()) for item in items) < 10
    void = sum(int((item["target"] == IGNORE_INDEX).sum()) for item in items)
    assert void == 20 * 24
    model.fit(1, 1e-3)
    assert all(np.isfinite(value) for value in model.record.rows[0].values())
    counted = sum(int((item["target"] != IGNORE_INDEX).sum()) for item in model.data.valid_ds)
    assert model._score().meter.counts().sum() == counted

    path = tmp_path / "map.tif"
    if pair:
        detect_change_using_deep_learning(*images, model, path, progress=False)
    else:
        classify_pixels(*images, model, {}, path, progress=False)
    with rasterio.open(path) as file:
        found, nodata = file.read(1), file.nodata
    empty = np.zeros((HEIGHT, WIDTH), bool)
    empty[:20, :24] = True
    assert np.array_equal(found == nodata, empty)
    known = {0, *(entry.value for entry in model.contract.classes)}
    # Change is 1, whatever value the labels had.
    assert known == ({0, 1} if pair else set(VALUES))
    assert set(np.unique(found[~empty])) <= known


class Memory(torch.nn.Module):
    """Logits that learn by themselves, as the networks of a task give them in training."""

    def __init__(self, task, shape):
        super().__init__()
        made = torch.Generator().manual_seed(0)
        rows, cols = shape

        def maps(count):
            return torch.nn.Parameter(torch.randn(1, count, rows, cols, generator=made))

        self.kind = type(task).__name__
        self.outputs = maps(1 if self.kind in ("EdgeTask", "ChangeTask") else task.outputs)
        self.orientation = maps(getattr(task, "bins", 1))
        self.sides = maps(2)

    def forward(self, x):
        if self.kind == "EdgeTask":
            return {"logits": self.outputs, "sides": self.sides} if self.training else self.outputs
        if self.kind == "RoadTask" and self.training:
            return {"logits": self.outputs, "orientation": self.orientation}
        return self.outputs


@pytest.mark.parametrize(
    "name", ["UnetClassifier", "HEDEdgeDetector", "ConnectNet", "ChangeDetector"]
)
def test_pixels_without_data_take_no_part_in_loss_or_metrics(name):
    task = MODELS[name].build(
        classes=ClassTable.from_mapping({200: "a"}), bands=2, tile_px=32, pretrained=False,
        parameters={"backbone": "resnet18"}, batch_size=4,
    )[1]  # fmt: skip
    target = torch.zeros(24, 32, dtype=torch.int64)
    target[8:14] = 1
    void = torch.zeros(24, 32, dtype=torch.bool)
    void[:, :9] = True
    target[void] = IGNORE_INDEX
    batch = task.collate([{"image": torch.zeros(2, 24, 32), "target": target, "name": "x"}])
    net = Memory(task, (24, 32))
    task.loss(net.train(), batch)["loss"].backward()
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    assert gradients
    for gradient in gradients:
        assert not gradient[..., void].any()
        assert gradient[..., ~void].any()

    def scored():
        meter = task.new_meter()
        result = task.validate(net.eval(), batch)
        meter.update(result, batch)
        return float(result["loss"]), meter.compute()

    with torch.no_grad():
        before = scored()
        for maps in net.parameters():
            maps[..., void] = 50.0
        after = scored()
    assert after[0] == pytest.approx(before[0])
    assert after[1] == before[1]
