"""Canonical R-hat sees orbits, not the points of them that a sampler happened to visit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from pyro_bnn.diagnostics.convergence import convergence
from pyro_bnn.symmetry import Quotient, discover
from pyro_bnn.trace import site_dataset

CHAINS, DRAWS = 4, 25


def rhat(quotient, params):
    draws = {s: v.reshape(CHAINS, DRAWS, *v.shape[1:]) for s, v in params.items()}
    posterior = site_dataset(draws, quotient.group.dims)
    trace = quotient.apply(xr.DataTree.from_dict({"posterior": posterior}))
    canonical = trace["canonical_posterior"].to_dataset()
    found = {space: convergence(trace, space).rhat for space in ("weight", "canonical")}
    return found, np.concatenate([canonical[s].values.ravel() for s in params])


@pytest.mark.parametrize("permutation", ["sort", "align", None])
def test_random_elements_on_each_draw_change_no_canonical_rhat(permutation):
    """Scalings, signs and permutations at once: ReLU units scale, tanh units flip, all permute."""
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))
    group = discover(net, torch.zeros(2, 3))
    generator = torch.Generator().manual_seed(0)
    # chains about points of their own, so that R-hat has something to say
    centers = {s: torch.randn(CHAINS, *n, generator=generator) for s, n in group.shapes.items()}
    theta = {
        s: c.repeat_interleave(DRAWS, 0).double()
        + 0.5 * torch.randn(CHAINS * DRAWS, *c.shape[1:], generator=generator).double()
        for s, c in centers.items()
    }
    g = group.sample(generator, batch=CHAINS * DRAWS)
    assert all(float(u.std()) > 0.3 for u in g.log_scales.values())
    assert all(set(s.unique().tolist()) == {-1, 1} for s in g.signs.values())
    if permutation is None:
        g = type(g)(group, {}, g.log_scales, g.signs, g.batch)
    elif permutation == "align":
        reference = {s: v[0] for s, v in theta.items()}
    given = {"reference": reference} if permutation == "align" else {}
    quotient = Quotient(group, permutation=permutation, **given)
    before, draws = rhat(quotient, theta)
    after, moved = rhat(quotient, g.apply(theta))
    np.testing.assert_allclose(moved, draws, rtol=1e-9, atol=1e-9)
    # the two middle draws are equally far from the median: rounding decides on their ranks
    np.testing.assert_allclose(after["canonical"], before["canonical"], rtol=0.02)
    same = np.isclose(after["canonical"], before["canonical"], rtol=1e-9)
    assert same.mean() > 0.5
    assert np.abs(after["weight"] - before["weight"]).max() > 0.3
    assert before["canonical"].max() > 1.2
