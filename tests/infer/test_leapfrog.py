"""Laws of the leapfrog integrator."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.func import jacrev

from pyro_bnn.infer.kernels.hamiltonian import leapfrog, metric_from_variance, unit_metric

DIM = 3


class Quartic:
    """An anharmonic, asymmetric potential, written so that it can be differentiated through."""

    def value_and_grad(self, position):
        value = (0.25 * position**4 + 0.3 * position**3 + position.cos()).sum(-1)
        coupled = value + position[..., 0] * position[..., 1] * position[..., 2]
        others = position.prod(-1, keepdim=True) / position
        return coupled, position**3 + 0.9 * position**2 - position.sin() + others


def metrics():
    matrix = torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(4)).double()
    return {
        "unit": unit_metric(torch.zeros(1, DIM).double(), dense=False),
        "diagonal": metric_from_variance(torch.tensor([0.5, 1.0, 3.0]).double()),
        "dense": metric_from_variance(matrix @ matrix.mT + torch.eye(DIM).double()),
    }


@pytest.fixture(params=metrics())
def metric(request):
    return metrics()[request.param]


@pytest.fixture
def phase():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 5, DIM, generator=generator, dtype=torch.float64)


def trajectory(phase, metric, step_size, steps):
    position, momentum = phase
    density = Quartic()
    _, gradient = density.value_and_grad(position)
    step_size = torch.tensor(step_size, dtype=torch.float64)
    energies = []
    for _ in range(steps):
        position, momentum, potential, gradient = leapfrog(
            position, momentum, gradient, density, step_size, metric
        )
        energies.append(potential + metric.kinetic_energy(momentum))
    return torch.stack([position, momentum]), torch.stack(energies)


def energy(phase, metric):
    return Quartic().value_and_grad(phase[0])[0] + metric.kinetic_energy(phase[1])


def test_gradient_of_the_test_density_is_right(phase):
    expected = jacrev(lambda q: Quartic().value_and_grad(q)[0].sum())(phase[0])
    torch.testing.assert_close(Quartic().value_and_grad(phase[0])[1], expected)


def test_reversible(phase, metric):
    there, _ = trajectory(phase, metric, 0.05, 40)
    assert float((there - phase).abs().max()) > 0.5
    flipped = there * torch.tensor([1.0, -1.0]).double()[:, None, None]
    back, _ = trajectory(flipped, metric, 0.05, 40)
    expected = phase * torch.tensor([1.0, -1.0]).double()[:, None, None]
    torch.testing.assert_close(back, expected, rtol=0, atol=1e-11)
    # Equally, a negative step size runs time back: NUTS grows its trees to the left by it.
    back, _ = trajectory(there, metric, -0.05, 40)
    torch.testing.assert_close(back, phase, rtol=0, atol=1e-11)


def test_volume_preserving(phase, metric):
    def flow(flat):
        end, _ = trajectory(flat.reshape(2, 1, DIM), metric, 0.1, 10)
        return end.flatten()

    for chain in range(phase.shape[1]):
        jacobian = jacrev(flow)(phase[:, chain].flatten())
        # It stretches; only the volume stays.
        assert float((jacobian - torch.eye(2 * DIM)).abs().max()) > 0.1
        assert float(torch.linalg.det(jacobian)) == pytest.approx(1.0, abs=1e-11)


def test_energy_error_falls_with_the_square_of_the_step(phase, metric):
    start = energy(phase, metric)
    errors = []
    for halvings in range(3):
        step_size = 0.02 / 2**halvings
        _, energies = trajectory(phase, metric, step_size, 50 * 2**halvings)
        errors.append((energies - start).abs().amax(0))
    for coarse, fine in itertools.pairwise(errors):
        ratio = coarse / fine
        assert bool(((ratio > 3.6) & (ratio < 4.4)).all()), ratio


def test_chains_do_not_touch_each_other(phase, metric):
    together, _ = trajectory(phase, metric, 0.1, 5)
    for chain in range(phase.shape[1]):
        alone, _ = trajectory(phase[:, chain : chain + 1], metric, 0.1, 5)
        torch.testing.assert_close(alone, together[:, chain : chain + 1], rtol=1e-13, atol=1e-13)


def test_momenta_have_the_mass_matrix_as_covariance(metric):
    like = torch.zeros(200_000, DIM, dtype=torch.float64)
    momentum = metric.draw_momentum(like, torch.Generator().manual_seed(1))
    inverse = metric.inverse if metric.inverse.ndim == 2 else metric.inverse.diag()
    mass = torch.linalg.inv(inverse)
    found = momentum.mT @ momentum / len(momentum)
    # Five standard errors of each entry of a covariance.
    error = ((mass**2 + mass.diag()[:, None] * mass.diag()) / len(momentum)).sqrt()
    assert bool(((found - mass).abs() < 5 * error).all())
    # The mean kinetic energy of d momenta is d / 2.
    kinetic = metric.kinetic_energy(momentum)
    assert abs(float(kinetic.mean()) - DIM / 2) < 5 * float(kinetic.std()) / len(momentum) ** 0.5
