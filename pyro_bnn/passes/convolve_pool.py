"""Convolutions with the max-pooling behind them, a band of pixels at a time, in cache.

A maximum over a window of pixels is the maximum of as many convolutions: their filters are the
same, one pixel apart, and they move by the stride of the pool. The filters for all pixels of a
window, each among zeros in a larger patch, are the rows of one matrix. Its product with the
patches is larger than that of the convolution alone, but of a shape that a processor is faster
at, unfolds fewer patches, and is pooled before it leaves the cache. What is kept for the backward
pass is the pixel that won, one number for each window.

Layouts are those of `convolve`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pyro_bnn.passes.patches import Geometry, by_group, data_last, pad, size, unpad

__all__ = ["MOST_PIXELS", "convolve_pool", "pooled_inputs", "pooled_weights", "work_ratio"]

# Pixels of a window of which float32 can tell, by a bit each but for the first, which one won.
MOST_PIXELS = 25
# Rows of a product that is fast, and whose result stays in cache.
_ROWS = 64


def work_ratio(
    kernel: tuple[int, ...], stride: list[int], window: list[int], step: list[int]
) -> float:
    """Return the multiplications of a pooled convolution over those of the convolution alone."""
    ratio = 1.0
    for axis in (0, 1):
        large = kernel[axis] + (window[axis] - 1) * stride[axis]
        ratio *= window[axis] * large / (step[axis] * kernel[axis])
    return ratio


def _geometry(
    image: tuple[int, int],
    kernel: tuple[int, int],
    stride: list[int],
    padding: list[int],
    groups: int,
    window: list[int],
    step: list[int],
) -> Geometry:
    """Lay the patch that a whole window sees over an image."""
    height, width = (kernel[a] + (window[a] - 1) * stride[a] for a in (0, 1))
    moves = [stride[axis] * step[axis] for axis in (0, 1)]
    return Geometry.over(image, (height, width), moves, padding, [1, 1], groups)


def _by_pixel(spread: Tensor, kernel: tuple[int, int], stride: list[int]) -> Iterator[Tensor]:
    """Go through the pixels of a window: the places of their filters among the zeros.

    `spread` is ``(filters, *window, unit, channel, *patch)``.
    """
    for row in range(spread.shape[1]):
        for column in range(spread.shape[2]):
            top, left = row * stride[0], column * stride[1]
            yield spread[:, row, column, :, :, top : top + kernel[0], left : left + kernel[1]]


def _spread(w: Tensor, each: int, stride: list[int], window: list[int]) -> Tensor:
    """Repeat filters, some in a set, for each pixel of a window: ``(set, pixel * unit, patch)``."""
    _, _, channels, *kernel = w.shape
    filters = w.reshape(-1, each, channels, *kernel)
    patch = [kernel[a] + (window[a] - 1) * stride[a] for a in (0, 1)]
    spread = w.new_zeros(len(filters), *window, each, channels, *patch)
    for place in _by_pixel(spread, size(w), stride):
        place.copy_(filters)
    return spread.view(len(filters), window[0] * window[1] * each, -1)


def _set_size(x: Tensor, chains: int, units: int, groups: int, pixels: int) -> int:
    """Return how many filters are multiplied at a time with patches that all of them look at.

    They are those of a chain and group. Chains that share one image share their products too.
    """
    if x.shape[0] == chains:
        return units // groups
    fit = (n for n in range(1, _ROWS // pixels + 1) if chains * units % n == 0)
    return max(fit, default=1)


def _convolve_pool(
    x: Tensor,
    w: Tensor,
    stride: list[int],
    padding: list[int],
    groups: int,
    window: list[int],
    step: list[int],
) -> tuple[Tensor, Tensor]:
    """Return the maxima ``(chain, data, unit, height, width)``, and which pixel each came from.

    Where all chains share one image, `x` has one chain and `groups` is one.
    """
    chains, units, channels = w.shape[:3]
    data, pixels = x.shape[1], window[0] * window[1]
    each = _set_size(x, chains, units, groups, pixels)
    geometry = _geometry(size(x), size(w), stride, padding, groups, window, step)
    images = by_group(pad(x, padding), groups)
    filters = _spread(w, each, stride, window)
    maxima, winners = (x.new_empty(chains, units, *geometry.out, data) for _ in range(2))
    rows = geometry.taps(channels) + pixels * each
    for some, sets in _shares(geometry, len(filters), len(images), rows, data):
        for band in geometry.bands(rows, data):
            patches = geometry.patches(images[some], band)
            columns = geometry.columns(band, data)
            results = x.new_empty(len(patches), pixels, each, patches.shape[2])
            for chosen in sets:
                torch.bmm(filters[chosen], patches, out=results.flatten(1, 2))
                _pool(
                    results,
                    maxima.view(len(filters), each, -1)[chosen, :, columns],
                    winners.view(len(filters), each, -1)[chosen, :, columns],
                )
    return maxima.permute(0, 4, 1, 2, 3), winners.permute(0, 4, 1, 2, 3)


def _pool(results: Tensor, maxima: Tensor, winners: Tensor) -> None:
    """Write maxima over the second axis, and which numbers beat all before them, as a sum of bits.

    The results are used up. Bits are added to floating-point numbers, which are fast to compare.
    """
    best, second, *rest = results.unbind(1)
    torch.gt(second, best, out=winners)
    torch.maximum(best, second, out=best if rest else maxima)
    beats = second
    for number, result in enumerate(rest, start=1):
        torch.gt(result, best, out=beats)
        winners.add_(beats, alpha=2**number)
        torch.maximum(best, result, out=maxima if number == len(rest) else best)


def _unpool(gradient: Tensor, winners: Tensor, slopes: Tensor) -> None:
    """Write each gradient to the pixel it belongs to, and zero to the others of its window."""
    before, *rest = slopes.unbind(1)
    before.copy_(gradient)
    for number, slope in enumerate(rest):
        # What belongs to this pixel or to a later one; the rest belongs to the one before.
        torch.ops.aten.threshold_backward.grad_input(
            before, winners, 2**number - 0.5, grad_input=slope
        )
        before.sub_(slope)
        before = slope


def _pooled_weights(
    gradient: Tensor,
    winners: Tensor,
    x: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    groups: int,
    window: list[int],
    step: list[int],
) -> Tensor:
    """Gradient of the filters ``(chain, unit, channel, *kernel)``."""
    chains, data, units = gradient.shape[:3]
    channels, pixels = x.shape[2] // groups, window[0] * window[1]
    each = _set_size(x, chains, units, groups, pixels)
    height, width = kernel
    geometry = _geometry(size(x), (height, width), stride, padding, groups, window, step)
    slopes = data_last(gradient).view(-1, each, geometry.out[0] * geometry.out[1] * data)
    won = data_last(winners).view(-1, each, geometry.out[0] * geometry.out[1] * data)
    images = by_group(pad(x, padding), groups)
    totals = x.new_zeros(len(slopes), pixels * each, geometry.taps(channels))
    rows = geometry.taps(channels) + pixels * each
    for some, sets in _shares(geometry, len(slopes), len(images), rows, data):
        for band in geometry.bands(rows, data):
            patches = geometry.patches(images[some], band)
            columns = geometry.columns(band, data)
            spread = x.new_empty(len(patches), pixels, each, patches.shape[2])
            for chosen in sets:
                _unpool(slopes[chosen, :, columns], won[chosen, :, columns], spread)
                totals[chosen].baddbmm_(spread.flatten(1, 2), patches.mT)
    whole = totals.view(len(slopes), *window, each, channels, *geometry.kernel)
    first, *rest = _by_pixel(whole, (height, width), stride)
    result = first.clone()
    for part in rest:
        result += part
    return result.view(chains, units, channels, height, width)


def _pooled_inputs(
    gradient: Tensor,
    winners: Tensor,
    w: Tensor,
    image: list[int],
    stride: list[int],
    padding: list[int],
    groups: int,
    window: list[int],
    step: list[int],
) -> Tensor:
    """Gradient of the images ``(chain, data, channel, *image)``."""
    chains, data, units = gradient.shape[:3]
    channels, pixels, each = w.shape[2], window[0] * window[1], units // groups
    height, width = image
    geometry = _geometry((height, width), size(w), stride, padding, groups, window, step)
    slopes = data_last(gradient).view(-1, each, geometry.out[0] * geometry.out[1] * data)
    won = data_last(winners).view(-1, each, geometry.out[0] * geometry.out[1] * data)
    large = (height + 2 * padding[0], width + 2 * padding[1])
    padded = gradient.new_zeros(chains, groups * channels, *large, data)
    filters = _spread(w, each, stride, window).transpose(1, 2)
    rows = geometry.taps(channels) + pixels * each
    targets = by_group(padded, groups)
    for some in geometry.sets(len(targets), rows, data):
        for band in geometry.bands(rows, data):
            columns = geometry.columns(band, data)
            part = slopes[some, :, columns]
            spread = w.new_empty(len(part), pixels, each, part.shape[2])
            _unpool(part, won[some, :, columns], spread)
            geometry.add_up(filters[some] @ spread.flatten(1, 2), targets[some], band)
    return unpad(padded, padding)


def _shares(
    geometry: Geometry, filters: int, images: int, rows: int, data: int
) -> Iterator[tuple[slice, list[slice]]]:
    """Say which filters look at which images: each at its own, or all at the one they share."""
    if images == filters:
        for some in geometry.sets(images, rows, data):
            yield some, [some]
    else:
        yield slice(0, 1), [slice(index, index + 1) for index in range(filters)]


def _pooled_shape(
    x: Tensor,
    w: Tensor,
    stride: list[int],
    padding: list[int],
    groups: int,
    window: list[int],
    step: list[int],
) -> tuple[Tensor, Tensor]:
    out = _geometry(size(x), size(w), stride, padding, groups, window, step).out
    first, second = (x.new_empty(*w.shape[:2], *out, x.shape[1]) for _ in range(2))
    return first.permute(0, 4, 1, 2, 3), second.permute(0, 4, 1, 2, 3)


def _weights_shape(
    gradient: Tensor,
    winners: Tensor,
    x: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    groups: int,
    window: list[int],
    step: list[int],
) -> Tensor:
    return x.new_empty(gradient.shape[0], gradient.shape[2], x.shape[2] // groups, *kernel)


def _inputs_shape(
    gradient: Tensor,
    winners: Tensor,
    w: Tensor,
    image: list[int],
    stride: list[int],
    padding: list[int],
    groups: int,
    window: list[int],
    step: list[int],
) -> Tensor:
    whole = gradient.new_empty(w.shape[0], w.shape[2] * groups, *image, gradient.shape[1])
    return whole.permute(0, 4, 1, 2, 3)


_library = torch.library.Library("pyro_bnn", "FRAGMENT")
_WAY = "int[] stride, int[] padding, int groups, int[] window, int[] step)"
_library.define(f"convolve_pool(Tensor x, Tensor w, {_WAY} -> (Tensor, Tensor)")
_library.define(
    f"pooled_weights(Tensor gradient, Tensor winners, Tensor x, int[] kernel, {_WAY} -> Tensor"
)
_library.define(
    f"pooled_inputs(Tensor gradient, Tensor winners, Tensor w, int[] image, {_WAY} -> Tensor"
)
_library.impl("convolve_pool", _convolve_pool, "CPU")
_library.impl("convolve_pool", _pooled_shape, "Meta")
_library.impl("pooled_weights", _pooled_weights, "CPU")
_library.impl("pooled_weights", _weights_shape, "Meta")
_library.impl("pooled_inputs", _pooled_inputs, "CPU")
_library.impl("pooled_inputs", _inputs_shape, "Meta")

convolve_pool = torch.ops.pyro_bnn.convolve_pool.default
pooled_weights = torch.ops.pyro_bnn.pooled_weights.default
pooled_inputs = torch.ops.pyro_bnn.pooled_inputs.default
