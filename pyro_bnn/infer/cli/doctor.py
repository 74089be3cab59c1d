"""``pyro-bnn doctor``: what is installed, what will be used, and whether it works."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from arviz_stats.base import array_stats  # type: ignore[attr-defined]
from torch import nn

from pyro_bnn.infer.cli.host import idle_cores
from pyro_bnn.infer.kernels.hmc import HMC
from pyro_bnn.infer.mcmc import MCMC
from pyro_bnn.logdensity import LogDensity
from pyro_bnn.nn import Normal, categorical, lift
from pyro_bnn.symmetry import Quotient, discover
from pyro_bnn.trace import open_trace

__all__ = ["facts", "self_test"]

_PACKAGES = ("pyro_bnn", "pyro-ppl", "torch", "arviz", "arviz-stats", "numpy", "xarray", "netcdf4")


def facts() -> Iterator[tuple[str, str]]:
    """Go through what a bug report should say: versions, devices, threads, compiler."""
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    for package in _PACKAGES:
        yield package, _version(package)
    yield "devices", ", ".join(_devices())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield "threads", f"{cores} cores, {idle_cores()} idle now"
    yield "compiler", shutil.which("c++") or shutil.which("cl") or "none: torch.compile cannot run"


def self_test() -> Iterator[tuple[str, str, bool]]:
    """Run each check and go through its name, what was found, and whether it passed."""
    checks: tuple[tuple[str, Callable[[], tuple[str, bool]]], ...] = (
        ("gradients", _gradients),
        ("sampling", _sampling),
        ("symmetry", _symmetry),
        ("trace", _trace),
    )
    for name, check in checks:
        try:
            found, passed = check()
        except Exception as error:
            lines = str(error).splitlines() or [""]
            found, passed = f"{type(error).__name__}: {lines[0]}", False
        yield name, found, passed


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _devices() -> list[str]:
    found = ["cpu"]
    if torch.cuda.is_available():
        found += [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return found


def _network() -> LogDensity:
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)).double()
    bnn = lift(net, prior=Normal(scale="fan_in"))
    seeded = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, dtype=torch.float64, generator=seeded)
    return LogDensity(lambda x, y: categorical(bnn(x), y), x, (x[:, 0] > 0).long())


def _gradients() -> tuple[str, bool]:
    """Compare batched gradients with autograd through the untraced potential energy."""
    density = _network()
    position = density.initial_position(4, torch.Generator().manual_seed(1)).requires_grad_()
    _, gradient = density.value_and_grad(position.detach())
    expected = torch.autograd.grad(density.potential(position).sum(), position)[0]
    error = float((gradient - expected).abs().max())
    return f"path: {density.gradient_path}; error {error:.0e}", error < 1e-9


def _linear(x: torch.Tensor, y: torch.Tensor) -> None:
    weight = pyro.sample("weight", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(x @ weight, 0.5), obs=y)


def _sampling() -> tuple[str, bool]:
    """Sample a linear regression whose posterior mean is known in closed form."""
    x = torch.randn(30, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    y = x @ torch.tensor([1.0, -2.0], dtype=torch.float64)
    kernel = HMC(_linear, num_steps=8, jitter=0.5)
    mcmc = MCMC(kernel, 400, warmup_steps=200, num_chains=8, seed=3, disable_progbar=True)
    mcmc.run(x, y)
    draws = mcmc.get_samples(group_by_chain=True)["weight"].numpy()
    precision = 4 * x.mT @ x + torch.eye(2, dtype=torch.float64)
    exact = torch.linalg.solve(precision, 4 * x.mT @ y).numpy()
    mcse = array_stats.mcse(draws, chain_axis=0, draw_axis=1)  # type: ignore[no-untyped-call]
    z = float(np.abs((draws.mean((0, 1)) - exact) / mcse).max())
    return f"posterior mean within {z:.1f} standard errors of the exact one", z < 5


def _symmetry() -> tuple[str, bool]:
    """Find the group of a small network; its elements must not change the canonical form."""
    density = _network()
    group = discover(density)
    params = density.constrain(density.initial_position(4, torch.Generator().manual_seed(4)))
    moved = group.sample(torch.Generator().manual_seed(5), batch=4).apply(params)
    quotient = Quotient(group)
    first, second = (quotient.canonicalize(values)[0] for values in (params, moved))
    error = max(float((first[name] - second[name]).abs().max()) for name in first)
    sizes = ", ".join(f"{name}: {space.size}" for name, space in group.spaces.items())
    return f"hidden spaces {sizes}; canonical form to {error:.0e}", error < 1e-6


def _trace() -> tuple[str, bool]:
    """Stream a few draws to disk and read them back."""
    with tempfile.TemporaryDirectory() as folder:
        kernel = HMC(_network(), num_steps=4)
        mcmc = MCMC(
            kernel,
            6,
            warmup_steps=6,
            num_chains=2,
            run_dir=Path(folder) / "run",
            seed=6,
            disable_progbar=True,
        )
        mcmc.run()
        with open_trace(Path(folder) / "run") as trace:
            posterior = trace["posterior"]
            found = f"{posterior.sizes['chain']} chains of {posterior.sizes['draw']} draws on disk"
            finite = all(
                bool(np.isfinite(v.to_numpy()).all()) for v in posterior.data_vars.values()
            )
    return found, finite and found == "2 chains of 6 draws on disk"
