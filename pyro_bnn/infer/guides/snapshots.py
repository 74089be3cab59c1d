"""The draws of a Markov chain as a guide: snapshots of SG-MCMC, and of any other kernel."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.infer.guides.descent import Parameters
from pyro_bnn.infer.guides.guide import Guide
from pyro_bnn.infer.guides.training import Training
from pyro_bnn.infer.kernels.kernel import Kernel
from pyro_bnn.infer.mcmc import MCMC
from pyro_bnn.logdensity import LogDensity

__all__ = ["Snapshots"]


class Snapshots(Guide):
    """A uniform distribution over the draws that a kernel collected.

    With a cyclical step size these are the snapshots of Zhang et al. (2020). A kernel has one
    stream of random numbers for all its chains; so that a member does not depend on the others,
    each is a run of one chain, one after another. `MCMC` with many chains is the batched form.

    Parameters
    ----------
    kernel : Kernel
        Around a model or its log density.
    num_samples : int
        Draws that are collected.
    warmup_steps : int
        Steps before that.

    Raises
    ------
    UserError
        If a number is out of range.
    """

    block = 1

    def __init__(self, kernel: Kernel, *, num_samples: int = 100, warmup_steps: int = 100) -> None:
        whole = Training(batch_size=None)  # nothing is trained by minibatches of its own
        super().__init__(kernel.model, whole, init_strategy=kernel.init_strategy)
        if num_samples < 1 or warmup_steps < 0:
            raise UserError("Snapshots: give at least 1 num_samples and 0 warmup_steps")
        self.kernel = kernel
        self.num_samples = num_samples
        self.warmup_steps = warmup_steps

    @property
    def rows_of_a_step(self) -> int | None:
        """Rows of a step of the kernel."""
        return self.kernel.rows_of_a_step

    def train(
        self,
        density: LogDensity,
        sources: Sequence[torch.Generator],
        resume: Mapping[str, Tensor] | None,
        save: Callable[[Mapping[str, Tensor]], None] | None,
    ) -> tuple[Parameters, Tensor, int]:
        """Run a chain for each member; the loss is minus the log density a row, by halves."""
        draws, losses, gradients = [], [], 0
        for source in sources:
            kernel = copy.copy(self.kernel)
            kernel.model = density
            mcmc = MCMC(
                kernel,
                self.num_samples,
                self.warmup_steps,
                seed=source.initial_seed(),
                disable_progbar=True,
            )
            mcmc.run()
            position = density.unconstrain(mcmc.get_samples())
            # One draw at a time, as the chain went: the activations of all may not fit.
            energy = torch.cat([density.potential(draw) for draw in position.split(1)])
            energy = energy / max(density.rows, 1)
            halves = energy.tensor_split(2) if len(energy) > 1 else [energy, energy]
            draws.append(position)
            losses.append(torch.stack([half.mean() for half in halves]))
            gradients += mcmc.progress.gradients
        return {"draws": torch.stack(draws)}, torch.stack(losses), gradients // len(sources)

    def draw(self, state: Parameters, count: int, sources: Sequence[torch.Generator]) -> Tensor:
        """Choose draws: without replacement, in their order, as long as there are enough."""
        held = state["draws"].shape[1]
        rows = []
        for source in sources:
            if count <= held:
                chosen = torch.randperm(held, generator=source, device=source.device)[:count]
                rows.append(chosen.sort().values)
            else:
                rows.append(torch.randint(held, (count,), generator=source, device=source.device))
        index = torch.stack(rows)[:, :, None].expand(-1, -1, state["draws"].shape[2])
        return state["draws"].gather(1, index)
