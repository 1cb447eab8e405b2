"""compute_confusion_matrix on rasters of other grids and on points."""

import weakref

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from sklearn import metrics

from geodl.base.errors import DataError, OptionError
from geodl.functions import compute_confusion_matrix
from geodl.io.source import open_source
from geodl.tools import confusion_matrix

CRS = "EPSG:32633"


def write(path, values, west=5e5, north=5e6, cell=1.0, **profile):
    with rasterio.open(
        path, "w", driver="GTiff", width=values.shape[1], height=values.shape[0], count=1,
        dtype=values.dtype, crs=CRS, transform=from_origin(west, north, cell, cell),
        nodata=255, **profile,
    ) as file:  # fmt: skip
        file.write(values, 1)
    return path


@pytest.fixture(autouse=True)
def _small_windows(monkeypatch):
    monkeypatch.setattr(confusion_matrix, "_WINDOW_PX", 16)


@pytest.fixture
def found():
    values = np.random.default_rng(0).choice(np.array([0, 3, 8], np.uint8), (50, 70))
    values[:5] = 255
    return values


@pytest.fixture
def classified(tmp_path, found):
    return write(tmp_path / "found.tif", found)


def test_rasters_that_overlap_in_part_count_where_both_have_data(tmp_path, found, classified):
    truth = np.random.default_rng(1).choice(np.array([0, 3, 8], np.uint8), (60, 40))
    truth[:, 30:] = 255
    path = write(tmp_path / "truth.tif", truth, west=5e5 + 50, north=5e6 - 20)
    matrix = compute_confusion_matrix(classified, path)
    true, seen = truth[:30, :20].ravel(), found[20:, 50:].ravel()
    assert matrix.values == (0, 3, 8)
    assert np.array_equal(matrix.counts, metrics.confusion_matrix(true, seen))


def test_coarser_truth_is_brought_onto_the_pixels(tmp_path, found, classified):
    truth = np.random.default_rng(2).choice(np.array([0, 3], np.uint8), (25, 35))
    path = write(tmp_path / "coarse.tif", truth, cell=2.0)
    matrix = compute_confusion_matrix(classified, path)
    fine = truth.repeat(2, 0).repeat(2, 1)
    valid = found != 255
    expected = metrics.confusion_matrix(fine[valid], found[valid], labels=[0, 3, 8])
    assert np.array_equal(matrix.counts, expected)


def test_points_meet_the_pixel_they_lie_in(tmp_path, found, classified):
    rng = np.random.default_rng(4)
    rows, cols = rng.integers(0, 50, 300), rng.integers(0, 70, 300)
    truth = rng.choice([0, 3, 8], 300)
    shift = rng.random((2, 300))
    frame = gpd.GeoDataFrame(
        {"GrndTruth": truth, "other": 1.5},
        geometry=gpd.points_from_xy(5e5 + cols + shift[0], 5e6 - rows - shift[1]),
        crs=CRS,
    )
    frame.loc[len(frame)] = [3, 1.5, gpd.points_from_xy([0], [0])[0]]
    valid = found[rows, cols] != 255
    expected = metrics.confusion_matrix(truth[valid], found[rows, cols][valid])
    assert np.array_equal(compute_confusion_matrix(classified, frame).counts, expected)
    path = tmp_path / "points.gpkg"
    frame.to_file(path)
    again = compute_confusion_matrix(classified, path, field="GrndTruth")
    assert np.array_equal(again.counts, expected)
    with pytest.raises(OptionError, match=r"'truth'.*GrndTruth"):
        compute_confusion_matrix(classified, frame, field="truth")
    with pytest.raises(DataError, match="whole"):
        compute_confusion_matrix(classified, frame, field="other")
    with pytest.raises(DataError, match="Polygon"):
        compute_confusion_matrix(classified, frame.assign(geometry=frame.buffer(1)))


def test_what_cannot_be_compared_is_refused(tmp_path, found, classified):
    far = write(tmp_path / "far.tif", found, west=6e5)
    with pytest.raises(DataError, match="in common"):
        compute_confusion_matrix(classified, far)
    with pytest.raises(OptionError, match="field='x'"):
        compute_confusion_matrix(classified, far, field="x")
    halves = write(tmp_path / "half.tif", np.full((50, 70), 0.5, np.float32))
    with pytest.raises(DataError, match="whole"):
        compute_confusion_matrix(halves, classified)


class Watched:
    """A source that knows how much of what it gave is still held."""

    def __init__(self, source):
        self._source, self._given, self.most_px = source, [], 0

    def __getattr__(self, name):
        return getattr(self._source, name)

    def read(self, window):
        block = self._source.read(window)
        self._given.append(weakref.ref(block.data))
        alive = (reference() for reference in self._given)
        self.most_px = max(self.most_px, sum(data.size for data in alive if data is not None))
        return block


def test_memory_does_not_grow_with_the_rasters(tmp_path, monkeypatch):
    sources = []

    def watched(*args, **options):
        sources.append(Watched(open_source(*args, **options)))
        return sources[-1]

    monkeypatch.setattr(confusion_matrix, "_WINDOW_PX", 64)
    monkeypatch.setattr(confusion_matrix, "open_source", watched)
    values = np.random.default_rng(0).choice(np.array([0, 3, 8], np.uint8), (512, 512))
    one, two = write(tmp_path / "one.tif", values), write(tmp_path / "two.tif", values[::-1].copy())
    assert compute_confusion_matrix(one, two).total == 512**2
    # The window at work, and the one before it until it is replaced.
    assert 0 < max(source.most_px for source in sources) <= 2 * 64**2
