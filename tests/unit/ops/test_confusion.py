"""Scores of a confusion matrix equal scikit-learn's on the same values."""

import numpy as np
import pytest
from sklearn import metrics

from geodl.ops.confusion import ConfusionMatrix, PairCounts


@pytest.fixture(scope="module")
def labels():
    rng = np.random.default_rng(3)
    truth = rng.choice([-5, 0, 7, 300], 4000, p=[0.1, 0.5, 0.3, 0.1])
    found = np.where(rng.random(4000) < 0.7, truth, rng.choice([0, 7, 300, 9], 4000))
    return truth, found


def test_parts_add_up_to_scikit_learns_scores(labels):
    truth, found = labels
    counts = PairCounts()
    for start in range(0, 4000, 700):
        counts.add(truth[start : start + 700], found[start : start + 700])
    matrix = counts.matrix()
    assert matrix.values == (-5, 0, 7, 9, 300)
    assert np.array_equal(matrix.counts, metrics.confusion_matrix(truth, found))
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        truth, found, zero_division=0
    )
    assert np.allclose(matrix.precision, precision)
    assert np.allclose(matrix.recall, recall)
    assert np.allclose(matrix.f1, f1)
    assert np.allclose(
        matrix.iou, metrics.jaccard_score(truth, found, average=None, zero_division=0)
    )
    assert matrix.accuracy == pytest.approx(metrics.accuracy_score(truth, found))
    assert matrix.kappa == pytest.approx(metrics.cohen_kappa_score(truth, found))
    assert matrix.mean_iou == pytest.approx(matrix.iou.mean())


def test_one_class_alone_has_no_agreement_beyond_chance():
    counts = PairCounts()
    counts.add(np.full(5, 2), np.full(5, 2))
    assert (counts.matrix().accuracy, counts.matrix().kappa) == (1.0, 0.0)


def test_nothing_scores_nothing():
    empty = ConfusionMatrix((), np.zeros((0, 0), np.int64))
    assert (empty.total, empty.accuracy, empty.kappa, empty.mean_iou) == (0, 0, 0, 0)
