"""Noise in the outputs of layers instead of their weights: local reparametrisation and flipout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pyro_bnn.errors import UserError
from pyro_bnn.handlers import run_model, without_validation
from pyro_bnn.logdensity import LogDensity, Rows

__all__ = ["Layer", "find_layers", "noise_size", "run_noisily"]

_CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)
_LAYERS = (F.linear, *_CONVOLUTIONS)


class Layer(NamedTuple):
    """A weight that one kind of layer multiplies rows of data by.

    Attributes
    ----------
    local : bool
        Whether its outputs are drawn themselves; else rows get signs of their own.
    inputs, outputs : int
        Features or channels.
    bias : str or None
        Site of the bias, if it is one.
    """

    local: bool
    inputs: int
    outputs: int
    bias: str | None

    def size(self, rows: int) -> int:
        """Count the normal numbers that a minibatch takes."""
        return rows * (self.outputs if self.local else self.inputs + self.outputs)


def noise_size(layers: Mapping[str, Layer], rows: int) -> int:
    """Count the normal numbers that a minibatch takes in all layers."""
    return sum(layer.size(rows) for layer in layers.values())


def find_layers(density: LogDensity, indices: Rows | None, *, local: bool) -> dict[str, Layer]:
    """Run the model on one minibatch and see which sites are weights of layers.

    A weight counts if linear or convolution layers are all that it goes into, with the rows of
    the data on the first axis of their input. Outputs are drawn themselves where each weight
    meets a row once: in a linear layer of one input a row. Where it meets it more often, as in a
    convolution, they would be drawn as if each time with another weight.

    Parameters
    ----------
    density : LogDensity
        The posterior.
    indices : Tensor or tuple of Tensor, optional
        Rows of one member.
    local : bool
        Whether to draw outputs where that is possible.

    Raises
    ------
    UserError
        If no site is such a weight.
    """
    values = {
        name: torch.zeros(site.shape, dtype=density.dtype, device=density.device)
        for name, site in density.sites.items()
    }
    args, kwargs, _ = density.minibatch(indices)
    rows = _rows(density, indices)
    watch = _Watch({id(value): name for name, value in values.items()}, rows)
    with without_validation():
        run_model(_under(watch, density.model), values, args, kwargs, _numbers(indices))
    found = {}
    for name, (inputs, outputs, once, biases) in watch.weights.items():
        if name in watch.elsewhere:
            continue
        bias = next(iter(biases)) if len(biases) == 1 else None
        shared = bias is not None and sum(bias in w[3] for w in watch.weights.values()) > 1
        usable = bias is not None and not shared and bias not in watch.elsewhere
        found[name] = Layer(local and once, inputs, outputs, bias if usable else None)
    if not found:
        raise UserError(
            "no site of the model is the weight of a linear or convolution layer, which local "
            "reparametrisation and flipout need: lift() a network, call torch.nn.functional."
            "linear(x, w) in a model written by hand, or take estimator='plain'"
        )
    return found


def run_noisily(
    density: LogDensity,
    layers: Mapping[str, Layer],
    values: Mapping[str, Tensor],
    loc: Mapping[str, Tensor],
    scale: Mapping[str, Tensor],
    noise: Tensor,
    indices: Rows | None,
) -> tuple[Any, float]:
    """Run the model with noise in its layers; return Pyro's trace, and N / B of the minibatch.

    Parameters
    ----------
    density : LogDensity
        The posterior.
    layers : mapping of str to Layer
        As `find_layers` found them.
    values, loc, scale : mapping of str to Tensor
        Drawn values of the sites, their means and standard deviations.
    noise : Tensor
        Standard normal numbers ``(noise_size,)``.
    indices : Tensor or tuple of Tensor, optional
        Rows of the minibatch, without a chain axis.
    """
    args, kwargs, share = density.minibatch(indices)
    mode = _Noisy(layers, values, loc, scale, noise, _rows(density, indices))
    trace = run_model(_under(mode, density.model), values, args, kwargs, _numbers(indices))
    return trace, share


class _Noisy(TorchFunctionMode):
    """Runs layers on the means of their weights and adds noise of the right law for each row.

    Local reparametrisation (Kingma et al. 2015, equation 6) draws the outputs of a layer,
    ``x m' + sqrt(x^2 v') e``; flipout (Wen et al. 2018, equation 3) gives each row signs r, s of
    its own, ``x m' + ((x s) (w - m)') r``. Either way each row sees weights of the guide's law, so
    that the expected log likelihood, a sum over rows, is that of one draw for all of them.
    """

    def __init__(
        self,
        layers: Mapping[str, Layer],
        values: Mapping[str, Tensor],
        loc: Mapping[str, Tensor],
        scale: Mapping[str, Tensor],
        noise: Tensor,
        rows: int,
    ) -> None:
        super().__init__()
        self._layers = layers
        self._names = {id(value): name for name, value in values.items()}
        self._values, self._loc, self._scale = values, loc, scale
        self._rows = rows
        pieces = noise.split([layer.size(rows) for layer in layers.values()])
        self._noise = dict(zip(layers, pieces, strict=True))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace the call of a layer whose weight is known."""
        kwargs = kwargs or {}
        if func not in _LAYERS:
            return func(*args, **kwargs)
        x, weight, bias, rest, named = _arguments(args, kwargs)
        name = self._names.get(id(weight))
        if name is None or name not in self._layers:
            return func(*args, **kwargs)
        layer = self._layers[name]
        known = layer.bias if bias is not None and self._names.get(id(bias)) == layer.bias else None

        def call(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            result: Tensor = func(x, weight, bias, *rest, **named)
            return result

        mean = call(x, self._loc[name], bias if known is None else self._loc[known])
        if layer.local:
            deviations = None if known is None else self._scale[known].square()
            variance = call(x.square(), self._scale[name].square(), deviations)
            drawn = self._noise[name].reshape(mean.shape)
            # The gradient of a root is infinite at zero, where a row of zeros has no variance.
            tiny = torch.finfo(variance.dtype).tiny
            return mean + variance.clamp(min=tiny).sqrt() * drawn
        signs = torch.where(self._noise[name] < 0, -1.0, 1.0).to(x.dtype)
        first, last = signs.split([self._rows * layer.inputs, self._rows * layer.outputs])
        change = self._values[name] - self._loc[name]
        shift = None if known is None else self._values[known] - self._loc[known]
        axis = -1 if func is F.linear else 1
        into = _along(first.reshape(self._rows, -1), x.ndim, axis)
        out = _along(last.reshape(self._rows, -1), x.ndim, axis)
        return mean + call(x * into, change, shift) * out


class _Watch(TorchFunctionMode):
    """Notes which sites go into layers as weights, and which go anywhere else."""

    def __init__(self, names: Mapping[int, str], rows: int) -> None:
        super().__init__()
        self._names = names
        self._rows = rows
        self.weights: dict[str, tuple[int, int, bool, set[str | None]]] = {}
        self.elsewhere: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in _LAYERS:
            x, weight, bias, _, _ = _arguments(args, kwargs)
            name = self._names.get(id(weight))
            if name is not None and x.ndim > 1 and len(x) == self._rows:
                channels = -1 if func is F.linear else 1
                biases = {None if bias is None else self._names.get(id(bias))}
                once = func is F.linear and x.ndim == 2 and name not in self.weights
                before = self.weights.get(name)
                self.weights[name] = (
                    x.shape[channels],
                    result.shape[channels],
                    once,
                    biases if before is None else before[3] | biases,
                )
                return result
        if isinstance(result, Tensor):
            for leaf in (*args, *kwargs.values()):
                if id(leaf) in self._names:
                    self.elsewhere.add(self._names[id(leaf)])
        return result


def _under(mode: TorchFunctionMode, model: Callable[..., Any]) -> Callable[..., Any]:
    """Let a mode see what the model itself calls, and not the densities of its sites."""

    def run(*args: Any, **kwargs: Any) -> Any:
        with mode:
            return model(*args, **kwargs)

    return run


def _arguments(
    args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Tensor, Tensor, Tensor | None, tuple[Any, ...], dict[str, Any]]:
    """Input, weight, bias and what else a layer is called with."""
    named = dict(kwargs)
    given = list(args)
    first = [given.pop(0) if given else named.pop(n, None) for n in ("input", "weight", "bias")]
    return first[0], first[1], first[2], tuple(given), named


def _along(signs: Tensor, ndim: int, axis: int) -> Tensor:
    """Give ``(row, feature)`` the axes of a layer's input."""
    shape = [1] * ndim
    shape[0], shape[axis] = signs.shape
    return signs.reshape(shape)


def _rows(density: LogDensity, indices: Rows | None) -> int:
    if indices is None:
        return density.rows
    return indices.shape[-1] if isinstance(indices, Tensor) else len(indices[0])


def _numbers(indices: Rows | None) -> Tensor | None:
    return indices if isinstance(indices, Tensor) else None
