import pytest
import torch

from geodl.base.errors import OptionError
from geodl.train.optim import (
    group_rates,
    make_optimizer,
    make_schedule,
    named_state,
    parameter_groups,
    restore_state,
)


def test_a_number_is_the_rate_of_all_groups():
    assert group_rates(0.1, 3) == (0.1, 0.1, 0.1)


def test_a_slice_spreads_rates_evenly_in_the_logarithm():
    assert group_rates(slice(1e-5, 1e-3), 3) == pytest.approx((1e-5, 1e-4, 1e-3))
    assert group_rates(slice(1e-5, 1e-3), 1) == (1e-3,)


def test_a_slice_with_an_end_only_gives_earlier_groups_a_tenth():
    assert group_rates(slice(0.01), 3) == pytest.approx((0.001, 0.001, 0.01))


@pytest.mark.parametrize("lr", [0, -1.0, "fast", slice(None), slice(0, 1), slice(1, 2, 3), [1, 2]])
def test_rates_that_are_none_are_refused(lr):
    with pytest.raises(OptionError, match="lr"):
        group_rates(lr, 2)


def test_biases_and_normalisation_do_not_decay(net):
    groups = parameter_groups(net, (0.1, 0.2))
    assert [g["lr"] for g in groups] == [0.1, 0.1, 0.2, 0.2]
    assert [g["weight_decay"] > 0 for g in groups] == [True, False, True, False]
    assert all(p.ndim > 1 for g in groups if g["weight_decay"] for p in g["params"])
    assert sum(len(g["params"]) for g in groups) == len(list(net.parameters()))


def test_frozen_parameters_are_left_out(net):
    net.backbone.requires_grad_(False)
    assert {g["lr"] for g in parameter_groups(net, (0.1, 0.2))} == {0.2}
    net.requires_grad_(False)
    with pytest.raises(OptionError, match="unfreeze"):
        parameter_groups(net, (0.1, 0.2))


def test_one_cycle_rises_to_the_rates_and_falls(net):
    optimizer = make_optimizer(net, (0.01, 0.1))
    schedule = make_schedule(optimizer, 20, one_cycle=True)
    seen = []
    for _ in range(20):
        seen.append([g["lr"] for g in optimizer.param_groups])
        optimizer.step()
        schedule.step() if len(seen) < 20 else None
    last = [rates[-1] for rates in seen]
    assert max(last) == pytest.approx(0.1)
    assert max(r[0] for r in seen) == pytest.approx(0.01)
    assert last[0] == pytest.approx(0.1 / 25)
    assert last[-1] < 1e-4
    assert make_schedule(optimizer, 20, one_cycle=False) is None


def test_moments_go_on_by_name_where_they_fit(net):
    optimizer = make_optimizer(net, (0.1, 0.1))
    net(torch.randn(2, 1, 8, 8)).sum().backward()
    optimizer.step()
    state = named_state(net, optimizer)
    assert set(state) == {name for name, _ in net.named_parameters()}
    state["head.weight"] = {"exp_avg": torch.zeros(3, 3)}
    net.backbone[0].requires_grad_(False)
    again = make_optimizer(net, (0.1, 0.1))
    restore_state(net, again, state)
    kept = named_state(net, again)
    assert set(kept) == {"backbone.1.weight", "backbone.1.bias", "head.bias"}
    assert torch.equal(kept["head.bias"]["exp_avg"], state["head.bias"]["exp_avg"])
    net(torch.randn(2, 1, 8, 8)).sum().backward()
    again.step()
    assert kept["head.bias"]["step"] == 2
