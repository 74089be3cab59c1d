"""`MCMC`: drive a kernel over many chains at once, under the face of Pyro's class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from pyro.infer.mcmc.util import diagnostics as pyro_diagnostics
from pyro.infer.mcmc.util import print_summary
from torch import Tensor

from pyro_bnn.allocator import keep_freed_memory
from pyro_bnn.errors import UserError
from pyro_bnn.infer.adaptation.adaptation import Adaptation
from pyro_bnn.infer.checkpoint import Checkpoint, Progress
from pyro_bnn.infer.draws import DrawBlock
from pyro_bnn.infer.interrupt import FinishStepFirst
from pyro_bnn.infer.kernels.kernel import Kernel
from pyro_bnn.infer.memory import refuse_too_many_chains, telling_memory
from pyro_bnn.infer.meter import Meter
from pyro_bnn.infer.sampling import Plan, Sampling
from pyro_bnn.logdensity import LogDensity
from pyro_bnn.trace import open_trace, site_dataset

__all__ = ["MCMC"]


class MCMC:
    """Markov chain Monte Carlo; all chains move in one batched computation on one device.

    The constructor and the methods are those of `pyro.infer.MCMC`. What differs: ``num_chains``
    costs a batch dimension instead of processes; draws can be streamed to a run directory, from
    which an interrupted run is resumed; and with the same seed the draws are the same.

    A chain whose state becomes NaN or infinite is dead: ``progress.dead`` names it, it stays where
    it was last finite, its draws count as divergences, and warm-up learns from the others only.

    Parameters
    ----------
    kernel : Kernel
        Around a Pyro model: `HMC`, `NUTS`, `ChEES`, `SGHMC` or any other.
    num_samples : int
        Draws of each chain after warm-up.
    warmup_steps : int, optional
        Steps that adapt the kernel and are not kept; `num_samples` by default, as in Pyro.
    initial_params : dict of str to Tensor, optional
        Unconstrained starting values ``(chain, *shape)``.
    num_chains : int
        Chains of the batch.
    hook_fn : callable, optional
        Called as ``hook_fn(kernel, params, stage, i)`` after every step, with unconstrained
        values ``(chain, *shape)``; stage is ``"Warmup"`` or ``"Sample"``.
    mp_context : str, optional
        Taken so that Pyro scripts run unchanged; there are no processes here.
    disable_progbar : bool
        Show no progress line. Without a terminal none is shown anyway.
    disable_validation : bool
        Taken so that Pyro scripts run unchanged; a batched density cannot validate.
    transforms : None
        Stands where Pyro has it; the transforms are those of the sites' supports.
    save_params : sequence of str, optional
        Sites to keep; all of them by default.
    seed : int, optional
        Of every random number of the run; drawn from torch's generator by default, so that
        ``pyro.set_rng_seed`` counts.
    run_dir : path, optional
        Directory that draws are streamed to, a segment at a time. Without it they stay in memory.
    dims : mapping of str to sequence of str, optional
        Names of the axes of each site, as discovery gives them.
    segment_draws : int
        Draws of a segment; a kill loses at most that many.
    move : callable, optional
        ``move(position, generator)`` takes unconstrained positions ``(chain, dim)`` to others and
        leaves the posterior invariant, as `pyro_bnn.symmetry.OrbitMove` does. It follows the
        kernel's step.
    move_every : int
        Steps of the kernel between two moves.

    Raises
    ------
    UserError
        If a number is out of range or `initial_params` does not fit.
    """

    def __init__(
        self,
        kernel: Kernel,
        num_samples: int,
        warmup_steps: int | None = None,
        initial_params: Mapping[str, Tensor] | None = None,
        num_chains: int = 1,
        hook_fn: Callable[..., None] | None = None,
        mp_context: str | None = None,
        disable_progbar: bool = False,
        disable_validation: bool = True,
        transforms: None = None,
        save_params: Sequence[str] | None = None,
        *,
        seed: int | None = None,
        run_dir: str | Path | None = None,
        dims: Mapping[str, Sequence[str]] | None = None,
        segment_draws: int = 50,
        move: Callable[[Tensor, torch.Generator], Tensor] | None = None,
        move_every: int = 1,
    ) -> None:
        for name, value, least in (
            ("num_samples", num_samples, 1),
            ("warmup_steps", warmup_steps, 0),
            ("num_chains", num_chains, 1),
            ("segment_draws", segment_draws, 1),
            ("move_every", move_every, 1),
        ):
            if value is not None and value < least:
                raise UserError(f"MCMC: {name} is {value}, give at least {least}")
        if transforms is not None:
            raise UserError(
                "MCMC: transforms follow from the supports of the model's sites, leave them out"
            )
        self.kernel = kernel
        self.num_samples = num_samples
        self.warmup_steps = num_samples if warmup_steps is None else warmup_steps
        self.num_chains = num_chains
        self.seed = seed
        self.progress = Progress()
        self._initial_params = initial_params
        self._quiet = disable_progbar
        self._dims = dims
        self._plan = Plan(
            num_samples, self.warmup_steps, segment_draws, save_params, hook_fn, move, move_every
        )
        self._checkpoint = None if run_dir is None else Checkpoint(Path(run_dir), dims)
        self._block = DrawBlock(num_samples if run_dir is None else segment_draws)

    def run(self, *args: Any, resume: bool = False, **kwargs: Any) -> None:
        """Warm up, then draw.

        Parameters
        ----------
        *args, **kwargs
            Data for the model.
        resume : bool
            Go on from the state in the run directory, if there is one.

        Raises
        ------
        UserError
            If the model cannot be sampled, in which case the sentence names the site; if the
            run directory holds a run that is not to be resumed, or another one; if every chain
            is dead, or diverges for many steps in a row, in which case the last good state is
            saved; or if the chains do not fit into memory.
        """
        density = self.kernel.density(*args, **kwargs)
        self._refuse_unknown_sites(density)
        refuse_too_many_chains(density, self.num_chains, self._block.capacity)
        with telling_memory(density, self.num_chains, self._block.capacity):
            self._run(density, resume=resume)

    def get_samples(
        self, num_samples: int | None = None, group_by_chain: bool = False
    ) -> dict[str, Tensor]:
        """Return the draws of every site in its own space.

        Parameters
        ----------
        num_samples : int, optional
            Draw this many with replacement from all of them (with `group_by_chain`, from each
            chain); by default, all.
        group_by_chain : bool
            Whether tensors are ``(chain, draw, *shape)`` or ``(chain * draw, *shape)``.
        """
        if self._checkpoint is None:
            samples = self._block.posterior()
        else:
            with open_trace(self._checkpoint.directory) as trace:
                samples = {
                    str(name): torch.from_numpy(values.to_numpy())
                    for name, values in trace["posterior"].data_vars.items()
                }
        if not samples:
            raise UserError("MCMC: there are no draws yet, call run() first")
        if not group_by_chain:
            samples = {name: value.flatten(0, 1) for name, value in samples.items()}
        if num_samples is None:
            return samples
        axis = 1 if group_by_chain else 0
        length = next(iter(samples.values())).shape[axis]
        picked = torch.randint(length, (num_samples,))
        return {name: v.index_select(axis, picked.to(v.device)) for name, v in samples.items()}

    def summary(self, prob: float = 0.9) -> None:
        """Print Pyro's table: mean, deviation, median, interval, ESS and R-hat of each site."""
        print_summary(self.get_samples(group_by_chain=True), prob=prob)
        print(f"Number of divergences: {self.progress.divergences}")

    def diagnostics(self) -> dict[str, Any]:
        """Return ESS and R-hat of each site, divergences and acceptance rates, as Pyro does."""
        report: dict[str, Any] = pyro_diagnostics(self.get_samples(group_by_chain=True))
        stats = self._stats()
        chains = range(self.num_chains)
        report["divergences"] = {
            f"chain {c}": stats["diverging"][c].nonzero().flatten().tolist() for c in chains
        }
        report["acceptance rate"] = {
            f"chain {c}": float(stats["acceptance_rate"][c].mean()) for c in chains
        }
        return report

    def to_datatree(self) -> xr.DataTree:
        """Return the draws as ArviZ's `DataTree`: ``posterior`` and ``sample_stats``."""
        if self._checkpoint is not None:
            return open_trace(self._checkpoint.directory)
        posterior = site_dataset(self.get_samples(group_by_chain=True), self._dims)
        groups = {"posterior": posterior, "sample_stats": site_dataset(self._stats(), None)}
        return xr.DataTree.from_dict(groups)

    # The run

    def _run(self, density: LogDensity, *, resume: bool) -> None:
        if density.device.type == "cpu":
            keep_freed_memory()
        warmup = self.kernel.warmup(self.warmup_steps)
        generator = torch.Generator(density.device)
        # What an earlier run left here is on disk already, given up, or in the hands of the caller,
        # whose draws stay theirs.
        self._block = DrawBlock(self._block.capacity)
        if self._checkpoint is not None and self._checkpoint.exists():
            if not resume:
                raise UserError(
                    f"MCMC: {self._checkpoint.directory} already holds a run: go on with it by "
                    "run(..., resume=True), or choose another run_dir"
                )
            snapshot = self._checkpoint.load(self.kernel.state_type, warmup, density.device)
            expected = (self.num_chains, density.dim)
            if snapshot.state.position.shape != expected:
                raise UserError(
                    f"MCMC: the run in {self._checkpoint.directory} has "
                    f"{tuple(snapshot.state.position.shape)} chains and dimensions, not "
                    f"{expected}: resume it unchanged, or choose another run_dir"
                )
            done = snapshot.progress
            if done.draws and done.warmup != self.warmup_steps:
                raise UserError(
                    f"MCMC: the run in {self._checkpoint.directory} has drawn after {done.warmup} "
                    f"steps of warm-up, not {self.warmup_steps}: give warmup_steps={done.warmup}"
                )
            generator.set_state(snapshot.generator)
            state, self.progress = snapshot.state, snapshot.progress
        else:
            self.progress = Progress()
            state = self._start(density, warmup, generator)
        with (
            Meter(self.warmup_steps, self.num_samples, quiet=self._quiet) as meter,
            FinishStepFirst() as interrupt,
        ):
            Sampling(
                self.kernel,
                density,
                self._plan,
                warmup,
                generator,
                self.progress,
                self._block,
                self._checkpoint,
                meter,
                interrupt,
            ).run(state)

    def _start(self, density: LogDensity, warmup: Adaptation, generator: torch.Generator) -> Any:
        seed = int(torch.randint(2**31, ())) if self.seed is None else self.seed
        generator.manual_seed(seed)
        if self._initial_params is None:
            strategy = self.kernel.init_strategy
            position = density.initial_position(self.num_chains, generator, strategy=strategy)
        else:
            position = self._given_position(density, self._initial_params)
        state = self.kernel.init(position, density, generator)
        return warmup.begin(state, density, generator) if self.warmup_steps else state

    # Small checks and readings

    def _stats(self) -> dict[str, Tensor]:
        if self._checkpoint is None:
            return self._block.stats()
        with open_trace(self._checkpoint.directory) as trace:
            return {
                str(name): torch.from_numpy(values.to_numpy())
                for name, values in trace["sample_stats"].data_vars.items()
            }

    def _refuse_unknown_sites(self, density: LogDensity) -> None:
        for name in self._plan.save_params or ():
            if name not in density.stored:
                raise UserError(
                    f"MCMC: save_params names {name!r}; the model's sites are "
                    f"{', '.join(density.stored)}"
                )

    def _given_position(self, density: LogDensity, params: Mapping[str, Tensor]) -> Tensor:
        for name, site in density.sites.items():
            expected = (self.num_chains, *site.unconstrained_shape)
            if name not in params or tuple(params[name].shape) != expected:
                found = tuple(params[name].shape) if name in params else "nothing"
                raise UserError(
                    f"MCMC: initial_params has {found} for site '{name}', give unconstrained "
                    f"values of shape {expected}, chains first"
                )
        position = density.flatten(params).to(density.device, density.dtype)
        value, gradient = density.value_and_grad(position)
        bad = ~(value.isfinite() & gradient.isfinite().all(dim=1))
        if bool(bad.any()):
            raise UserError(density.explain_start(position[bad][0]))
        return position
