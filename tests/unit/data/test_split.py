import numpy as np
import pytest

from geodl.base.errors import DataError
from geodl.data.split import block_split, random_split, stratified_split, validation_count


def names(count):
    return [f"{i:09d}" for i in range(count)]


def grid_bounds(rows, cols, size, stride):
    row, col = (a.ravel() for a in np.mgrid[:rows, :cols])
    return np.column_stack([col * stride, row * stride, col * stride + size, row * stride + size])


@pytest.mark.parametrize(
    ("chips", "share", "valid"),
    [(100, 0.1, 10), (8, 0.1, 1), (5, 0.0, 1), (3, 0.99, 2), (2, 0.5, 1)],
)
def test_both_sets_hold_at_least_one_chip(chips, share, valid):
    assert validation_count(chips, share) == valid


@pytest.mark.parametrize("chips", [0, 1])
def test_fewer_than_two_chips_are_refused_with_a_remedy(chips):
    with pytest.raises(DataError, match=r"at least two.*Export more chips"):
        random_split(names(chips), 0.1, 0)


def test_random_split_covers_each_chip_once():
    split = random_split(names(50), 0.2, 3)
    assert sorted(split.train + split.valid) == list(range(50))
    assert len(split.valid) == 10


def test_random_split_depends_on_the_seed_and_not_on_the_order():
    keys = names(60)
    split = random_split(keys, 0.3, 1)
    chosen = {keys[i] for i in split.valid}
    backwards = keys[::-1]
    assert {backwards[i] for i in random_split(backwards, 0.3, 1).valid} == chosen
    assert random_split(keys, 0.3, 2).valid != split.valid


def test_stratified_split_keeps_the_share_of_a_rare_class():
    rng = np.random.default_rng(0)
    present = np.column_stack([rng.random(400) < 0.9, np.arange(400) < 20])
    split = stratified_split(names(400), present, 0.2, 5)
    assert len(split.valid) == 80
    assert sorted(split.train + split.valid) == list(range(400))
    assert present[list(split.valid), 1].sum() == 4
    assert present[list(split.valid), 0].mean() == pytest.approx(present[:, 0].mean(), abs=0.04)


def test_stratified_split_shares_out_chips_without_any_class():
    present = np.zeros((40, 1), bool)
    present[:20] = True
    valid = stratified_split(names(40), present, 0.2, 0).valid
    assert present[list(valid)].sum() == 4


def touching(bounds, first, second):
    a, b = bounds[list(first)][:, None], bounds[list(second)][None]
    overlap = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    return (overlap > 1e-6).all(axis=-1).any()


@pytest.mark.parametrize("stride", [10, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_no_training_chip_of_a_block_split_overlaps_validation(stride, seed):
    bounds = grid_bounds(20, 20, 10, stride).astype(float)
    split = block_split(names(400), bounds, 0.1, seed)
    assert len(split.valid) == 40
    assert not touching(bounds, split.train, split.valid)
    assert sorted(split.train + split.valid + split.dropped) == list(range(400))
    assert bool(split.dropped) == (stride < 10)
    assert len(split.train) > 200


def test_validation_chips_of_a_block_are_neighbours():
    bounds = grid_bounds(10, 10, 10, 10).astype(float)
    split = block_split(names(100), bounds, 0.09, 4)
    span = bounds[list(split.valid)]
    assert np.ptp(span[:, 0]) <= 40
    assert np.ptp(span[:, 1]) <= 40


def test_block_split_with_all_chips_on_one_spot_is_refused():
    bounds = np.tile([[0.0, 0, 10, 10]], (6, 1))
    with pytest.raises(DataError, match="split='random'"):
        block_split(names(6), bounds, 0.2, 0)
