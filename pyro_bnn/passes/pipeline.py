"""The passes in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch.fx import GraphModule

from pyro_bnn.passes.activations import activate_after_pooling
from pyro_bnn.passes.biases import fold_biases
from pyro_bnn.passes.convolutions import unfold_convolutions
from pyro_bnn.passes.fused_pools import fuse_pools
from pyro_bnn.passes.gathers import pick_whole_rows
from pyro_bnn.passes.identities import drop_identities
from pyro_bnn.passes.inplace import reuse_memory
from pyro_bnn.passes.layout import lay_out_constants
from pyro_bnn.passes.onednn import use_onednn
from pyro_bnn.passes.pooling import pool_data_last
from pyro_bnn.passes.products import lay_out_products
from pyro_bnn.passes.repeats import drop_repeats
from pyro_bnn.passes.rewrite import compiled_once
from pyro_bnn.passes.sites import merge_sites
from pyro_bnn.passes.softmax import use_log_softmax
from pyro_bnn.passes.tanh import use_rational_tanh
from pyro_bnn.passes.views import join_views

__all__ = ["optimise", "prepare_for_compiler"]

Pass = Callable[[GraphModule], None]


def optimise(module: GraphModule, device: torch.device) -> list[str]:
    """Rewrite a traced gradient, in place, to run faster as it is.

    Parameters
    ----------
    module : GraphModule
        What `trace_graph` made of a batched function of a flat position ``(chain, dim)``.
    device : torch.device
        Where it runs.

    Returns
    -------
    list of str
        Names of the passes that found something to rewrite, in their order.
    """
    passes = [*_rearranging(device), fold_biases, use_log_softmax]
    if device.type == "cpu":
        passes += [use_onednn, pick_whole_rows]
    return _apply([*passes, lay_out_constants, drop_identities, reuse_memory], module)


def prepare_for_compiler(module: GraphModule, device: torch.device) -> list[str]:
    """Rewrite a traced gradient, in place, in the ways that a compiler does not find.

    It joins element-wise operators, reductions and biases by itself.

    Parameters
    ----------
    module : GraphModule
        What `trace_graph` made of a batched function of a flat position ``(chain, dim)``.
    device : torch.device
        Where it runs.

    Returns
    -------
    list of str
        Names of the passes that found something to rewrite, in their order.
    """
    passes = _rearranging(device)
    if device.type == "cpu":
        passes.append(partial(use_onednn, activations=False))
    return _apply([*passes, use_rational_tanh, lay_out_constants, drop_identities], module)


def _rearranging(device: torch.device) -> list[Pass]:
    """List the passes that choose layouts, which come first."""
    passes: list[Pass] = [drop_identities]
    if device.type == "cpu":
        passes += [
            join_views,
            drop_identities,
            activate_after_pooling,
            unfold_convolutions,
            pool_data_last,
            join_views,
            drop_identities,
            fuse_pools,
            join_views,
            drop_identities,
        ]
    return [*passes, lay_out_products, drop_identities, drop_repeats, merge_sites]


def _apply(passes: Iterable[Pass], module: GraphModule) -> list[str]:
    """Let one pass after the other rewrite the graph; name those that changed it, each once."""
    changed: dict[str, None] = {}
    with compiled_once(module):
        before = _nodes(module)
        for rewrite in passes:
            rewrite(module)
            after = _nodes(module)
            if after != before:
                function = rewrite.func if isinstance(rewrite, partial) else rewrite
                changed[function.__name__] = None
            before = after
    return list(changed)


def _nodes(module: GraphModule) -> list[tuple[Any, ...]]:
    """Note what each node computes and from what; nodes are compared by identity."""
    return [(node, node.target, node.args, node.kwargs) for node in module.graph.nodes]
