"""Convolutions of a batch of chains, each with its own filters, over data that lie last in memory.

Images are ``(chain, data, channel, height, width)`` in shape and ``(chain, channel, height, width,
data)`` in memory. The patches under a filter are then copies of whole rows of data, a convolution
is a matrix product for each chain, and what follows it runs along the data. A few channels, which
leave the blocked kernels of oneDNN mostly empty, fill it: this is what small networks have.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["convolve", "convolve_inputs", "convolve_weights"]

# Elements of the patches that are unfolded at a time, to stay in cache.
_BAND = 2**18
# From so many units on a product with patches is faster the other way round.
_MANY_UNITS = 16


class _Geometry(NamedTuple):
    """How a filter is laid over an image, and what comes out."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int
    kernel: tuple[int, int]
    out: tuple[int, int]

    def bands(self, channels: int, data: int) -> Iterator[tuple[int, int]]:
        """Go through the rows of the result in bands whose patches stay in cache."""
        each = channels * self.kernel[0] * self.kernel[1] * self.out[1] * data
        rows = max(1, _BAND // max(each, 1))
        for first in range(0, self.out[0], rows):
            yield first, min(first + rows, self.out[0])

    def add_up(self, unfolded: Tensor, padded: Tensor, band: tuple[int, int]) -> None:
        """Add patches ``(channel * taps, pixel * data)`` to the images they were taken from."""
        rows = band[1] - band[0]
        channels, data = padded.shape[0], padded.shape[3]
        patches = unfolded.view(channels, *self.kernel, rows, self.out[1], data)
        top, down = band[0] * self.stride[0], self.dilation[0]
        height = down * (self.kernel[0] - 1) + 1
        width = self.stride[1] * (self.out[1] - 1) + 1
        for column in range(self.kernel[1]):
            left = column * self.dilation[1]
            under = padded[:, :, left : left + width : self.stride[1]]
            part = patches[:, :, column]
            if rows == 1:
                # The rows of a filter lie on as many rows of the image: one call adds them all.
                under[:, top : top + height : down].add_(part.squeeze(2))
                continue
            span = self.stride[0] * (rows - 1) + 1
            for row in range(self.kernel[0]):
                first = top + row * down
                under[:, first : first + span : self.stride[0]].add_(part[:, row])

    def patches(self, padded: Tensor, band: tuple[int, int]) -> Tensor:
        """Unfold ``(channel, height, width, data)`` into ``(channel * taps, pixel * data)``."""
        channel, height, width, data = padded.stride()
        view = padded.as_strided(
            (padded.shape[0], *self.kernel, band[1] - band[0], self.out[1], padded.shape[3]),
            (
                channel,
                height * self.dilation[0],
                width * self.dilation[1],
                height * self.stride[0],
                width * self.stride[1],
                data,
            ),
            padded.storage_offset() + band[0] * self.stride[0] * height,
        )
        return view.reshape(padded.shape[0] * self.kernel[0] * self.kernel[1], -1)


def _geometry(
    image: tuple[int, int],
    kernel: tuple[int, int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> _Geometry:
    height, width = (
        (image[axis] + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1) // stride[axis]
        + 1
        for axis in (0, 1)
    )
    return _Geometry(stride, padding, dilation, groups, kernel, (height, width))


def _convolve(
    x: Tensor, w: Tensor, stride: list[int], padding: list[int], dilation: list[int], groups: int
) -> Tensor:
    """Convolve ``x (chain or 1, data, channel, height, width)`` with each chain's filters."""
    if x.shape[0] == groups == 1 < w.shape[0]:
        # All chains look at the same images: their filters are those of one large chain.
        whole = _convolve(x, w.reshape(1, -1, *w.shape[2:]), stride, padding, dilation, groups)
        return whole.unflatten(2, w.shape[:2])[0].transpose(0, 1)
    chains, units, channels, *_ = w.shape
    geometry = _geometry(_pair(x), _pair(w), stride, padding, dilation, groups)
    result = _empty(x, chains, units, geometry.out)
    padded = _padded(x, padding)
    filters = w.reshape(chains, groups, units // groups, -1)
    data = x.shape[1]
    for image, which in _images(padded, chains):
        for band in geometry.bands(channels, data):
            for group in range(groups):
                part = image[group * channels : (group + 1) * channels]
                unfolded = geometry.patches(part, band)
                rows = slice(group * (units // groups), (group + 1) * (units // groups))
                for chain in which:
                    place = result[chain, rows, band[0] : band[1]].reshape(units // groups, -1)
                    torch.mm(filters[chain, group], unfolded, out=place)
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
    geometry = _geometry(_pair(x), (height, width), stride, padding, dilation, groups)
    result = x.new_zeros(chains, groups, units // groups, channels * height * width)
    flips = units // groups >= _MANY_UNITS
    if flips:
        result = result.transpose(2, 3).contiguous().transpose(2, 3)
    padded = _padded(x, padding)
    above = _data_last(gradient)
    for image, which in _images(padded, chains):
        for band in geometry.bands(channels, data):
            for group in range(groups):
                part = image[group * channels : (group + 1) * channels]
                unfolded = geometry.patches(part, band)
                rows = slice(group * (units // groups), (group + 1) * (units // groups))
                for chain in which:
                    slope = above[chain, rows, band[0] : band[1]].reshape(units // groups, -1)
                    if flips:
                        result[chain, group].T.addmm_(unfolded, slope.T)
                    else:
                        result[chain, group].addmm_(slope, unfolded.T)
    return result.reshape(chains, units, channels, height, width)


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
    geometry = _geometry((height, width), _pair(w), stride, padding, dilation, groups)
    large = (height + 2 * padding[0], width + 2 * padding[1])
    padded = gradient.new_zeros(chains, groups * channels, *large, data)
    filters = w.reshape(chains, groups, units // groups, -1).transpose(2, 3)
    above = _data_last(gradient)
    for chain in range(chains):
        for band in geometry.bands(channels, data):
            for group in range(groups):
                rows = slice(group * (units // groups), (group + 1) * (units // groups))
                slope = above[chain, rows, band[0] : band[1]].reshape(units // groups, -1)
                part = padded[chain, group * channels : (group + 1) * channels]
                geometry.add_up(filters[chain, group] @ slope, part, band)
    inner = padded[
        :, :, padding[0] : padding[0] + height, padding[1] : padding[1] + width
    ].contiguous()
    return inner.permute(0, 4, 1, 2, 3)


def _pair(images: Tensor) -> tuple[int, int]:
    return images.shape[-2], images.shape[-1]


def _images(padded: Tensor, chains: int) -> Iterator[tuple[Tensor, range]]:
    """Go through the images and the chains that look at them: all of them where all share one."""
    if padded.shape[0] < chains:
        yield padded[0], range(chains)
    else:
        for chain in range(chains):
            yield padded[chain], range(chain, chain + 1)


def _data_last(images: Tensor) -> Tensor:
    return images.permute(0, 2, 3, 4, 1).contiguous()


def _padded(images: Tensor, padding: list[int]) -> Tensor:
    rows, columns = padding
    last = images.permute(0, 2, 3, 4, 1)
    if not rows and not columns:
        return last.contiguous()
    return torch.nn.functional.pad(last, (0, 0, columns, columns, rows, rows))


def _empty(like: Tensor, chains: int, channels: int, image: tuple[int, int]) -> Tensor:
    return like.new_empty(chains, channels, *image, like.shape[1])


def _convolve_shape(
    x: Tensor, w: Tensor, stride: list[int], padding: list[int], dilation: list[int], groups: int
) -> Tensor:
    out = _geometry(_pair(x), _pair(w), stride, padding, dilation, groups).out
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
