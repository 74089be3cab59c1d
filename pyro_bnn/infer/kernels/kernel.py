"""The base of every kernel: pure functions over a batch of chains, and Pyro's kernel protocol."""

from __future__ import annotations

import difflib
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.infer.adaptation.warmup import Warmup
from pyro_bnn.infer.kernels.hamiltonian import Density, Info, State, unit_metric
from pyro_bnn.logdensity import LogDensity

__all__ = ["Kernel"]

_PYRO_ONLY = ("jit_compile", "jit_options", "ignore_jit_warnings", "max_plate_nesting")

# Options of Pyro's kernels that can only be left at their defaults here.
_PYRO_DEFAULTS = {
    "potential_fn": None,
    "transforms": None,
    "use_multinomial_sampling": True,
    "min_stepsize": 1e-10,
    "max_stepsize": 1e10,
}


class Kernel(MCMCKernel):
    """A transition that leaves the posterior invariant.

    `init` and `step` are pure and work on a batch of chains; `pyro_bnn.infer.MCMC` drives them.
    The other methods are Pyro's `MCMCKernel` protocol, by which `pyro.infer.MCMC` drives the same
    kernel one chain at a time.

    Parameters
    ----------
    model : callable or LogDensity
        A Pyro model, or its log density where that has been built already.
    step_size : float
        Initial or fixed step size.
    adapt_step_size, adapt_mass_matrix, full_mass : bool
        What warm-up adapts, and whether the mass matrix is dense.
    target_accept_prob : float
        Mean acceptance rate that the step size aims at.
    init_strategy : callable, optional
        One of Pyro's ``init_to_*`` functions; draws from the prior by default.
    **pyro_only
        Options of Pyro's kernels that say how Pyro computes gradients (``jit_compile``, ...);
        taken so that scripts need no change, and without effect. Others (``potential_fn``,
        ``transforms``, ...) are taken at their defaults only.

    Raises
    ------
    UserError
        If an option is unknown or out of range.
    """

    def __init__(
        self,
        model: Callable[..., Any] | LogDensity,
        *,
        step_size: float,
        adapt_step_size: bool,
        adapt_mass_matrix: bool,
        full_mass: bool,
        target_accept_prob: float,
        init_strategy: Callable[..., Any] | None,
        **pyro_only: Any,
    ) -> None:
        name = type(self).__name__
        for option, value in pyro_only.items():
            if option in _PYRO_DEFAULTS:
                if value != _PYRO_DEFAULTS[option]:
                    raise UserError(
                        f"{name} cannot take {option}: leave it out, and give the Pyro model itself"
                    )
            elif option not in _PYRO_ONLY:
                known = [*_own_options(type(self)), *_PYRO_ONLY]
                near = difflib.get_close_matches(option, known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"it knows {', '.join(known)}"
                raise UserError(f"{name} has no option {option!r}: {hint}")
        if step_size <= 0:
            raise UserError(f"{name}: step_size is {step_size}, give a number > 0")
        if not 0 < target_accept_prob < 1:
            raise UserError(
                f"{name}: target_accept_prob is {target_accept_prob}, give a number in (0, 1)"
            )
        if not isinstance(full_mass, bool):
            raise UserError(
                f"{name}: full_mass is {full_mass!r}, give True or False: the mass matrix is dense "
                "over all sites or over none"
            )
        self.model = model
        self.step_size = step_size
        self.adapt_step_size = adapt_step_size
        self.adapt_mass_matrix = adapt_mass_matrix
        self.full_mass = full_mass
        self.target_accept_prob = target_accept_prob
        self.init_strategy = init_strategy
        self.transforms: dict[str, Any] | None = None
        self._driven: _DrivenByPyro | None = None

    # The pure pair

    def init(self, position: Tensor, density: Density) -> State:
        """Start a batch of chains at positions ``(chain, dim)``."""
        potential, gradient = density.value_and_grad(position)
        step_size = torch.tensor(self.step_size, dtype=position.dtype, device=position.device)
        metric = unit_metric(position, dense=self.full_mass)
        return State(position, potential, gradient, step_size, metric)

    @abstractmethod
    def step(
        self, state: State, density: Density, generator: torch.Generator
    ) -> tuple[State, Info]:
        """Move every chain once."""

    def warmup(self, num_steps: int) -> Warmup:
        """Return the adaptation that this kernel asks for over `num_steps` steps."""
        return Warmup(
            num_steps,
            adapt_step_size=self.adapt_step_size,
            adapt_mass_matrix=self.adapt_mass_matrix,
            target_accept_prob=self.target_accept_prob,
        )

    def density(self, *args: Any, **kwargs: Any) -> LogDensity:
        """Return the log density of the kernel's model on the given data."""
        if isinstance(self.model, LogDensity):
            return self.model
        return LogDensity(self.model, *args, **kwargs)

    # Pyro's protocol

    def setup(self, warmup_steps: int, *args: Any, **kwargs: Any) -> None:
        """Prepare to be driven by `pyro.infer.MCMC`."""
        density = self.density(*args, **kwargs)
        self.transforms = {name: site.transform.inv for name, site in density.sites.items()}
        self._driven = _DrivenByPyro(self, density, warmup_steps)

    @property
    def initial_params(self) -> dict[str, Tensor]:
        """Unconstrained starting values of one chain."""
        return self._pyro.initial()

    @initial_params.setter
    def initial_params(self, params: Mapping[str, Tensor]) -> None:
        self._pyro.start_at(params)

    def sample(self, params: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Move one chain once; `params` are unconstrained values."""
        return self._pyro.move(params)

    def logging(self) -> dict[str, str]:
        """Return what Pyro's progress bar shows."""
        return self._pyro.logging()

    def diagnostics(self) -> dict[str, Any]:
        """Return divergences and the mean acceptance rate of a chain driven by Pyro."""
        return self._pyro.diagnostics()

    def cleanup(self) -> None:
        """Forget the data, which Pyro does not want kept."""
        self._driven = None

    @property
    def _pyro(self) -> _DrivenByPyro:
        if self._driven is None:
            raise UserError(f"{type(self).__name__}: call setup() before sampling")
        return self._driven


class _DrivenByPyro:
    """One chain, its adaptation and its records, while Pyro's MCMC loop is in charge."""

    def __init__(self, kernel: Kernel, density: LogDensity, warmup_steps: int) -> None:
        self.kernel = kernel
        self.density = density
        # Pyro's runs are seeded by pyro.set_rng_seed, that is, by torch's global generator.
        self.generator = torch.Generator(density.device).manual_seed(int(torch.randint(2**31, ())))
        self.adaptation = kernel.warmup(warmup_steps)
        self.warmup_steps = warmup_steps
        self.state: State | None = None
        self.count = 0
        self.acceptance = 0.0
        self.divergences: list[int] = []

    def initial(self) -> dict[str, Tensor]:
        if self.state is None:
            position = self.density.initial_position(
                1, self.generator, strategy=self.kernel.init_strategy
            )
            self._begin(position)
        assert self.state is not None
        return self._unbatched(self.state.position)

    def start_at(self, params: Mapping[str, Tensor]) -> None:
        self._begin(self.density.flatten({name: v[None] for name, v in params.items()}))

    def move(self, params: Mapping[str, Tensor]) -> dict[str, Tensor]:
        position = self.density.flatten({name: value[None] for name, value in params.items()})
        if self.state is None or not torch.equal(self.state.position, position):
            self._begin(position)
        assert self.state is not None
        self.state, info = self.kernel.step(self.state, self.density, self.generator)
        self.count += 1
        if self.count <= self.warmup_steps:
            self.state = self.adaptation.update(self.state, info, self.density, self.generator)
        else:
            drawn = self.count - self.warmup_steps
            rate = float(info.stats["acceptance_rate"][0])
            self.acceptance += (rate - self.acceptance) / drawn
            if bool(info.stats["diverging"][0]):
                self.divergences.append(drawn - 1)
        return self._unbatched(self.state.position)

    def logging(self) -> dict[str, str]:
        step_size = float(self.state.step_size.median()) if self.state else float("nan")
        return {"step size": f"{step_size:.2e}", "acc. prob": f"{self.acceptance:.3f}"}

    def diagnostics(self) -> dict[str, Any]:
        return {"divergences": self.divergences, "acceptance rate": self.acceptance}

    def _begin(self, position: Tensor) -> None:
        state = self.kernel.init(position, self.density)
        if self.count == 0 and self.warmup_steps > 0:
            state = self.adaptation.begin(state, self.density, self.generator)
        elif self.state is not None:
            state = state._replace(step_size=self.state.step_size, metric=self.state.metric)
        self.state = state

    def _unbatched(self, position: Tensor) -> dict[str, Tensor]:
        return {name: value[0] for name, value in self.density.unflatten(position).items()}


def _own_options(kernel: type[Kernel]) -> list[str]:
    names = kernel.__init__.__code__.co_varnames[: kernel.__init__.__code__.co_argcount]
    return [name for name in names if name not in ("self", "model")]
