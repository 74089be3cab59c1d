"""Weight matching: one space assigned at a time until nothing is gained (Ainsworth et al., 2023).

Where it ends depends on where it starts. From the labels as they are it is therefore not a
canonical map; it polishes what Frank-Wolfe has found.
"""

from __future__ import annotations

import torch

from pyro_bnn.symmetry.overlap import Overlap
from pyro_bnn.symmetry.overlap_block import Matrices


def weight_matching(overlap: Overlap, x: Matrices, sweeps: int = 50) -> None:
    """Climb from a vertex by linear assignments, in place.

    Parameters
    ----------
    overlap : Overlap
    x : dict of str to Tensor
        ``(batch, size, size)`` for each space, permutation matrices.
    sweeps : int
        Most rounds over all spaces.
    """
    active = torch.arange(overlap.batch, device=overlap.device)
    for _ in range(sweeps):
        gained = torch.zeros(len(active), dtype=torch.bool, device=overlap.device)
        here = {name: m[active] for name, m in x.items()}
        for bundle in overlap.bundles:
            names = [mover.name for mover in bundle]
            gradient = overlap.gradients_at(here, names)
            better = overlap.vertex(gradient, bundle)
            products = [(gradient[n] * (better[n] - here[n])).flatten(1).sum(-1) for n in names]
            scale = [(gradient[n] * here[n]).flatten(1).sum(-1).abs() for n in names]
            up = torch.stack(products).sum(0) > 1e-10 * torch.stack(scale).sum(0)
            if not overlap.linear_in(names):
                trial = {**here, **better}
                up &= overlap.value(trial) > overlap.value(here)
            for name in names:
                here[name] = torch.where(up[:, None, None], better[name], here[name])
            gained |= up
        for name, m in here.items():
            x[name][active] = m
        if not bool(gained.any()):
            return
        active = active[gained]
        overlap = overlap.take(gained)
