"""Batch norm in training mode as part of a model: normalised by the rows at hand, or as told."""

from __future__ import annotations

import copy
from typing import Any, Self

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pyro_bnn.errors import UserError
from pyro_bnn.nn.outside_plates import outside_plates
from pyro_bnn.running_statistics import declare_statistic

__all__ = ["with_declared_statistics"]


def with_declared_statistics(net: nn.Module, prefix: str) -> nn.Module:
    """Return a network whose batch norms in training mode declare their statistics.

    Parameters
    ----------
    net : nn.Module
        Not changed; the copy that is returned shares its parameters and buffers. Without such a
        layer it is returned itself.
    prefix : str
        Put before the names of the statistics.
    """
    if not any(isinstance(layer, _BatchNorm) and layer.training for layer in net.modules()):
        return net
    shared = {id(tensor): tensor for tensor in (*net.parameters(), *net.buffers())}
    copied = copy.deepcopy(net, shared)
    for name, layer in copied.named_modules():
        if isinstance(layer, _BatchNorm) and layer.training:
            declaring: Any = layer
            declaring.kind = type(layer)
            declaring.label = f"layer {name!r} ({type(layer).__name__})"
            declaring.site = prefix + (f"{name}." if name else "")
            declaring.__class__ = _Declaring
    return copied


class _Declaring(_BatchNorm):
    """Batch norm whose mean and variance are sites of the model.

    The rows at hand are normalised by their own mean and variance, as `nn.BatchNorm1d` does in
    training mode; what is declared is what it would keep, the unbiased variance among it. Where
    the sites are held at other values, they count instead, as in evaluation mode. Nothing is
    updated in place. Switched to evaluation mode it is the layer that it was.
    """

    site: str
    label: str
    kind: Any

    def train(self, mode: bool = True) -> Self:
        """Stay in training mode, or become the layer that it was."""
        if not mode:
            self.__class__ = self.kind
        _BatchNorm.train(self, mode)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(row, channel, ...)``."""
        self.kind._check_input_dim(self, x)
        assert self.running_mean is not None
        axes = [axis for axis in range(x.ndim) if axis != 1]
        count = x.numel() // x.shape[1]
        wide = x.to(self.running_mean.dtype)
        mean, variance = wide.mean(axes), wide.var(axes, correction=min(1, count - 1))
        with outside_plates():
            held_mean = declare_statistic(f"{self.site}running_mean", mean, positive=False)
            held_variance = declare_statistic(f"{self.site}running_var", variance, positive=True)
        if held_mean is mean and held_variance is variance:
            if count < 2:
                raise UserError(
                    f"{self.label} is in training mode and got one value a channel, which has no "
                    "variance: take minibatches of two rows or more"
                )
            return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)
        return F.batch_norm(
            x,
            held_mean.reshape(mean.shape),
            held_variance.reshape(mean.shape),
            self.weight,
            self.bias,
            False,
            0.0,
            self.eps,
        )
