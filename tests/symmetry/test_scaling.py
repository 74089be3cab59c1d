"""Minimum mass: closed forms, an independent optimiser, convergence and degenerate units."""

from __future__ import annotations

import itertools

import pytest
import torch
from scipy.optimize import minimize
from torch import nn

from pyro_bnn.symmetry import Quotient, discover
from pyro_bnn.symmetry.balance import balance, coarse_step, sweep
from pyro_bnn.symmetry.mass_graph import total_mass
from pyro_bnn.symmetry.scaling import edges_of, min_mass


def mlp(*widths, bias=True):
    layers = []
    for m, n in itertools.pairwise(widths):
        layers += [nn.Linear(m, n, bias=bias), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def draws_of(net, n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(n, *p.shape, generator=generator, dtype=torch.float64)
        for name, p in net.named_parameters()
    }


def mass(params):
    return sum(v.flatten(1).square().sum(-1) for v in params.values())


def test_two_layers_have_a_closed_form():
    net = mlp(5, 7, 3)
    theta = draws_of(net, 11)
    canonical, g = Quotient(discover(net, torch.zeros(2, 5)), permutation=None).canonicalize(theta)
    inward = (theta["0.weight"].square().sum(-1) + theta["0.bias"].square()).sqrt()
    outward = theta["2.weight"].norm(dim=1)
    expected = 0.5 * (outward / inward).log()
    assert torch.allclose(g.log_scales["scale of h0"], expected, rtol=1e-12, atol=1e-12)
    least = 2 * (inward * outward).sum(-1) + theta["2.bias"].square().sum(-1)
    assert torch.allclose(mass(canonical), least, rtol=1e-12)


@pytest.mark.parametrize("widths", [(4, 6, 5, 3), (3, 5, 4, 6, 5, 2)])
def test_minimum_agrees_with_lbfgs(widths):
    net = mlp(*widths)
    group = discover(net, torch.zeros(2, widths[0]))
    theta = draws_of(net, 3)
    edges = edges_of(group, theta, None, True)
    sizes = [f.size for f in group.families.values()]
    found = balance(edges, sizes)
    assert float(found.residual.max()) <= 1e-12
    for draw in range(3):
        one = [edge.take(slice(draw, draw + 1)) for edge in edges]

        def objective(flat, one=one):
            u = torch.tensor(flat).requires_grad_()
            value = total_mass(one, [part[None] for part in u.split(sizes)]).sum()
            value.backward()
            return value.item(), u.grad.numpy()

        reference = minimize(
            objective,
            torch.zeros(sum(sizes)).double().numpy(),
            jac=True,
            method="L-BFGS-B",
            options={"ftol": 1e-15, "gtol": 1e-10},
        )
        ours = float(total_mass(one, [u[draw : draw + 1] for u in found.log_scales]))
        assert ours <= reference.fun * (1 + 1e-9)


def test_sweeps_do_not_grow_with_depth():
    sweeps = {}
    for depth in (3, 33):
        net = mlp(*[16] * (depth + 1), bias=False)
        group = discover(net, torch.zeros(2, 16))
        edges = edges_of(group, draws_of(net, 4), None, True)
        sizes = [f.size for f in group.families.values()]
        found = balance(edges, sizes, tolerance=1e-8)
        assert float(found.residual.max()) <= 1e-8
        sweeps[depth] = found.sweeps
    assert sweeps[33] < 2 * sweeps[3]


def test_neither_step_raises_the_mass():
    net = mlp(4, 6, 5, 7, 3)
    group = discover(net, torch.zeros(2, 4))
    edges = edges_of(group, draws_of(net, 5), None, True)
    v = [torch.ones(5, f.size, dtype=torch.float64) for f in group.families.values()]
    before = total_mass(edges, [square.log() / 2 for square in v])
    for _ in range(3):
        _, weight = sweep(edges, v)
        middle = total_mass(edges, [square.log() / 2 for square in v])
        assert torch.allclose(weight.sum(-1), middle, rtol=1e-13)
        coarse_step(edges, v, weight)
        after = total_mass(edges, [square.log() / 2 for square in v])
        assert (middle <= before * (1 + 1e-14)).all()
        assert (after <= middle * (1 + 1e-14)).all()
        before = after


def test_precisions_make_it_the_most_probable_point():
    net = mlp(4, 6, 3)
    group = discover(net, torch.zeros(2, 4))
    theta = draws_of(net, 4)
    precision = {"0.weight": 3.0, "0.bias": 0.5, "2.weight": 7.0}
    found = min_mass(group, theta, precision=precision)
    best = found.element.apply(theta)

    def weighted(params):
        return sum(precision.get(k, 1.0) * v.flatten(1).square().sum(-1) for k, v in params.items())

    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        other = group.sample(generator, 4, spread=0.1).apply(best)
        assert (weighted(other) > weighted(best)).all()


@pytest.mark.parametrize("side", ["0", "2", "both"])
def test_dead_units_are_scaled_to_unit_mass_and_counted(side):
    net = mlp(4, 6, 5, 3)
    group = discover(net, torch.zeros(2, 4))
    theta = draws_of(net, 4)
    if side in ("0", "both"):
        theta["0.weight"][:, 2] = 0
        theta["0.bias"][:, 2] = 0
    if side in ("2", "both"):
        theta["2.weight"][:, :, 2] = 0
    quotient = Quotient(group)
    result = quotient.reduce(theta)
    assert result.degenerate.tolist() == [1.0] * 4
    assert all(torch.isfinite(v).all() for v in result.params.values())
    g = group.sample(torch.Generator().manual_seed(0), 4)
    again, _ = quotient.canonicalize(g.apply(theta))
    for name, value in result.params.items():
        assert torch.allclose(again[name], value, rtol=1e-8, atol=1e-8)


def test_unit_norm_scales_incoming_weights_to_one():
    net = mlp(4, 6, 5, 3)
    group = discover(net, torch.zeros(2, 4))
    canonical, _ = Quotient(group, scaling="unit-norm").canonicalize(draws_of(net, 4))
    for layer in ("0", "2"):
        squares = canonical[f"{layer}.weight"].square().sum(-1)
        squares = squares + canonical[f"{layer}.bias"].square()
        assert torch.allclose(squares, torch.ones_like(squares))


class Stream(nn.Module):
    """A branch adds to the units that it reads."""

    def __init__(self):
        super().__init__()
        self.enter, self.up = nn.Linear(3, 6, bias=False), nn.Linear(6, 4)
        self.down, self.leave = nn.Linear(4, 6, bias=False), nn.Linear(6, 2)

    def forward(self, x):
        h = self.enter(x)
        return self.leave(torch.relu(h + self.down(torch.relu(self.up(torch.relu(h))))))


class Steps(nn.Module):
    """A recurrent layer of rectifiers."""

    def __init__(self):
        super().__init__()
        self.cells, self.leave = nn.RNN(3, 6, nonlinearity="relu", bias=False), nn.Linear(6, 2)

    def forward(self, x):
        return self.leave(self.cells(x)[0][-1])


class Groups(nn.Module):
    """Units within groups, whose space lies over that of the groups before them."""

    def __init__(self):
        super().__init__()
        self.enter = nn.Conv2d(3, 2, 1, bias=False)
        self.up = nn.Conv2d(2, 6, 1, groups=2, bias=False)
        self.leave = nn.Conv2d(6, 2, 1)

    def forward(self, x):
        return self.leave(torch.relu(self.up(torch.relu(self.enter(x)))))


@pytest.mark.parametrize(
    ("net", "x", "inputs"),
    [
        (Stream(), torch.zeros(4, 3), [["enter.weight"], ["up.weight", "up.bias"]]),
        (Steps(), torch.zeros(4, 2, 3), [["cells.weight_ih_l0"]]),
        (Groups(), torch.zeros(2, 3, 4, 4), [["enter.weight"], ["up.weight"]]),
    ],
    ids=["stream", "steps", "groups"],
)
def test_unit_norm_is_one_point_of_an_orbit_where_units_lead_back(net, x, inputs):
    group = discover(net, x)
    theta = draws_of(net, 4)
    quotient = Quotient(group, scaling="unit-norm")
    canonical, _ = quotient.canonicalize(theta)
    for sites in inputs:
        squares = torch.stack(
            [
                canonical[s].square().flatten(2).sum(-1)
                if canonical[s].ndim > 2
                else canonical[s].square()
                for s in sites
            ]
        ).sum(0)
        assert torch.allclose(squares, torch.ones_like(squares))
    moved = group.sample(torch.Generator().manual_seed(0), 4).apply(theta)
    again, _ = quotient.canonicalize(moved)
    for name, value in canonical.items():
        assert torch.allclose(again[name], value, rtol=1e-8, atol=1e-8)


def test_squared_activation_has_exponent_two():
    class Square(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 6), nn.Linear(6, 2)

        def forward(self, x):
            return self.b(torch.relu(self.a(x)) ** 2)

    net = Square()
    group = discover(net, torch.zeros(2, 3))
    exponents = {t.site: t.exponent for t in group.families["scale of h0"].terms}
    assert exponents == {"a.weight": 1, "a.bias": 1, "b.weight": -2}
    theta = draws_of(net, 4)
    quotient = Quotient(group)
    result = quotient.reduce(theta)
    assert float(result.residual.max()) < 1e-12
    g = group.sample(torch.Generator().manual_seed(0), 4)
    again, _ = quotient.canonicalize(g.apply(theta))
    for name, value in result.params.items():
        assert torch.allclose(again[name], value, rtol=1e-8, atol=1e-8)
