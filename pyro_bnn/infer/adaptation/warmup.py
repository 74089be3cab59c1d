"""Warm-up of a Hamiltonian kernel: step sizes by their acceptance rates, and the mass matrix."""

from __future__ import annotations

from pyro_bnn.infer.adaptation.dual_averaging import DualAveraging
from pyro_bnn.infer.adaptation.first_step_size import StepSizeSearch
from pyro_bnn.infer.adaptation.windowed import WindowedWarmup

__all__ = ["Warmup"]


class Warmup(WindowedWarmup):
    """Drive acceptance rates to a target by dual averaging, within windows.

    Parameters
    ----------
    num_steps, adapt_step_size, adapt_mass_matrix, find_step_size
        As in `WindowedWarmup`.
    target_accept_prob : float
        Acceptance rate that the step size aims at; once it is shared, a mean over chains.
    """

    tuner_type = DualAveraging
    statistic = "acceptance_rate"

    def __init__(
        self,
        num_steps: int,
        *,
        adapt_step_size: bool,
        adapt_mass_matrix: bool,
        target_accept_prob: float,
        find_step_size: StepSizeSearch,
    ) -> None:
        super().__init__(
            num_steps,
            adapt_step_size=adapt_step_size,
            adapt_mass_matrix=adapt_mass_matrix,
            wanted=target_accept_prob,
            find_step_size=find_step_size,
        )
