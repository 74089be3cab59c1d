"""The base of every kernel: pure functions over a batch of chains, and Pyro's kernel protocol."""

from __future__ import annotations

import difflib
import inspect
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.infer.adaptation.adaptation import Adaptation, NoAdaptation
from pyro_bnn.infer.kernels.hamiltonian import Density, Info, State
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
    A state has at least ``position (chain, dim)``, ``potential (chain,)`` and ``step_size``, and
    holds all that is needed to go on; ``Info.stats`` has at least ``lp``, ``acceptance_rate`` and
    ``diverging``.
    The other methods are Pyro's ``MCMCKernel`` protocol, by which `pyro.infer.MCMC` drives the same
    kernel one chain at a time.

    Parameters
    ----------
    model : callable or LogDensity
        A Pyro model, or its log density where that has been built already.
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

    state_type: type = State
    """The NamedTuple that `init` returns; its fields are tensors, or NamedTuples of tensors."""

    def __init__(
        self,
        model: Callable[..., Any] | LogDensity,
        *,
        init_strategy: Callable[..., Any] | None = None,
        **pyro_only: Any,
    ) -> None:
        self._refuse_unknown(pyro_only)
        self.model = model
        self.init_strategy = init_strategy
        self.transforms: dict[str, Any] | None = None
        self._driven: _DrivenByPyro | None = None

    # The pure pair

    @abstractmethod
    def init(self, position: Tensor, density: Density, generator: torch.Generator) -> Any:
        """Start a batch of chains at positions ``(chain, dim)``."""

    @abstractmethod
    def step(self, state: Any, density: Density, generator: torch.Generator) -> tuple[Any, Info]:
        """Move every chain once."""

    def moved(self, state: Any, position: Tensor, density: Density) -> Any:
        """Put the chains elsewhere ``(chain, dim)``; all else that they have learnt stays."""
        potential, gradient = density.value_and_grad(position)
        return state._replace(position=position, potential=potential, gradient=gradient)

    def warmup(self, num_steps: int) -> Adaptation:
        """Return the adaptation that this kernel asks for over `num_steps` steps."""
        return NoAdaptation()

    @property
    def rows_of_a_step(self) -> int | None:
        """Rows whose statistics a batch norm in training mode meets; None for all."""
        return None

    def density(self, *args: Any, **kwargs: Any) -> LogDensity:
        """Return the log density of the kernel's model on the given data."""
        density = self.model
        if not isinstance(density, LogDensity):
            density = LogDensity(density, *args, **kwargs)
        return density.in_batches(self.rows_of_a_step)

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

    def _refuse_unknown(self, options: Mapping[str, Any]) -> None:
        name = type(self).__name__
        for option, value in options.items():
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
        self.state: Any = None
        self.count = 0
        self.acceptance = 0.0
        self.divergences: list[int] = []

    def initial(self) -> dict[str, Tensor]:
        if self.state is None:
            position = self.density.initial_position(
                1, self.generator, strategy=self.kernel.init_strategy
            )
            self._begin(position)
        return self._unbatched(self.state.position)

    def start_at(self, params: Mapping[str, Tensor]) -> None:
        self._begin(self.density.flatten({name: v[None] for name, v in params.items()}))

    def move(self, params: Mapping[str, Tensor]) -> dict[str, Tensor]:
        position = self.density.flatten({name: value[None] for name, value in params.items()})
        if self.state is None or not torch.equal(self.state.position, position):
            self._begin(position)
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
        if self.state is not None and self.count > 0:
            self.state = self.kernel.moved(self.state, position, self.density)
            return
        self.state = self.kernel.init(position, self.density, self.generator)
        if self.warmup_steps > 0:
            self.state = self.adaptation.begin(self.state, self.density, self.generator)

    def _unbatched(self, position: Tensor) -> dict[str, Tensor]:
        return {name: value[0] for name, value in self.density.unflatten(position).items()}


def _own_options(kernel: type[Kernel]) -> list[str]:
    """Options of a kernel's constructor and of those that it hands options on to."""
    found: dict[str, None] = {}
    for base in kernel.__mro__:
        if issubclass(base, Kernel) and "__init__" in vars(base):
            parameters = inspect.signature(base.__init__).parameters.values()
            named = [p.name for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD]
            found |= dict.fromkeys(named)
    return [name for name in found if name not in ("self", "model")]
