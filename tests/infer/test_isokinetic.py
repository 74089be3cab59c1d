"""Laws of isokinetic motion: its integrator, its refreshment and its invariant measure."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.func import jacrev

from pyro_bnn.infer.kernels.hamiltonian import metric_from_variance
from pyro_bnn.infer.kernels.isokinetic import (
    draw_direction,
    isokinetic_step,
    kick,
    partial_refresh,
)

DIM = 4


class Quartic:
    """An anharmonic, asymmetric potential, written so that it can be differentiated through."""

    def value_and_grad(self, position):
        value = (0.25 * position**4 + 0.3 * position**3 + position.cos()).sum(-1)
        return value, position**3 + 0.9 * position**2 - position.sin()


def roots():
    matrix = torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(4)).double()
    covariance = matrix @ matrix.mT + torch.eye(DIM).double()
    return {
        "diagonal": metric_from_variance(torch.tensor([0.5, 1.0, 3.0, 1.5]).double()),
        "dense": metric_from_variance(covariance),
    }


@pytest.fixture(params=roots())
def root(request):
    return roots()[request.param].unwhitening()


@pytest.fixture
def phase():
    generator = torch.Generator().manual_seed(0)
    position = torch.randn(5, DIM, generator=generator, dtype=torch.float64)
    return position, draw_direction(position, generator)


def trajectory(position, direction, root, step_size, steps):
    density = Quartic()
    potential, gradient = density.value_and_grad(position)
    error = -potential
    errors = []
    for _ in range(steps):
        position, direction, potential, gradient, kinetic = isokinetic_step(
            position, direction, gradient, density, torch.tensor(step_size).double(), root
        )
        error = error + kinetic
        errors.append(error + potential)
    return position, direction, torch.stack(errors)


def test_a_root_makes_the_covariance():
    for metric in roots().values():
        root, inverse = metric.unwhitening(), metric.inverse
        found = root**2 if root.ndim == 1 else root @ root.mT
        torch.testing.assert_close(found, inverse)
        # Whitening undoes it.
        white = torch.randn(3, DIM, generator=torch.Generator().manual_seed(1)).double()
        spread = white * root if root.ndim == 1 else white @ root.mT
        torch.testing.assert_close(metric.whiten(spread), white)


def test_a_kick_is_the_flow_of_its_equation(phase):
    """du/dt = -(1 - u u^T) g / (dim - 1), solved in small steps of a method of its own."""
    _, direction = phase
    gradient = 3 * torch.randn(5, DIM, generator=torch.Generator().manual_seed(2)).double()
    turned, kinetic = kick(direction, gradient, torch.tensor(0.7).double())

    def slope(u):
        return (u * (u * gradient).sum(1, keepdim=True) - gradient) / (DIM - 1)

    u, gained, step = direction, torch.zeros(5).double(), 0.7 / 1000
    for _ in range(1000):
        middle = u + 0.5 * step * slope(u)
        gained = gained - step * (middle * gradient).sum(1)
        u = u + step * slope(middle)
    torch.testing.assert_close(turned, u, rtol=0, atol=1e-5)
    torch.testing.assert_close(kinetic, gained, rtol=0, atol=1e-5)
    torch.testing.assert_close(turned.norm(dim=1), torch.ones(5).double(), rtol=0, atol=1e-14)


def test_a_kick_far_beyond_overflow_points_downhill(phase):
    _, direction = phase
    gradient = torch.ones(5, DIM).double()
    turned, kinetic = kick(direction, 1e9 * gradient, torch.tensor(1.0).double())
    torch.testing.assert_close(turned, -gradient / DIM**0.5)
    assert bool(kinetic.isfinite().all())
    still, unchanged = kick(direction, 0 * gradient, torch.tensor(1.0).double())
    torch.testing.assert_close(still, direction)
    torch.testing.assert_close(unchanged, torch.zeros(5).double(), rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("time", [0.1, 3.0, 30.0, 300.0])
def test_a_kick_against_an_uphill_direction_keeps_its_digits(time, dtype):
    """In two dimensions the tangent of half the angle to the gradient grows by exp(time)."""
    angle = torch.tensor([0.0, 1e-5, -1e-3, 0.1]).double()
    direction = torch.stack([angle.cos(), angle.sin()], 1)
    gradient = torch.tensor([[1.0, 0.0]]).double().expand(4, 2)
    given = direction, gradient, torch.tensor(time, dtype=torch.float64)
    turned, kinetic = kick(*(tensor.to(dtype) for tensor in given))
    half = angle / 2
    tangent = half.tan() * math.exp(time)
    expected = 2 * torch.atan(tangent)
    energy = time + 2 * half.sin().abs().log() + torch.log1p(tangent**-2)
    energy = torch.where(angle == 0, -time, energy)
    tolerance = 1e-3 if dtype == torch.float32 else 1e-9
    wanted = torch.stack([expected.cos(), expected.sin()], 1)
    torch.testing.assert_close(turned.double(), wanted, rtol=0, atol=tolerance)
    torch.testing.assert_close(kinetic.double(), energy, rtol=tolerance, atol=tolerance)


def test_reversible(phase, root):
    position, direction, errors = trajectory(*phase, root, 0.1, 30)
    assert float((position - phase[0]).abs().max()) > 0.5
    back, flipped, returned = trajectory(position, -direction, root, 0.1, 30)
    torch.testing.assert_close(back, phase[0], rtol=0, atol=1e-10)
    torch.testing.assert_close(flipped, -phase[1], rtol=0, atol=1e-10)
    torch.testing.assert_close(returned[-1], -errors[-1], rtol=0, atol=1e-10)


def test_the_kinetic_energy_keeps_the_books_of_volume(phase, root):
    """On positions times the sphere, the step's Jacobian is exp(-kinetic)."""
    density = Quartic()

    def tangent(direction):
        """Orthonormal vectors ``(dim, dim - 1)`` across a direction."""
        return torch.linalg.svd(direction[None], full_matrices=True).Vh[1:].mT

    def flow(flat):
        position, direction = flat[:DIM][None], flat[DIM:][None]
        direction = direction / direction.norm()
        _, gradient = density.value_and_grad(position)
        moved = isokinetic_step(
            position, direction, gradient, density, torch.tensor(0.3).double(), root
        )
        return torch.cat([moved[0][0], moved[1][0]]), moved[4][0]

    for position, direction in zip(*phase, strict=True):
        start = torch.cat([position, direction])
        end, kinetic = flow(start)
        jacobian = jacrev(lambda flat: flow(flat)[0])(start)
        into = torch.block_diag(torch.eye(DIM).double(), tangent(direction))
        out = torch.block_diag(torch.eye(DIM).double(), tangent(end[DIM:]))
        volume = torch.linalg.det(out.mT @ jacobian @ into).abs()
        assert abs(float(kinetic)) > 1e-3
        assert float(volume.log()) == pytest.approx(-float(kinetic), abs=1e-11)


def test_energy_error_falls_with_the_square_of_the_step(phase, root):
    errors = []
    for halvings in range(3):
        _, _, found = trajectory(*phase, root, 0.02 / 2**halvings, 50 * 2**halvings)
        errors.append(found.abs().amax(0))
    for coarse, fine in itertools.pairwise(errors):
        ratio = coarse / fine
        assert bool(((ratio > 3.6) & (ratio < 4.4)).all()), ratio


def test_refreshment_forgets_at_its_rate():
    """The correlation with where a direction began falls by exp(-1) in one decoherence length."""
    many = torch.zeros(4000, 50).double()
    generator = torch.Generator().manual_seed(0)
    first = draw_direction(many, generator)
    direction = first
    for _ in range(20):
        direction = partial_refresh(direction, torch.tensor(1 / 20).double(), generator)
    kept = (first * direction).sum(1)
    # Refreshing leaves |u + nu z| at its mean up to terms of order 1 / dim.
    assert float(kept.mean()) == pytest.approx(2.718281828**-1, abs=0.02)
    torch.testing.assert_close(direction.norm(dim=1), torch.ones(4000).double())
    # Directions stay uniform: mean zero, each coordinate with variance 1 / dim.
    assert float(direction.mean(0).abs().max()) < 5 * (1 / 50 / 4000) ** 0.5
    assert float((50 * direction.var(0) - 1).abs().max()) < 5 * (2 / 4000) ** 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_refreshment_after_many_lengths_forgets_everything(dtype):
    first = draw_direction(torch.zeros(4000, 5, dtype=dtype), torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    direction = partial_refresh(first, torch.tensor(500.0, dtype=dtype), generator)
    torch.testing.assert_close(direction.norm(dim=1), torch.ones(4000, dtype=dtype))
    # The cosine of two uniform directions has the variance 1 / dim.
    assert abs(float((first * direction).sum(1).mean())) < 5 * (1 / 5 / 4000) ** 0.5
