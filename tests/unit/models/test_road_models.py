"""Road extractors: arguments, the loss of both tasks, scores against the mask itself."""

import warnings

import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import from_origin
from torch.nn import functional

from geodl.base.errors import NotSupportedError, OfflineWarning, OptionError, UnknownOptionError
from geodl.core.classes import ClassTable
from geodl.functions import extract_lines
from geodl.models.connect_net import ConnectNet
from geodl.models.multi_task_road_extractor import MultiTaskRoadExtractor
from geodl.nets.roads import HourglassRoads, LinkRoads
from geodl.tasks.pixels import dice_loss
from geodl.tasks.roads import RoadTask
from geodl.testing.tiny import random_model
from geodl.tools.classify_pixels import classify_pixels


def make(data, kind=MultiTaskRoadExtractor, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OfflineWarning)
        return kind(data, **options)


@pytest.mark.parametrize("kind", [MultiTaskRoadExtractor, ConnectNet])
def test_arguments_choose_the_network_and_the_targets(data, kind):
    model = make(data, kind, orient_bin_size=30, orient_theta=4, gaussian_thresh=0.5)
    assert isinstance(model.net, HourglassRoads)
    assert model.task.bins == 7
    assert model.net.orient.out_channels == 7
    assert (model.task.gaussian_thresh, model.task.theta_px) == (0.5, 4)
    model = make(data, kind, mtl_model="linknet", backbone="resnet18")
    assert isinstance(model.net, LinkRoads)
    assert 0 <= model.mIOU(mean=True) <= 1
    assert set(model.mIOU()) <= {"NoData", *model.data.classes}


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"mtl_model": "unet"}, OptionError, "linknet"),
        ({"gaussian_thresh": 0}, OptionError, "gaussian_thresh"),
        ({"gaussian_thresh": 1.2}, OptionError, "gaussian_thresh"),
        ({"orient_bin_size": 0}, OptionError, "orient_bin_size"),
        ({"orient_theta": "wide"}, OptionError, "orient_theta"),
        ({"backbone": "resnet35"}, NotSupportedError, "resnet35"),
        ({"mixup": True}, UnknownOptionError, "mixup"),
    ],
)
def test_wrong_arguments_are_refused_by_name(data, options, error, text):
    with pytest.raises(error, match=text):
        make(data, **options)


def item(target):
    return {"image": torch.zeros(1, *target.shape), "target": target, "name": "a"}


def test_the_loss_adds_both_tasks():
    torch.manual_seed(0)
    task = RoadTask(ClassTable.from_mapping({1: "road"}))
    target = torch.zeros(24, 24, dtype=torch.int64)
    target[10:14] = 1
    target[:, :3] = -100
    batch = task.collate([item(target)])
    assert (batch["orientation"] == 1).any()
    answer = {
        "logits": torch.randn(1, 2, 24, 24),
        "orientation": torch.randn(1, task.bins, 24, 24),
        "auxiliary_orientation": torch.randn(1, task.bins, 24, 24),
    }
    found = task.loss(lambda x: answer, batch)
    lines = batch["lines"]
    assert torch.equal(lines, target[None])
    plain = functional.cross_entropy(answer["logits"], lines)
    segmentation = 0.5 * plain + 0.5 * dice_loss(answer["logits"], lines, "macro")
    orientation = functional.cross_entropy(answer["orientation"], batch["orientation"])
    again = functional.cross_entropy(answer["auxiliary_orientation"], batch["orientation"])
    assert torch.allclose(found["loss"], segmentation + orientation + 0.4 * again)


def test_options_reach_the_targets():
    table = ClassTable.from_mapping({1: "road"})
    target = torch.zeros(30, 30, dtype=torch.int64)
    target[13:16] = 1

    def made(**options):
        return RoadTask(table, **options).collate([item(target)])

    bands = [int((made(orient_theta=theta)["orientation"][0, :, 15] > 0).sum()) for theta in (4, 8)]
    assert bands[0] < bands[1]
    upright = target.T.contiguous()
    for size, place in ((20, 5), (30, 4)):
        batch = RoadTask(table, orient_bin_size=size).collate([item(upright)])
        assert set(batch["orientation"].unique().tolist()) == {0, place}
    widths = [int(made(gaussian_thresh=t)["lines"][0, :, 15].sum()) for t in (0.76, 0.3)]
    assert widths[0] == 3 < widths[1]


def test_metrics_are_of_the_mask_and_not_of_widened_lines():
    task = RoadTask(ClassTable.from_mapping({1: "road"}), gaussian_thresh=0.3)
    target = torch.zeros(30, 30, dtype=torch.int64)
    target[13:16] = 1
    batch = task.collate([item(target)])
    assert (batch["lines"] == 1).sum() > (target == 1).sum()
    logits = functional.one_hot(target, 2).movedim(-1, 0)[None] * 9.0
    calls = []
    result = task.validate(lambda x: calls.append(x) or logits, batch)
    assert len(calls) == 1
    meter = task.new_meter()
    meter.update(result, batch)
    assert meter.compute()["mIoU"] == 1


# ---- wall to wall


@pytest.fixture(scope="module")
def roads(tmp_path_factory):
    """A packed extractor with random weights."""
    return random_model(
        tmp_path_factory.mktemp("roads") / "connect", "ConnectNet", "pixels",
        {"backbone": "resnet18", "mtl_model": "linknet"}, classes={5: "road"}, tile_px=64,
    )  # fmt: skip


@pytest.fixture(scope="module")
def raster(tmp_path_factory):
    path = tmp_path_factory.mktemp("raster") / "r.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=110, height=90, count=3, dtype="uint8",
        crs="EPSG:32633", transform=from_origin(5e5, 5e6, 1, 1),
    ) as file:  # fmt: skip
        file.write(np.random.default_rng(0).integers(0, 255, (3, 90, 110), dtype=np.uint8))
    return str(path)


def test_roads_come_as_probabilities_as_classes_and_as_lines(raster, roads, tmp_path):
    def classify(name, **arguments):
        return classify_pixels(
            raster, str(roads), {"padding": 16, **arguments}, tmp_path / name, progress=False
        )

    chance = classify("p.tif", return_probability_raster=True).values
    assert chance.shape == (2, 90, 110)
    assert np.allclose(chance.sum(axis=0), 1, atol=1e-5)
    threshold = float(np.median(chance[1]))
    classes = classify("c.tif", threshold=threshold).values[0]
    sure = np.abs(chance[1] - threshold) > 1e-4
    assert set(np.unique(classes)) == {0, 5}
    assert np.array_equal((classes == 5)[sure], (chance[1] > threshold)[sure])
    lines = classify("l.parquet", threshold=threshold)
    assert len(lines) > 0
    assert set(lines.geom_type) == {"LineString"}
    assert set(lines["Class"]) == {"road"}
    expected = extract_lines(tmp_path / "c.tif")
    assert lines.drop(columns="Class").equals(expected)
    with pytest.raises(UnknownOptionError, match="thinning"):
        classify("t.tif", thinning=True)
