"""The line between two modes, where there are many training rows."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import torch
import xarray as xr

from pyro_bnn import LogDensity
from pyro_bnn.infer.cli.line import _of_few_rows, record_line
from pyro_bnn.nn import Normal, gaussian, lift
from pyro_bnn.symmetry import Quotient, discover
from pyro_bnn.trace import open_trace, site_dataset, write_trace


def model(x, y=None):
    """Regress on two weights."""
    weight = pyro.sample("weight", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(x @ weight, 1.0), obs=y)


def test_some_of_many_rows_estimate_the_likelihood_of_all():
    source = torch.Generator().manual_seed(0)
    x = torch.randn(20_000, 2, dtype=torch.float64, generator=source)
    y = x @ x.new_tensor([2.0, -1.0]) + torch.randn(len(x), dtype=x.dtype, generator=source)
    density = LogDensity(model, x, y).tempered(likelihood=2.0, posterior=0.5)
    few = _of_few_rows(density)
    assert few.rows == 4096
    position = torch.tensor([[2.0, -1.0], [1.0, 0.0]]).double()
    rows = dist.Normal(position @ x.mT, 1.0).log_prob(y)
    # Standard deviation of the mean of so many rows, drawn without replacement.
    error = rows.std(1) * ((1 - 4096 / 20_000) / 4096) ** 0.5
    mean = few.log_likelihood(position) / few.rows
    assert bool(((mean - rows.mean(1)).abs() < 5 * error).all())
    whole, estimated = density.potential(position), few.potential(position)
    # The temperatures divide the likelihood by 2 and the whole by 0.5.
    assert bool(((estimated - whole).abs() < 5 * error * len(x)).all())
    small = LogDensity(model, x[:100], y[:100])
    assert _of_few_rows(small) is small


def test_a_dead_chain_is_no_end_of_the_line(tmp_path):
    x = torch.linspace(-1, 1, 8, dtype=torch.float64)[:, None]
    net = torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
    bnn = lift(net.double(), prior=Normal(scale=1.0))
    density = LogDensity(lambda x, y=None: gaussian(bnn(x), y, noise=1.0), x, x[:, 0] ** 2)
    group = discover(density)
    source = torch.Generator().manual_seed(0)
    draws = {
        name: torch.randn(4, 3, *site.unconstrained_shape, generator=source, dtype=torch.float64)
        for name, site in density.sites.items()
    }
    trace = xr.DataTree.from_dict({"posterior": site_dataset(draws, group.dims)})
    trace.attrs["dead_chains"] = "[0, 3]"
    quotient = Quotient(group)
    write_trace(quotient.apply(trace, source=density), tmp_path / "trace.nc")
    record_line(tmp_path / "trace.nc", density, quotient)
    position = density.flatten({name: values[1:3, -1] for name, values in draws.items()})
    expected = -density.log_likelihood(position) / len(x)
    with open_trace(tmp_path / "trace.nc") as stored:
        loss = stored["mode_line"]["loss"].to_numpy()
    for line in loss:
        np.testing.assert_allclose(line[[0, -1]], expected, rtol=1e-6)
