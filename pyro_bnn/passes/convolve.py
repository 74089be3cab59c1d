"""Convolutions of a batch of chains, each with its own filters, over data that lie last in memory.

Images are ``(chain, data, channel, height, width)`` in shape and ``(chain, channel, height, width,
data)`` in memory. The patches under a filter are then copies of whole rows of data, a convolution
is a matrix product for each chain, and what follows it runs along the data. A few channels, which
leave the blocked kernels of oneDNN mostly empty, fill it: this is what small networks have.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_bnn.passes.patches import Geometry, by_group, data_last, pad, size, unpad

__all__ = ["convolve", "convolve_inputs", "convolve_weights"]

# From so many units on a product with patches is faster the other way round.
_MANY_UNITS = 16


def _convolve(
    x: Tensor, w: Tensor, stride: list[int], padding: list[int], dilation: list[int], groups: int
) -> Tensor:
    """Convolve ``x (chain, data, channel, height, width)`` with each chain's filters.

    Where all chains share one image, `x` has one chain and `groups` is one.
    """
    if x.shape[0] == groups == 1 < w.shape[0]:
        # All chains look at the same images: their filters are those of one large chain.
        whole = _convolve(x, w.reshape(1, -1, *w.shape[2:]), stride, padding, dilation, groups)
        split: Tensor = whole.unflatten(2, w.shape[:2])[0]
        return split.transpose(0, 1)
    chains, units, channels, *_ = w.shape
    geometry = Geometry.over(size(x), size(w), stride, padding, dilation, groups)
    result = _empty(x, chains, units, geometry.out)
    data = x.shape[1]
    filters = w.reshape(chains * groups, units // groups, -1)
    places = result.view(chains * groups, units // groups, -1)
    images = by_group(pad(x, padding), groups)
    taps = geometry.taps(channels)
    for some in geometry.sets(len(images), taps, data):
        for band in geometry.bands(taps, data):
            unfolded = geometry.patches(images[some], band)
            columns = geometry.columns(band, data)
            torch.bmm(filters[some], unfolded, out=places[some, :, columns])
    return result.permute(0, 4, 1, 2, 3)


def _convolve_weights(
    gradient: Tensor,
    x: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    """Gradient of the filters ``(chain, unit, channel, *kernel)``."""
    chains, data, units = gradient.shape[:3]
    channels = x.shape[2] // groups
    height, width = kernel
    if x.shape[0] == groups == 1 < chains:
        whole = gradient.transpose(0, 1).flatten(1, 2).unsqueeze(0)
        one = _convolve_weights(whole, x, kernel, stride, padding, dilation, groups)
        return one.view(chains, units, channels, height, width)
    geometry = Geometry.over(size(x), (height, width), stride, padding, dilation, groups)
    each, taps = units // groups, channels * height * width
    flips = each >= _MANY_UNITS
    result = x.new_zeros(chains * groups, *((taps, each) if flips else (each, taps)))
    slopes = data_last(gradient).view(chains * groups, each, -1)
    images = by_group(pad(x, padding), groups)
    for some in geometry.sets(len(images), taps, data):
        for band in geometry.bands(taps, data):
            unfolded = geometry.patches(images[some], band)
            part = slopes[some, :, geometry.columns(band, data)]
            if flips:
                result[some].baddbmm_(unfolded, part.mT)
            else:
                result[some].baddbmm_(part, unfolded.mT)
    if flips:
        result = result.transpose(1, 2).contiguous()
    return result.view(chains, units, channels, height, width)


def _convolve_inputs(
    gradient: Tensor,
    w: Tensor,
    image: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    """Gradient of the images ``(chain, data, channel, *image)``."""
    chains, data, units = gradient.shape[:3]
    channels = w.shape[2]
    height, width = image
    geometry = Geometry.over((height, width), size(w), stride, padding, dilation, groups)
    large = (height + 2 * padding[0], width + 2 * padding[1])
    padded = gradient.new_zeros(chains, groups * channels, *large, data)
    filters = w.reshape(chains * groups, units // groups, -1).mT
    slopes = data_last(gradient).view(chains * groups, units // groups, -1)
    targets, taps = by_group(padded, groups), geometry.taps(channels)
    for some in geometry.sets(len(targets), taps, data):
        for band in geometry.bands(taps, data):
            part = slopes[some, :, geometry.columns(band, data)]
            geometry.add_up(filters[some] @ part, targets[some], band)
    return unpad(padded, padding)


def _empty(like: Tensor, chains: int, channels: int, image: tuple[int, int]) -> Tensor:
    return like.new_empty(chains, channels, *image, like.shape[1])


def _convolve_shape(
    x: Tensor, w: Tensor, stride: list[int], padding: list[int], dilation: list[int], groups: int
) -> Tensor:
    out = Geometry.over(size(x), size(w), stride, padding, dilation, groups).out
    return _empty(x, w.shape[0], w.shape[1], out).permute(0, 4, 1, 2, 3)


def _weights_shape(
    gradient: Tensor,
    x: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    return x.new_empty(gradient.shape[0], gradient.shape[2], x.shape[2] // groups, *kernel)


def _inputs_shape(
    gradient: Tensor,
    w: Tensor,
    image: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    whole = _empty(gradient, gradient.shape[0], w.shape[2] * groups, (image[0], image[1]))
    return whole.permute(0, 4, 1, 2, 3)


_library = torch.library.Library("pyro_bnn", "FRAGMENT")
_WAY = "int[] stride, int[] padding, int[] dilation, int groups) -> Tensor"
_library.define(f"convolve(Tensor x, Tensor w, {_WAY}")
_library.define(f"convolve_weights(Tensor gradient, Tensor x, int[] kernel, {_WAY}")
_library.define(f"convolve_inputs(Tensor gradient, Tensor w, int[] image, {_WAY}")
_library.impl("convolve", _convolve, "CPU")
_library.impl("convolve", _convolve_shape, "Meta")
_library.impl("convolve_weights", _convolve_weights, "CPU")
_library.impl("convolve_weights", _weights_shape, "Meta")
_library.impl("convolve_inputs", _convolve_inputs, "CPU")
_library.impl("convolve_inputs", _inputs_shape, "Meta")

convolve = torch.ops.pyro_bnn.convolve.default
convolve_weights = torch.ops.pyro_bnn.convolve_weights.default
convolve_inputs = torch.ops.pyro_bnn.convolve_inputs.default
