"""Chains that are no longer numbers: frozen, reported, and hidden from all that learns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_bnn.infer.kernels.hamiltonian import Info

__all__ = ["DeadChains"]


class DeadChains:
    """The chains of a run whose state has become NaN or infinite.

    A dead chain stays where it was last finite, so that what reads its draws meets numbers; its
    draws count as divergences. To warm-up it is NaN, which pooled averages leave out.

    Parameters
    ----------
    chains : list of int
        Those that are dead already; new ones are appended.
    """

    def __init__(self, chains: list[int]) -> None:
        self.chains = chains

    def bury(self, before: Any, after: Any, info: Info) -> tuple[Any, Info]:
        """Find chains that died in a step and put all dead ones back to where they were.

        Parameters
        ----------
        before, after : NamedTuple
            A kernel's states; fields with a leading chain axis are put back.
        info : Info
            What the step reported.
        """
        gone = ~_finite(after)
        if bool(gone.any()):
            found = gone.nonzero().flatten().tolist()
            self.chains.extend(chain for chain in found if chain not in self.chains)
        if not self.chains:
            return after, info
        state = self.keep(before, after)
        dead = self._mask(after.position)
        stats = {
            **info.stats,
            "lp": torch.where(dead, -state.potential, info.stats["lp"]),
            "acceptance_rate": info.stats["acceptance_rate"].masked_fill(dead, 0.0),
            "diverging": info.stats["diverging"] | dead,
        }
        return state, info._replace(stats=stats)

    def keep(self, before: Any, after: Any) -> Any:
        """Return `after`, with the dead chains as they were `before`."""
        if not self.chains:
            return after
        dead = self._mask(after.position)
        changes = {}
        for name, value in after._asdict().items():
            if isinstance(value, Tensor) and value.shape[:1] == dead.shape:
                where = dead.reshape(-1, *[1] * (value.ndim - 1))
                changes[name] = torch.where(where, getattr(before, name), value)
        return after._replace(**changes)

    def hide(self, state: Any, info: Info) -> tuple[Any, Info]:
        """Return what warm-up may see: positions and acceptance of the dead are NaN."""
        if not self.chains:
            return state, info
        dead = self._mask(state.position)
        rate = info.stats["acceptance_rate"].masked_fill(dead, torch.nan)
        position = state.position.masked_fill(dead[:, None], torch.nan)
        potential = state.potential.masked_fill(dead, torch.nan)
        hidden = info._replace(stats={**info.stats, "acceptance_rate": rate})
        return state._replace(position=position, potential=potential), hidden

    def _mask(self, position: Tensor) -> Tensor:
        mask = torch.zeros(len(position), dtype=torch.bool, device=position.device)
        mask[self.chains] = True
        return mask


def _finite(state: Any) -> Tensor:
    """Whether a chain's position, potential energy and gradient are numbers: ``(chain,)``."""
    gradient: Tensor = getattr(state, "gradient", state.position)
    finite: Tensor = (state.position.isfinite() & gradient.isfinite()).all(1)
    finite = finite & state.potential.isfinite()
    return finite
