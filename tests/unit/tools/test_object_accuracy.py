"""compute_accuracy_for_object_detection against counts made independently."""

import warnings

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely

from geodl.base.errors import (
    DataError,
    DataWarning,
    GridMismatchError,
    OptionError,
    OutputExistsError,
    UnknownOptionError,
)
from geodl.learn import compute_accuracy_for_object_detection as accuracy
from geodl.testing import make_scene

CRS = "EPSG:32633"
COUNTS = ["True_Positive", "False_Positive", "False_Negative"]


def boxes(count, seed):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 400, (count, 2)) + np.array([500000, 5000000])
    return np.hstack([low, low + rng.uniform(10, 30, (count, 2))])


@pytest.fixture
def truth():
    corners = boxes(80, 0)
    values = np.random.default_rng(1).choice([2, 5], 80)
    return gpd.GeoDataFrame({"classvalue": values}, geometry=shapely.box(*corners.T), crs=CRS)


@pytest.fixture
def found(truth):
    rng = np.random.default_rng(2)
    corners = truth.bounds.to_numpy()
    shifted = np.vstack([corners[:60], corners[:25], boxes(20, 3)])
    shifted = shifted + rng.normal(0, 2, shifted.shape)
    values = np.r_[truth.classvalue[:60], truth.classvalue[:25], rng.choice([2, 5], 19), 9]
    return gpd.GeoDataFrame(
        {"ClassValue": values.astype(float), "Confidence": rng.permutation(105) / 1.05},
        geometry=shapely.box(*shifted.T),
        crs=CRS,
    )


def by_hand(found, truth, min_iou):
    """(hits, false alarms, misses) by value, written out without any of geodl."""
    counts = {}
    for value in sorted({*found.ClassValue.astype(int), *truth.classvalue}):
        mine = found[found.ClassValue == value].sort_values("Confidence", ascending=False)
        free = list(truth[truth.classvalue == value].geometry)
        hits = 0
        for box in mine.geometry:
            ious = [box.intersection(t).area / box.union(t).area for t in free]
            if ious and max(ious) >= min_iou:
                free.pop(int(np.argmax(ious)))
                hits += 1
        counts[str(value)] = (hits, len(mine) - hits, len(free))
    return counts


def test_counts_are_those_of_the_standard_rule_for_several_overlaps(found, truth, tmp_path):
    path = tmp_path / "table.csv"
    table = accuracy(found, truth, min_iou=[0.3, 0.5, 0.75], out_accuracy_table_name=path)
    for least in (0.3, 0.5, 0.75):
        rows = table[table.Min_IoU == least].set_index("Class")
        expected = by_hand(found, truth, least)
        assert list(rows.index) == ["2", "5", "9", "All"]
        for value, counts in expected.items():
            assert tuple(rows.loc[value, COUNTS]) == counts
        total = np.sum(list(expected.values()), axis=0)
        assert rows.loc["All", COUNTS].tolist() == total.tolist()
        hits, alarms, misses = total
        assert rows.loc["All", "Precision"] == pytest.approx(hits / (hits + alarms))
        assert rows.loc["All", "Recall"] == pytest.approx(hits / (hits + misses))
        assert rows.loc["All", "F1_Score"] == pytest.approx(2 * hits / (2 * hits + alarms + misses))
        assert rows.loc["All", "AP"] == pytest.approx(rows.loc[["2", "5"], "AP"].mean())
        assert np.isnan(rows.loc["9", "AP"])
    assert table.attrs["path"] == str(path)
    again = pd.read_csv(path, dtype={"Class": str})
    pd.testing.assert_frame_equal(again, table, check_names=False, check_exact=False)


def test_polygons_count_by_their_own_area_not_by_their_bounds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    square = shapely.box(0, 0, 10, 10)
    half = shapely.Polygon([(0, 0), (10, 0), (0, 10)])
    found = gpd.GeoDataFrame({"Confidence": [9.0]}, geometry=[half], crs=CRS)
    truth = gpd.GeoDataFrame(geometry=[square], crs=CRS)
    assert accuracy(found, truth, min_iou=0.5).True_Positive.tolist() == [1, 1]
    table = accuracy(found, truth, min_iou=0.51)
    assert table.True_Positive.tolist() == [0, 0]
    assert table.Class.tolist() == ["Object", "All"]
    assert table.attrs["path"].startswith(str(tmp_path / "compute_accuracy_for_object_detection_"))
    assert table.attrs["path"].endswith(".parquet")


def test_truth_in_another_crs_is_brought_to_the_detections(found, truth, tmp_path):
    plain = accuracy(found, truth, out_accuracy_table_name=tmp_path / "a.parquet")
    moved = truth.to_crs(4326)
    moved.to_file(tmp_path / "truth.gpkg")
    other = accuracy(found, tmp_path / "truth.gpkg", out_accuracy_table_name=tmp_path / "b.parquet")
    assert plain[COUNTS].equals(other[COUNTS])
    with pytest.raises(GridMismatchError, match="set_crs"):
        accuracy(found, truth.set_crs(None, allow_override=True))


def test_only_what_lies_wholly_inside_the_mask_or_extent_is_judged(found, truth, tmp_path):
    xmin, ymin = 500000, 5000000
    area = shapely.box(xmin, ymin, xmin + 200, ymin + 400)
    inside = [side[shapely.covers(area, side.geometry)] for side in (found, truth)]
    expected = by_hand(*inside, 0.5)
    # In two halves, whose seam cuts nothing off.
    halves = [shapely.box(xmin, ymin, xmin + 90, ymin + 400),
              shapely.box(xmin + 90, ymin, xmin + 200, ymin + 400)]  # fmt: skip
    mask = gpd.GeoDataFrame(geometry=halves, crs=CRS)
    table = accuracy(
        found, truth, mask_features=mask, out_accuracy_table_name=tmp_path / "a.csv"
    ).set_index("Class")
    for value, counts in expected.items():
        assert tuple(table.loc[value, COUNTS]) == counts
    far = mask.translate(1e5, 0)
    with pytest.warns(DataWarning, match="nothing is judged"):
        accuracy(found, truth, mask_features=far, out_accuracy_table_name=tmp_path / "c.csv")
    sides = zip(("xmin", "ymin", "xmax", "ymax"), area.bounds, strict=True)
    by_extent = accuracy(
        found, truth, context={"extent": dict(sides)}, out_accuracy_table_name=tmp_path / "b.csv"
    ).set_index("Class")
    assert by_extent[COUNTS].equals(table[COUNTS])


def test_fields_by_name_and_classes_on_one_side_only(found, truth, tmp_path):
    found = found.assign(kind=np.where(found.ClassValue == 2, "roof", "pool"))
    truth = truth.assign(sort=np.where(truth.classvalue == 2, "roof", "pool"))
    table = accuracy(found, truth, "kind", "sort", out_accuracy_table_name=tmp_path / "a.csv")
    assert table.Class.tolist() == ["pool", "roof", "All"]
    with pytest.warns(DataWarning, match="one class"):
        one = accuracy(
            found.drop(columns="ClassValue"), truth, out_accuracy_table_name=tmp_path / "b.csv"
        )
    assert one.Class.tolist() == ["Object", "All"]
    with pytest.raises(OptionError, match="'kind'"):
        accuracy(found, truth, "kin", "sort")
    with pytest.warns(DataWarning, match="Confidence"):
        accuracy(
            found.drop(columns="Confidence"), truth, out_accuracy_table_name=tmp_path / "c.csv"
        )


def test_nothing_found_is_all_missed(found, truth, tmp_path):
    table = accuracy(found.iloc[:0], truth, out_accuracy_table_name=tmp_path / "a.csv")
    row = table.set_index("Class").loc["All"]
    assert (row.True_Positive, row.False_Positive, row.False_Negative) == (0, 0, 80)
    assert (row.Precision, row.Recall, row.AP) == (0, 0, 0)


def test_the_report_has_table_curves_and_pictures(tmp_path):
    scene = make_scene(tmp_path, size=(160, 160))
    truth = gpd.read_file(scene.labels)
    found = truth.iloc[:-2].to_crs(32633).assign(Confidence=50.0)
    found.geometry = found.geometry.envelope
    found.loc[0, "geometry"] = shapely.affinity.translate(found.geometry[0], 3000, 0)
    report = tmp_path / "report.pdf"
    table = accuracy(
        found, truth, min_iou=(0.5, 0.9), raster=scene.raster,
        out_accuracy_table_name=tmp_path / "a.csv", out_accuracy_report_name=report,
    )  # fmt: skip
    assert table.attrs["report"] == str(report)
    content = report.read_bytes()
    assert content.startswith(b"%PDF")
    # Table, a curve for each overlap, and pictures of hits, false alarms off the raster, misses.
    assert content.count(b"/Type /Page ") + content.count(b"/Type /Page\n") == 5
    with pytest.raises(OutputExistsError, match="overwrite"):
        accuracy(found, truth, out_accuracy_table_name=tmp_path / "a.csv")
    with pytest.raises(OptionError, match="out_accuracy_report_name"):
        accuracy(found, truth, raster=scene.raster)


def test_future_and_estimate(found, truth, tmp_path):
    assert 0 < accuracy(found, truth, estimate=True) < 1
    assert not list(tmp_path.iterdir())
    table = accuracy(found, truth, out_accuracy_table_name=tmp_path / "a.csv", future=True)
    assert len(table.result(30)) == 4


@pytest.mark.parametrize(
    ("arguments", "error", "word"),
    [
        ({"min_iou": 1.2}, OptionError, "min_iou"),
        ({"min_iou": []}, OptionError, "min_iou"),
        ({"min_iou": [0.5, 0.5]}, OptionError, "differ"),
        ({"context": {"cellsize": 1}}, UnknownOptionError, "cellSize"),
        ({"min_iuo": 1}, UnknownOptionError, "min_iuo"),
        ({"out_accuracy_table_name": "table.xlsx"}, OptionError, "suffix"),
        ({"out_accuracy_report_name": "report.html"}, OptionError, "suffix"),
    ],
)
def test_wrong_arguments_are_refused(found, truth, arguments, error, word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=word):
        accuracy(found, truth, **arguments)


def test_wrong_features_are_refused(found, truth):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        with pytest.raises(DataError, match="no features"):
            accuracy(found, truth.iloc[:0])
        with pytest.raises(DataError, match="Point"):
            accuracy(found, truth.assign(geometry=truth.centroid))
        with pytest.raises(DataError, match="finite"):
            accuracy(found.assign(Confidence="high"), truth)
