"""Loss and density along the line between two chains, recorded where the model is at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from pyro_bnn.diagnostics.barrier import GROUP, along
from pyro_bnn.infer.running_statistics import with_statistics
from pyro_bnn.logdensity import LogDensity
from pyro_bnn.trace import add_groups, open_trace

__all__ = ["record_line"]

_SPACES = {"weight": "posterior", "canonical": "canonical_posterior"}


def record_line(file: Path, density: LogDensity) -> None:
    """Add ``mode_line``: from the last draw of one chain to that of another, raw and canonical.

    The chains are the first and the last; the line is straight in unconstrained space. Nothing is
    added to a trace of one chain, or where those draws are not finite.

    Parameters
    ----------
    file : Path
        The trace.
    density : LogDensity
        Of the model, on its training data.
    """
    rows = max(1, density.rows)

    def evaluate(
        points: dict[str, NDArray[np.float64]],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        # One point at a time: a batch would hold the activations of all.
        values = []
        for point in torch.from_numpy(points["position"]).to(density.dtype).split(1):
            position = point.to(density.device)
            held = with_statistics(density, density.constrain(position))
            loss = -density.log_likelihood(position, None, held) / rows
            energy = density.potential(position, None, held)
            values.append(torch.stack([loss[0], -energy[0]]).cpu())
        loss, log_density = torch.stack(values, dim=1).double().numpy()
        return loss, log_density

    lines = {}
    with open_trace(file) as trace, torch.no_grad():
        for space, group in _SPACES.items():
            if group not in trace.children or trace[group].sizes["chain"] < 2:
                return
            ends = trace[group].to_dataset().isel(chain=[0, -1], draw=-1).load()
            values = {name: torch.from_numpy(ends[name].to_numpy()) for name in density.sites}
            if not all(bool(value.isfinite().all()) for value in values.values()):
                return
            on_device = {name: value.to(density.device) for name, value in values.items()}
            position = density.unconstrain(on_device).double().cpu().numpy()
            lines[space] = along({"position": position[0]}, {"position": position[1]}, evaluate)
    found = xr.Dataset(
        {
            name: (("space", "at"), np.stack([getattr(line, name) for line in lines.values()]))
            for name in ("loss", "log_density")
        },
        coords={"space": list(lines), "at": lines["weight"].at},
    )
    add_groups(file, {GROUP: found})
