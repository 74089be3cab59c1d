"""The passes in their order."""

from __future__ import annotations

import torch
from torch.fx import GraphModule

from pyro_bnn.passes.activations import activate_after_pooling
from pyro_bnn.passes.biases import fold_biases
from pyro_bnn.passes.convolutions import unfold_convolutions
from pyro_bnn.passes.identities import drop_identities
from pyro_bnn.passes.inplace import reuse_memory
from pyro_bnn.passes.layout import lay_out_constants
from pyro_bnn.passes.onednn import use_onednn
from pyro_bnn.passes.pooling import pool_data_last
from pyro_bnn.passes.products import lay_out_products
from pyro_bnn.passes.repeats import drop_repeats
from pyro_bnn.passes.sites import merge_sites
from pyro_bnn.passes.softmax import use_log_softmax
from pyro_bnn.passes.tanh import use_rational_tanh
from pyro_bnn.passes.views import join_views

__all__ = ["optimise", "prepare_for_compiler"]


def optimise(module: GraphModule, device: torch.device) -> None:
    """Rewrite a traced gradient, in place, to run faster as it is.

    Parameters
    ----------
    module : GraphModule
        What `trace_graph` made of a batched function of a flat position ``(chain, dim)``.
    device : torch.device
        Where it runs.
    """
    _rearrange(module, device)
    fold_biases(module)
    use_log_softmax(module)
    if device.type == "cpu":
        use_onednn(module)
    lay_out_constants(module)
    drop_identities(module)
    reuse_memory(module)


def prepare_for_compiler(module: GraphModule, device: torch.device) -> None:
    """Rewrite a traced gradient, in place, in the ways that a compiler does not find.

    It joins element-wise operators, reductions and biases by itself.

    Parameters
    ----------
    module : GraphModule
        What `trace_graph` made of a batched function of a flat position ``(chain, dim)``.
    device : torch.device
        Where it runs.
    """
    _rearrange(module, device)
    if device.type == "cpu":
        use_onednn(module, activations=False)
    use_rational_tanh(module)
    lay_out_constants(module)
    drop_identities(module)


def _rearrange(module: GraphModule, device: torch.device) -> None:
    drop_identities(module)
    if device.type == "cpu":
        join_views(module)
        drop_identities(module)
        activate_after_pooling(module)
        unfold_convolutions(module)
        pool_data_last(module)
        join_views(module)
        drop_identities(module)
    lay_out_products(module)
    drop_identities(module)
    drop_repeats(module)
    merge_sites(module)
