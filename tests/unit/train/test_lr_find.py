import numpy as np
import pytest
import torch

from geodl.base.errors import TrainingError
from geodl.train.lr_find import FALLBACK_RATE, draw_sweep, find_rate, suggest


def test_the_model_and_the_random_state_stay_as_they_were(net, task, batches):
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    find_rate(net, task, batches, seed=0)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in net.parameters())


def test_the_suggestion_trains(net, task, batches):
    sweep = find_rate(net, task, batches, seed=0)
    assert 3e-5 <= sweep.suggested <= 3e-2
    low, high = sweep.rates[0], sweep.rates[-1]
    assert low < sweep.suggested < high
    assert list(sweep.rates) == sorted(sweep.rates)
    assert min(sweep.losses) < sweep.losses[0]


def test_same_seed_same_suggestion(net, task, batches):
    assert find_rate(net, task, batches, 3) == find_rate(net, task, batches, 3)


def test_the_middle_of_the_longest_descent_is_suggested():
    rates = list(np.geomspace(1e-6, 1, 61))
    exponents = np.log10(rates)
    # Falls from 1e-5 to 1e-2 with a bump, then rises.
    losses = np.where(exponents < -2, -exponents, 2 + 3 * (exponents + 2))
    losses[:11] = 5
    losses[30] += 0.5
    assert suggest(rates, list(losses)) == pytest.approx(10**-3.5, rel=0.3)


def test_without_a_descent_a_moderate_rate_is_suggested():
    assert suggest([1e-4, 1e-3, 1e-2], [1.0, 2.0, 3.0]) == FALLBACK_RATE


def test_a_loss_that_is_never_finite_names_the_chips(net, task, batches):
    batches[0]["image"][:] = torch.nan
    with pytest.raises(TrainingError, match="chip0_0"):
        find_rate(net, task, batches, seed=0)


def test_the_figure_marks_the_suggestion(net, task, batches):
    sweep = find_rate(net, task, batches, seed=0)
    axes = draw_sweep(sweep).axes[0]
    assert axes.get_xscale() == "log"
    assert axes.lines[1].get_xdata()[0] == sweep.suggested
