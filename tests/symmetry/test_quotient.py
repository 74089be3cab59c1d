"""Laws of the quotient, on randomly built networks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pyro_bnn.errors import UserError
from pyro_bnn.symmetry import Quotient, discover
from pyro_bnn.symmetry.computation import computation
from pyro_bnn.trace import open_trace, site_dataset

ACTIVATIONS = [nn.ReLU, nn.Tanh, nn.SiLU, nn.LeakyReLU, nn.Softsign, nn.Identity]
DRAWS = 20


@st.composite
def networks(draw):
    widths = draw(st.lists(st.integers(1, 6), min_size=2, max_size=5))
    layers = []
    for m, n in itertools.pairwise(widths):
        layers += [nn.Linear(m, n, bias=draw(st.booleans())), draw(st.sampled_from(ACTIVATIONS))()]
    return nn.Sequential(*layers[:-1]), torch.zeros(3, widths[0])


def draws_of(net, n=DRAWS, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(n, *p.shape, generator=generator, dtype=torch.float64).to(dtype)
        for name, p in net.named_parameters()
    }


def outputs(net, x, draws):
    read = computation(net, x)
    count = next(iter(draws.values())).shape[0]
    return torch.stack([read({k: v[s] for k, v in draws.items()}) for s in range(count)])


def close(a, b, tolerance=1e-10):
    return all(
        torch.allclose(a[k], b[k], rtol=tolerance, atol=tolerance, equal_nan=True) for k in a
    )


@settings(max_examples=30, deadline=None)
@given(networks(), st.integers(0, 2**31))
def test_laws(network, seed):
    net, x = network
    group = discover(net, x)
    theta = draws_of(net, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    g, h = (group.sample(generator, batch=DRAWS) for _ in range(2))
    moved = g.apply(theta)
    before, after = outputs(net, x, theta), outputs(net, x, moved)
    assert torch.allclose(before, after, rtol=1e-10, atol=1e-10 * float(before.abs().max()))
    assert close((h @ g).apply(theta), h.apply(moved))
    assert close(g.inverse().apply(moved), theta)
    assert torch.allclose((g.inverse() @ g).log_abs_det, torch.zeros(DRAWS).double(), atol=1e-10)

    quotient = Quotient(group)
    canonical, element = quotient.canonicalize(theta)
    assert close(element.apply(theta), canonical)
    assert close(element.inverse().apply(canonical), theta)
    again, _ = quotient.canonicalize(canonical)
    assert close(again, canonical, 1e-8)


@settings(max_examples=30, deadline=None)
@given(networks(), st.integers(0, 2**31), st.sampled_from(["first", "max", "mean", "norm"]))
def test_canonical_point_does_not_depend_on_the_start(network, seed, rule):
    net, x = network
    group = discover(net, x)
    theta = draws_of(net, seed=seed)
    g = group.sample(torch.Generator().manual_seed(seed), batch=DRAWS)
    quotient = Quotient(group, rule=rule)
    a, _ = quotient.canonicalize(theta)
    b, _ = quotient.canonicalize(g.apply(theta))
    assert close(a, b, 1e-8)


def study_net(act):
    return nn.Sequential(nn.Linear(64, 50), act(), nn.Linear(50, 50), act(), nn.Linear(50, 10))


@pytest.mark.parametrize("act", [nn.ReLU, nn.Tanh])
def test_every_one_of_a_thousand_draws_has_one_canonical_point(act):
    net = study_net(act)
    group = discover(net, torch.zeros(2, 64))
    theta = draws_of(net, n=1000)
    g = group.sample(torch.Generator().manual_seed(1), batch=1000)
    quotient = Quotient(group)
    a, b = quotient.canonicalize(theta)[0], quotient.canonicalize(g.apply(theta))[0]
    assert close(a, b, 1e-8)
    assert close(quotient.canonicalize(a)[0], a, 1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("act", [nn.ReLU, nn.Tanh])
def test_alignment_gives_a_thousand_draws_one_canonical_point_each(act):
    net = study_net(act)
    group = discover(net, torch.zeros(2, 64))
    theta = draws_of(net, n=1000)
    g = group.sample(torch.Generator().manual_seed(1), batch=1000)
    reference = {site: value[0] for site, value in draws_of(net, n=1, seed=2).items()}
    quotient = Quotient(group, permutation="align", reference=reference)
    a, b = quotient.canonicalize(theta)[0], quotient.canonicalize(g.apply(theta))[0]
    same = [torch.isclose(a[s], b[s], rtol=1e-8, atol=1e-8).flatten(1).all(-1) for s in a]
    assert bool(torch.stack(same).all())


def relu_net():
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))


def test_first_rule_sorts_by_the_first_incoming_weight():
    net = relu_net()
    quotient = Quotient(discover(net, torch.zeros(3, 4)), sign=False)
    canonical, _ = quotient.canonicalize(draws_of(net))
    key = canonical["0.weight"][:, :, 0]
    assert (key[:, 1:] <= key[:, :-1]).all()


def test_ties_are_broken_by_the_other_weights():
    net = nn.Sequential(nn.Linear(3, 6), nn.SiLU(), nn.Linear(6, 2))
    theta = draws_of(net)
    theta["0.weight"][:, :, :2] = theta["0.weight"][:, :, :2].round()
    theta["0.weight"][:, 3] = theta["0.weight"][:, 2]
    group = discover(net, torch.zeros(3, 3))
    g = group.sample(torch.Generator().manual_seed(0), batch=DRAWS)
    quotient = Quotient(group)
    assert close(quotient.canonicalize(theta)[0], quotient.canonicalize(g.apply(theta))[0], 0.0)


def test_nan_draws_stay_and_are_counted():
    net = relu_net()
    theta = draws_of(net)
    theta["2.bias"][3, 1] = torch.nan
    theta["0.weight"][5, 1, 1] = torch.inf
    result = Quotient(discover(net, torch.zeros(3, 4))).reduce(theta)
    assert result.nan.nonzero().flatten().tolist() == [3, 5]
    for k in (3, 5):
        assert close(
            {n: t[k] for n, t in result.params.items()}, {n: t[k] for n, t in theta.items()}
        )


def test_no_draws_are_no_draws():
    group = discover(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), torch.zeros(2, 4))
    none = {site: torch.zeros(0, *shape) for site, shape in group.shapes.items()}
    canonical, element = Quotient(group).canonicalize(none)
    assert {site: tuple(v.shape) for site, v in canonical.items()} == {
        site: (0, *shape) for site, shape in group.shapes.items()
    }
    assert element.batch == 0


def test_draws_may_lie_in_memory_with_channels_last():
    # the grouped layer is scaled block by block
    net = nn.Sequential(
        nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 9, 2, groups=3), nn.ReLU(), nn.Conv2d(9, 2, 1)
    )
    theta = draws_of(net)
    group = discover(net, torch.zeros(1, 3, 4, 4))
    strided = {
        s: v.movedim(2, -1).contiguous().movedim(-1, 2) if v.ndim > 3 else v
        for s, v in theta.items()
    }
    assert not strided["2.weight"].is_contiguous()
    assert close(Quotient(group).canonicalize(strided)[0], Quotient(group).canonicalize(theta)[0])


def test_half_precision_draws_keep_their_function():
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    theta = draws_of(net, dtype=torch.float16)
    quotient = Quotient(discover(net, torch.zeros(3, 4)))
    canonical, element = quotient.canonicalize(theta)
    restored = element.inverse().apply(canonical)
    assert all(torch.equal(restored[name], theta[name]) for name in theta)


def test_identity_where_there_is_no_symmetry():
    net = nn.Linear(3, 2)
    theta = draws_of(net)
    canonical, _ = Quotient(discover(net, torch.zeros(4, 3))).canonicalize(theta)
    assert close(canonical, theta, 0.0)


@pytest.fixture
def trace(tmp_path):
    net = relu_net()
    group = discover(net, torch.zeros(3, 4))
    draws = {k: v.float().reshape(2, 10, *v.shape[1:]) for k, v in draws_of(net).items()}
    data = site_dataset({**draws, "other": torch.zeros(2, 10, 3)}, group.dims)
    path = tmp_path / "trace.nc"
    xr.DataTree.from_dict({"posterior": data}).to_netcdf(path)
    return net, group, path


def test_quotient_of_a_tree_and_of_a_file_agree(trace):
    _, group, path = trace
    quotient = Quotient(group)
    assert quotient.apply(path) == path
    with open_trace(path) as opened:
        on_disk = opened.load()
    in_memory = quotient.apply(on_disk)
    for name in ("canonical_posterior", "symmetry"):
        xr.testing.assert_equal(on_disk[name].to_dataset(), in_memory[name].to_dataset())
    posterior = on_disk["posterior"].to_dataset()
    restored = quotient.restore(on_disk)
    for name in posterior:
        np.testing.assert_allclose(restored[name], posterior[name], rtol=1e-5, atol=1e-6)
    assert on_disk["canonical_posterior"]["2.weight"].dims == ("chain", "draw", "h1", "h0")
    assert on_disk["symmetry"]["h0"].dims == ("chain", "draw", "h0_unit")


def test_traces_that_do_not_fit_are_refused(trace):
    _, group, path = trace
    with open_trace(path) as opened:
        tree = opened.load()
    short = xr.DataTree.from_dict({"posterior": tree["posterior"].to_dataset().drop_vars("0.bias")})
    with pytest.raises(UserError, match=r"0\.bias"):
        Quotient(group).apply(short)
    other = discover(nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 5)), torch.zeros(3, 4))
    with pytest.raises(UserError, match=r"0\.weight"):
        Quotient(other).apply(tree)
    with pytest.raises(UserError, match="posterior"):
        Quotient(group).apply(xr.DataTree())
    with pytest.raises(UserError, match="symmetry"):
        Quotient(group).restore(xr.DataTree.from_dict({"canonical_posterior": xr.Dataset()}))


def test_absent_running_statistics_are_named():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    quotient = Quotient(discover(net, torch.zeros(5, 3)))
    theta = {**draws_of(net), "1.running_mean": torch.zeros(DRAWS, 4)}
    with pytest.raises(UserError, match=r"running statistics.*state_dict\(\).*training") as caught:
        quotient.canonicalize(theta)
    assert "'1.running_var'" in str(caught.value)
    assert "'1.running_mean'" not in str(caught.value)
    with pytest.raises(UserError, match=r"'0\.bias'.*another model"):
        quotient.canonicalize({s: v for s, v in theta.items() if s != "0.bias"})


class Backwards(nn.Module):
    """Layers that are registered from the last to the first."""

    def __init__(self):
        super().__init__()
        self.last, self.middle, self.first = nn.Linear(5, 2), nn.Linear(7, 5), nn.Linear(3, 7)

    def forward(self, x):
        return self.last(torch.tanh(self.middle(torch.tanh(self.first(x)))))


def test_the_largest_incoming_weight_is_positive_whatever_the_order_of_registration():
    net = Backwards()
    canonical, _ = Quotient(discover(net, torch.zeros(3, 3))).canonicalize(draws_of(net))
    for layer in ("first", "middle"):
        weight = canonical[f"{layer}.weight"]
        assert (weight.amax(-1) >= -weight.amin(-1)).all()


def test_units_without_incoming_weights_are_flipped_by_their_bias():
    net = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2))
    theta = draws_of(net)
    theta["0.weight"][:, 2:4] = 0.0
    group = discover(net, torch.zeros(3, 3))
    g = group.sample(torch.Generator().manual_seed(0), batch=DRAWS)
    quotient = Quotient(group)
    canonical, _ = quotient.canonicalize(theta)
    assert close(canonical, quotient.canonicalize(g.apply(theta))[0], 0.0)
    without = (canonical["0.weight"] == 0).all(-1)
    assert int(without.sum()) == 2 * DRAWS
    assert (canonical["0.bias"][without] > 0).all()


def test_options_are_checked():
    net = relu_net()
    group = discover(net, torch.zeros(3, 4))
    with pytest.raises(UserError, match="permutation"):
        Quotient(group, permutation="shuffle")
    with pytest.raises(UserError, match=r"precision names '0\.wieght'"):
        Quotient(group, precision={"0.wieght": 4.0})
    draws = draws_of(net)
    with pytest.raises(UserError, match=r"reference lacks site '0\.bias'"):
        Quotient(group, permutation="align", reference={"0.weight": draws["0.weight"][0]})
    with pytest.raises(UserError, match="without a draw axis"):
        Quotient(group, permutation="align", reference={s: v[:1] for s, v in draws.items()})
