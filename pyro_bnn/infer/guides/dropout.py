"""Monte Carlo dropout as a guide over the weights (Gal & Ghahramani 2016)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.infer.guides.descent import Parameters
from pyro_bnn.infer.guides.guide import Guide
from pyro_bnn.infer.guides.seeds import uniform
from pyro_bnn.infer.guides.training import Training
from pyro_bnn.logdensity import LogDensity, Rows
from pyro_bnn.sites import is_identity

__all__ = ["Dropout"]


class Dropout(Guide):
    """Weights times random masks; a draw is the weights of one thinned network.

    Dropping an input unit of a layer is the same as multiplying the weights that read it by zero,
    and those that read the others by ``1 / (1 - rate)``. So a mask belongs to a weight tensor and
    runs along the axis of its inputs; each entry stands for a unit (a channel, in a convolution).
    One mask is drawn for every member and step, and for every draw. The prior is that of the
    masked weights, whose expectation is the penalty of the paper.

    Parameters
    ----------
    model, training, init_strategy, fail_above
        As for every `Guide`.
    rate : float or mapping of str to float
        Probability of dropping a unit: of one number, in all weights with two or more axes but
        the first one, which reads the data; or by shell-style patterns of site names, the first
        that fits counts.
    axis : int
        Axis of a weight's inputs: 1 as in ``nn.Linear`` and ``nn.Conv2d``; 0 where a model written
        by hand multiplies ``x @ w``.

    Raises
    ------
    UserError
        If a rate is not in [0, 1), or in `fit`, if a pattern fits no weight or a site is not
        unconstrained.
    """

    def __init__(
        self,
        model: Callable[..., Any] | LogDensity,
        training: Training | None = None,
        *,
        rate: float | Mapping[str, float] = 0.1,
        axis: int = 1,
        init_strategy: Callable[..., Any] | None = None,
        fail_above: float | None = None,
    ) -> None:
        super().__init__(model, training, init_strategy=init_strategy, fail_above=fail_above)
        rates = rate.values() if isinstance(rate, Mapping) else [rate]
        for number in rates:
            if not 0 <= number < 1:
                raise UserError(f"Dropout: rate is {number}, give a number in [0, 1)")
        self.rates = rate
        self.axis = axis
        self._unit: Tensor | None = None
        self._keep: Tensor | None = None

    def start(self, position: Tensor, density: LogDensity) -> Parameters:
        """Find the unit that each weight reads."""
        unit, keep = self._units(density)
        self._unit, self._keep = unit.expand(len(position), -1), keep.expand(len(position), -1)
        return {"position": position}

    def gradient(
        self,
        parameters: Parameters,
        density: LogDensity,
        indices: Rows | None,
        sources: Sequence[torch.Generator],
    ) -> tuple[Tensor, Parameters]:
        """Potential energy of the masked weights; only what was not dropped has a gradient."""
        assert self._unit is not None
        assert self._keep is not None
        mask = _masks(self._unit, self._keep, 1, sources)[:, 0]
        value, slope = density.value_and_grad(mask * parameters["position"], indices)
        return value, {"position": mask * slope}

    def finish(self, parameters: Parameters, memory: Parameters, density: LogDensity) -> Parameters:
        """Keep the weights, the unit that each reads, and the probability that it stays."""
        assert self._unit is not None
        assert self._keep is not None
        return {**parameters, "unit": self._unit, "keep": self._keep}

    def draw(self, state: Parameters, count: int, sources: Sequence[torch.Generator]) -> Tensor:
        """Draw masked weights."""
        return state["position"][:, None] * _masks(state["unit"], state["keep"], count, sources)

    def _units(self, density: LogDensity) -> tuple[Tensor, Tensor]:
        """Return unit number ``(dim,)`` of each weight and the probability that the unit stays."""
        unit = torch.zeros(density.dim, dtype=torch.int64)
        keep = torch.ones(density.dim, dtype=density.dtype)
        count = 1  # unit 0 is never dropped
        for name, rate in self._rates(density).items():
            site = density.sites[name]
            size = site.shape[self.axis]
            shape = [1] * len(site.shape)
            shape[self.axis] = size
            numbers = torch.arange(count, count + size).reshape(shape).expand(site.shape)
            unit[site.start : site.stop] = numbers.reshape(-1)
            keep[site.start : site.stop] = 1 - rate
            count += size
        return unit.to(density.device), keep.to(density.device)

    def _rates(self, density: LogDensity) -> dict[str, float]:
        weights = [name for name, site in density.sites.items() if len(site.shape) > 1]
        free = [name for name in weights if is_identity(density.sites[name].transform)]
        if not isinstance(self.rates, Mapping):
            # The scales of a hierarchical prior have the axes of a weight too.
            found = dict.fromkeys(free[1:], self.rates)
        else:
            found = {}
            for name in weights:
                pattern = next((p for p in self.rates if fnmatchcase(name, p)), None)
                if pattern is not None:
                    found[name] = self.rates[pattern]
            for pattern in self.rates:
                if not any(fnmatchcase(name, pattern) for name in weights):
                    raise UserError(
                        f"Dropout: pattern {pattern!r} fits no weight; they are "
                        f"{', '.join(weights)}"
                    )
        if not found:
            raise UserError(
                "Dropout: no weight reads hidden units; give rate as a dict of site names"
            )
        for name in found:
            if name not in free:
                raise UserError(f"Dropout: site '{name}' is constrained, a mask would leave it")
        return found


def _masks(unit: Tensor, keep: Tensor, count: int, sources: Sequence[torch.Generator]) -> Tensor:
    """Draw factors ``(member, draw, dim)``: 0 or 1 / keep, the same for all that read a unit."""
    numbers = int(unit[0].max()) + 1 if unit.numel() else 1
    uniforms = uniform(sources, (count, numbers), keep)
    chosen = uniforms.gather(2, unit[:, None].expand(-1, count, -1))
    return (chosen < keep[:, None]) / keep[:, None]
