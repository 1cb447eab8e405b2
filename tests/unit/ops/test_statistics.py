"""Statistics merge exactly, whatever the order and grouping."""

from __future__ import annotations

import functools
import json
import math
import operator
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from geodl.ops.statistics import BandState, Summary, band_state

FLOATS = nps.arrays(
    np.float32,
    st.integers(1, 30),
    elements=st.floats(-1e6, 1e6, width=32, allow_nan=False),
)


@given(st.lists(FLOATS, min_size=1, max_size=8), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_any_order_and_grouping_gives_the_same_bits(
    parts: list[np.ndarray], rng: random.Random
) -> None:
    states = [band_state(part) for part in parts]
    forward = functools.reduce(operator.add, states)
    shuffled = list(states)
    rng.shuffle(shuffled)
    while len(shuffled) > 1:
        one = shuffled.pop(rng.randrange(len(shuffled)))
        shuffled[rng.randrange(len(shuffled))] += one
    assert shuffled[0] == forward


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "uint32", "float32"])
def test_merged_moments_are_those_of_all_pixels(dtype: str) -> None:
    rng = np.random.default_rng(0)
    low, high = (-5000, 5000) if dtype in ("int16", "int32", "float32") else (0, 250)
    parts = [rng.integers(low, high, (3, n)).astype(dtype) for n in (7, 400, 31)]
    merged = functools.reduce(operator.add, map(band_state, parts))
    whole = np.concatenate([part.ravel() for part in parts]).astype(np.float64)
    assert merged.count == whole.size
    assert (merged.minimum, merged.maximum) == (whole.min(), whole.max())
    assert merged.mean == pytest.approx(whole.mean(), rel=1e-14)
    assert merged.std == pytest.approx(whole.std(), rel=1e-13)


def test_small_integers_are_summed_without_rounding() -> None:
    values = np.full(3 * 2**20 + 5, 65535, np.uint16)
    state = band_state(values)
    assert state.total == 65535 * values.size
    assert state.squares == 65535**2 * values.size
    assert state.std == 0.0


def test_a_large_mean_does_not_eat_the_deviation() -> None:
    rng = np.random.default_rng(0)
    values = 1e9 + rng.normal(0, 1, 5000)
    halves = band_state(values[:1700]) + band_state(values[1700:])
    assert halves.std == pytest.approx(values.std(), rel=1e-6)


def test_numbers_that_are_not_finite_are_left_out() -> None:
    state = band_state(np.array([1.0, np.nan, 3.0, np.inf]))
    assert (state.count, state.mean, state.minimum, state.maximum) == (2, 2.0, 1.0, 3.0)
    assert band_state(np.array([np.nan])) == BandState()


def test_nothing_has_no_mean_and_changes_nothing() -> None:
    state = band_state(np.array([4, 5], np.uint8))
    assert BandState() + state == state
    assert math.isnan(BandState().mean)
    assert math.isnan(BandState().std)


@given(FLOATS)
@settings(max_examples=40)
def test_json_holds_a_state_exactly(values: np.ndarray) -> None:
    state = band_state(values)
    assert BandState.from_json(json.loads(json.dumps(state.to_json()))) == state


def test_json_holds_an_empty_state() -> None:
    assert BandState.from_json(json.loads(json.dumps(BandState().to_json()))) == BandState()
    assert Summary.from_json(json.loads(json.dumps(Summary().to_json()))) == Summary()


def test_stored_moments_merge_with_the_term_between_the_means() -> None:
    one, two = np.arange(10.0), np.arange(100.0, 130.0)
    states = [
        BandState.from_moments(len(v), v.min(), v.max(), v.mean(), ((v - v.mean()) ** 2).sum())
        for v in (one, two)
    ]
    whole = np.concatenate([one, two])
    assert (states[0] + states[1]).std == pytest.approx(whole.std(), rel=1e-14)


def test_summaries_add_up() -> None:
    both = Summary.of([1.5, 2.5]) + Summary.of([]) + Summary.of([10])
    assert (both.count, both.minimum, both.maximum, both.mean) == (3, 1.5, 10.0, 14 / 3)
    assert Summary.from_json(json.loads(json.dumps(both.to_json()))) == both
