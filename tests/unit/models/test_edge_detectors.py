"""The edge detectors: what they are built of, their scores, and edges of rasters."""

import warnings

import numpy as np
import pytest
import torch

from geodl.base.errors import NotSupportedError, OfflineWarning, OptionError, UnknownOptionError
from geodl.models.bdcn_edge_detector import BDCNEdgeDetector
from geodl.models.hed_edge_detector import HEDEdgeDetector
from geodl.testing.tiny import random_model
from geodl.tools.classify_pixels import classify_pixels

KINDS = [HEDEdgeDetector, BDCNEdgeDetector]


def make(kind, data, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OfflineWarning)
        return kind(data, **{"backbone": "resnet18", **options})


@pytest.mark.parametrize("kind", KINDS)
def test_precision_and_recall_come_by_name(data, kind):
    model = make(kind, data)
    found = model.compute_precision_recall(0.0, 3, show_progress=False)
    assert set(found) == {"precision", "recall", "f1_score"}
    assert all(0 <= value <= 1 for value in found.values())
    assert model.compute_precision_recall(1.0)["recall"] == 0
    with pytest.raises(OptionError, match="thresh"):
        model.compute_precision_recall(2)
    with pytest.raises(OptionError, match="buffer"):
        model.compute_precision_recall(buffer=-1)


def test_wrong_arguments_are_refused(data):
    with pytest.raises(UnknownOptionError, match="focal_loss"):
        make(HEDEdgeDetector, data, focal_loss=True)
    with pytest.raises(NotSupportedError, match="vgg99"):
        make(BDCNEdgeDetector, data, backbone="vgg99")


def test_results_are_drawn_by_threshold_and_thinned(data):
    model = make(HEDEdgeDetector, data)
    assert model.show_results(rows=1, thresh=0.1, thinning=False).axes
    with pytest.raises(OptionError, match="thresh"):
        model.show_results(thresh=3)
    with pytest.raises(UnknownOptionError, match="threshold"):
        model.show_results(threshold=0.5)


def test_bdcn_weighs_its_losses_as_in_the_paper(data):
    task = make(BDCNEdgeDetector, data).task
    assert (task.side_weight, task.fuse_weight, task.edge_weight) == (0.5, 1.1, 1.1)


@pytest.fixture(scope="module")
def edges(tmp_path_factory):
    """A packed detector with random weights."""
    folder = tmp_path_factory.mktemp("edges")
    return random_model(
        folder / "bdcn", "BDCNEdgeDetector", "pixels", {"backbone": "resnet18"},
        classes={4: "wall", 9: "fence"}, tile_px=64,
    )  # fmt: skip


@pytest.fixture(scope="module")
def raster(tmp_path_factory):
    import rasterio
    from rasterio.transform import from_origin

    path = tmp_path_factory.mktemp("raster") / "r.tif"
    rng = np.random.default_rng(0)
    with rasterio.open(
        path, "w", driver="GTiff", width=110, height=100, count=3, dtype="uint8",
        crs="EPSG:32633", transform=from_origin(5e5, 5e6, 1, 1),
    ) as dataset:  # fmt: skip
        dataset.write(rng.integers(0, 255, (3, 100, 110), dtype=np.uint8))
    return path


def classify(raster, model, path, **arguments):
    return classify_pixels(
        str(raster), str(model), {"padding": 16, **arguments}, str(path), progress=False
    )  # fmt: skip


def test_threshold_thinning_and_probabilities_of_a_raster(raster, edges, tmp_path):
    scores = classify(raster, edges, tmp_path / "s.tif", return_probability_raster=True).values
    assert scores.shape[0] == 3
    assert not scores[2].any()
    threshold = float(np.median(scores[1]))
    whole = classify(raster, edges, tmp_path / "w.tif", threshold=threshold, thinning=False).values[
        0
    ]
    sure = np.abs(scores[1] - threshold) > 1e-4
    assert np.array_equal((whole == 4)[sure], (scores[1] > threshold)[sure])
    assert set(np.unique(whole)) == {0, 4}
    lines = classify(raster, edges, tmp_path / "t.tif", threshold=threshold).values[0]
    assert 0 < (lines == 4).sum() < (whole == 4).sum()
    assert not ((lines == 4) & (whole != 4)).any()


def test_thinned_edges_are_the_same_in_any_blocks(raster, edges, tmp_path):
    scores = classify(raster, edges, tmp_path / "s.tif", output="scores").values
    threshold = float(np.median(scores[1]))
    arguments = {"padding": 16, "threshold": threshold}
    found = [
        classify_pixels(
            str(raster), str(edges), arguments, str(tmp_path / f"{size}.tif"), progress=False,
            block_size=size,
        ).values
        for size in (32, 64, 512)
    ]  # fmt: skip
    assert (found[0] == 4).any()
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


def test_arguments_are_those_of_the_model(raster, edges, tmp_path):
    with pytest.raises(UnknownOptionError, match="predict_background"):
        classify(raster, edges, tmp_path / "x.tif", predict_background=False)
    with pytest.raises(OptionError, match="threshold"):
        classify(raster, edges, tmp_path / "x.tif", threshold=7)


def test_the_package_builds_the_same_network(edges):
    model = BDCNEdgeDetector.from_model(edges)
    assert torch.isfinite(model.net(torch.zeros(1, 3, 64, 64))).all()
