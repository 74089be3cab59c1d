"""Lift an ``nn.Module`` into a Pyro model by giving its parameters priors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import pyro
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from pyro_bnn.errors import UserError
from pyro_bnn.nn.batch_norm import with_declared_statistics
from pyro_bnn.nn.outside_plates import outside_plates
from pyro_bnn.nn.priors import HierarchicalPrior, Prior

__all__ = ["Lifted", "lift"]

AnyPrior = Prior | HierarchicalPrior


def lift(
    net: nn.Module,
    prior: AnyPrior | Mapping[str, AnyPrior],
    *,
    freeze: Sequence[str] = (),
    prefix: str = "",
) -> Lifted:
    """Make a network Bayesian without touching it.

    Parameters
    ----------
    net : nn.Module
        Any module that computes the same output each time: dropout in evaluation mode, no
        buffers that update. Batch norm in evaluation mode has the running statistics that the
        network holds, constants of the model. In training mode it normalises rows by their own
        mean and variance while a guide or kernel is at work; every draw then has statistics of
        its own, those of the training rows under its weights, which stand beside the weights in
        the trace.
    prior : Prior, HierarchicalPrior, or mapping of patterns to them
        One prior for all parameters, or a dict from shell-style patterns of parameter names
        (``"*.bias"``) to priors; the first pattern that fits counts.
    freeze : sequence of str
        Patterns of parameters that keep the values they have.
    prefix : str
        Put before every site name, for models with several networks.

    Returns
    -------
    Lifted
        A callable for use inside a Pyro model. Its sites bear the parameters' dotted names. Its
        ``str`` is a table of what each parameter got.

    Raises
    ------
    UserError
        If a parameter has neither a prior nor a place in `freeze`, a pattern fits no parameter,
        or the module cannot be lifted; the sentence names the parameter or layer.

    Examples
    --------
    >>> import pyro, torch
    >>> from torch import nn
    >>> from pyro_bnn.nn import Normal
    >>> bnn = lift(nn.Linear(3, 2), prior=Normal(scale="fan_in"))
    >>> sorted(pyro.poutine.trace(bnn).get_trace(torch.zeros(5, 3)).stochastic_nodes)
    ['bias', 'weight']
    """
    return Lifted(net, prior, freeze=freeze, prefix=prefix)


class Lifted:
    """A network whose parameters are latent sites; see `lift`."""

    def __init__(
        self,
        net: nn.Module,
        prior: AnyPrior | Mapping[str, AnyPrior],
        *,
        freeze: Sequence[str] = (),
        prefix: str = "",
    ) -> None:
        _refuse_unfit_layers(net)
        self.net = net
        self._run = with_declared_statistics(net, prefix)
        self.prefix = prefix
        self.priors: dict[str, AnyPrior] = {}
        self.fan_in: dict[str, int] = {}
        rules = prior if isinstance(prior, Mapping) else {"*": prior}
        parameters = dict(net.named_parameters())
        _refuse_idle_patterns([*rules, *freeze], parameters)
        without = []
        for name in parameters:
            if any(fnmatchcase(name, pattern) for pattern in freeze):
                continue
            chosen = next((rules[p] for p in rules if fnmatchcase(name, p)), None)
            if chosen is None:
                without.append(name)
                continue
            self.priors[name] = chosen
            self.fan_in[name] = _fan_in(name, parameters)
        if without:
            raise UserError(
                f"no prior for parameter {', '.join(map(repr, without))}: give one by name or "
                "pattern, or keep the value with freeze="
            )
        if not self.priors:
            raise UserError("the network has no parameter left to be given a prior")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Sample every parameter and run the network with the sampled values."""
        values: dict[str, Tensor] = {
            name: parameter.detach()
            for name, parameter in self.net.named_parameters()
            if name not in self.priors
        }
        with outside_plates():
            for name, prior in self.priors.items():
                parameter = self.net.get_parameter(name).detach()
                site, fan_in = self.prefix + name, self.fan_in[name]
                if isinstance(prior, HierarchicalPrior):
                    law = prior.conditional(site, parameter, fan_in)
                else:
                    law = prior(parameter, fan_in)
                values[name] = pyro.sample(site, law)
        buffers = {name: buffer.clone() for name, buffer in self.net.named_buffers()}
        versions = {name: buffer._version for name, buffer in buffers.items()}
        output = functional_call(self._run, (values, buffers), args, kwargs)
        updated = [name for name, buffer in buffers.items() if buffer._version != versions[name]]
        if updated:
            raise UserError(
                f"buffer {updated[0]!r} changes when the network runs: call .eval() on its layer "
                "or replace it by one without running state (nn.GroupNorm, nn.LayerNorm)"
            )
        return output

    def __str__(self) -> str:
        """Return a table: parameter, shape, inputs of its layer, prior."""
        rows = [("parameter", "shape", "fan-in", "prior")]
        for name, parameter in self.net.named_parameters():
            shape = " x ".join(map(str, parameter.shape)) or "scalar"
            fan_in = str(self.fan_in.get(name, "-"))
            rows.append((name, shape, fan_in, str(self.priors.get(name, "frozen"))))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = (
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            for row in rows
        )
        return "\n".join(line.rstrip() for line in lines)


def _refuse_unfit_layers(net: nn.Module) -> None:
    for name, layer in net.named_modules():
        label = f"layer {name!r} ({type(layer).__name__})"
        if isinstance(layer, _BatchNorm) and layer.running_mean is None:
            raise UserError(
                f"{label} keeps no running statistics, so that what it predicts depends on the "
                "other rows: leave out track_running_stats=False, or use nn.GroupNorm or "
                "nn.LayerNorm instead"
            )
        if isinstance(layer, _InstanceNorm) and layer.training and layer.track_running_stats:
            raise UserError(
                f"{label} is in training mode and updates its running statistics: call .eval() on "
                "it, or leave out track_running_stats"
            )
        dropout = isinstance(layer, nn.modules.dropout._DropoutNd)
        if dropout and layer.training and layer.p > 0:
            raise UserError(
                f"{label} is in training mode and draws random masks: call .eval() on it"
            )


def _refuse_idle_patterns(patterns: Sequence[str], parameters: Mapping[str, Tensor]) -> None:
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in parameters):
            raise UserError(
                f"pattern {pattern!r} fits no parameter; the network has {', '.join(parameters)}"
            )


def _fan_in(name: str, parameters: Mapping[str, Tensor]) -> int:
    """Count the inputs of a parameter's layer; a bias has those of the weight beside it.

    In an attention layer that of ``in_proj_bias`` is ``in_proj_weight``.
    """
    parameter = parameters[name]
    if parameter.ndim < 2:
        layer, dot, own = name.rpartition(".")
        names = [layer + dot + beside for beside in (own.replace("bias", "weight"), "weight")]
        weights = [parameters[n] for n in names if n in parameters and parameters[n].ndim > 1]
        if not weights:
            return 1
        parameter = weights[0]
    return parameter[0].numel()
