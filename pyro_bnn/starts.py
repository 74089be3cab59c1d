"""Where chains start: draws of a model's sites by one of Pyro's strategies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.poutine as poutine
import torch
from pyro.infer.autoguide.initialization import InitMessenger
from torch import Tensor

from pyro_bnn.handlers import full_plates, latent_nodes, without_validation
from pyro_bnn.pyro_model import PyroModel

__all__ = ["draw_starts"]


def draw_starts(
    model: PyroModel, count: int, generator: torch.Generator, strategy: Callable[..., Any]
) -> Tensor:
    """Draw positions ``(count, dim)``, finite or not, by one of Pyro's ``init_to_*`` functions."""
    seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
    draws: list[dict[str, Tensor]] = []
    with (
        torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []),
        torch.no_grad(),
        without_validation(),
        full_plates(None),
    ):
        # The generator of the CPU alone, where that is enough: torch's manual_seed() formats a
        # traceback for the devices that are not in use.
        on_cpu = model.device.type == "cpu"
        (torch.default_generator.manual_seed if on_cpu else torch.manual_seed)(seed)
        begun = InitMessenger(strategy)(model.model)
        for _ in range(count):
            trace = poutine.trace(begun).get_trace(*model.some.args, **model.some.kwargs)
            draws.append({name: node["value"] for name, node in latent_nodes(trace)})
    return model.unconstrain({n: torch.stack([draw[n] for draw in draws]) for n in model.sites})
