"""The standard rule of matching, and curves against COCO."""

import numpy as np
import pytest
import shapely

from geodl.core.detections import Detections
from geodl.ops.average_precision import average_precision
from geodl.ops.detection_accuracy import all_classes, candidates, class_accuracy, match
from geodl.ops.polygon_overlap import Polygons


def judged(found, scores, truth, min_iou, found_labels=None, truth_labels=None):
    labels = [
        np.zeros(len(side), int) if given is None else np.asarray(given)
        for side, given in ((found, found_labels), (truth, truth_labels))
    ]
    pairs = candidates(Polygons(found), labels[0], np.asarray(scores), Polygons(truth), labels[1])
    return match(pairs, len(found), len(truth), min_iou).tolist()


def row(*lefts, side=10.0):
    left = np.array(lefts, float)
    return shapely.box(left, 0, left + side, side)


def test_a_second_detection_of_one_object_is_a_false_alarm_and_the_better_score_wins():
    assert judged(row(0, 1), [0.5, 0.9], row(1), 0.5) == [-1, 0]
    # Even where the weaker one lies better.
    assert judged(row(2, 0), [0.9, 0.5], row(0), 0.5) == [0, -1]


def test_a_detection_takes_the_free_object_it_overlaps_most():
    truth = row(0, 4)
    assert judged(row(3, 4), [0.9, 0.8], truth, 0.1) == [1, 0]


def test_an_overlap_equal_to_the_least_counts_and_zero_wants_a_real_overlap():
    assert judged(row(5), [1.0], row(0), 1 / 3) == [0]
    assert judged(row(5), [1.0], row(0), 0.334) == [-1]
    assert judged(row(10), [1.0], row(0), 0.0) == [-1]
    assert judged(row(0), [1.0], row(0), 1.0) == [0]


def test_classes_never_match_each_other():
    assert judged(row(0), [1.0], row(0), 0.5, [0], [1]) == [-1]


def test_ties_do_not_depend_on_the_order_of_arrival():
    found = row(0, 1, 2, 20, 21)
    truth = row(1, 21)
    straight = judged(found, np.ones(5), truth, 0.5)
    turned = judged(found[::-1], np.ones(5), truth, 0.5)
    assert straight == turned[::-1]


@pytest.mark.parametrize("min_iou", [0.3, 0.5, 0.75])
def test_average_precision_is_that_of_coco(min_iou):
    rng = np.random.default_rng(int(min_iou * 100))
    low = rng.uniform(0, 300, (120, 2))
    true = np.hstack([low, low + rng.uniform(8, 25, (120, 2))])
    noisy = np.vstack([true[:90], true[:40], true[rng.permutation(120)[:30]] + 40])
    noisy = noisy + rng.normal(0, 1.0, noisy.shape)
    scores = rng.permutation(len(noisy)) / len(noisy)
    found, truth = Polygons(shapely.box(*noisy.T)), Polygons(shapely.box(*true.T))
    labels = np.zeros(len(noisy), int), np.zeros(len(true), int)
    matched = match(
        candidates(found, labels[0], scores, truth, labels[1]), len(found), len(truth), min_iou
    )
    ours = class_accuracy(matched[np.argsort(-scores)] >= 0, len(true))
    assert ours.average_precision == pytest.approx(coco(true, noisy, scores, min_iou), abs=1e-6)
    assert 0.05 < ours.average_precision < 0.95


def coco(true, noisy, scores, min_iou):
    """By faster-coco-eval."""
    truth = [(true, np.ones(len(true), int))]
    found = [Detections(noisy, scores.astype(np.float32), np.ones(len(noisy), np.int64))]
    return average_precision(truth, found, 1, (min_iou,))[0, 0]


def test_ratios_without_anything_are_zero_and_classes_without_truth_do_not_count():
    one = class_accuracy(np.array([True, False, True]), 4)
    none = class_accuracy(np.array([False]), 0)
    empty = class_accuracy(np.zeros(0, bool), 2)
    assert (one.precision, one.recall, one.f1) == pytest.approx((2 / 3, 0.5, 4 / 7))
    assert (empty.precision, empty.recall, empty.f1, empty.average_precision) == (0, 0, 0, 0)
    assert np.isnan(none.average_precision)
    whole = all_classes([one, none, empty])
    assert (whole.true_positive, whole.false_positive, whole.false_negative) == (2, 2, 4)
    assert whole.average_precision == pytest.approx(one.average_precision / 2)
    assert np.isnan(all_classes([none]).average_precision)
