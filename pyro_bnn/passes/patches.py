"""Patches of images whose data lie last in memory: what a filter sees at each of its places."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Geometry", "by_group", "data_last", "pad", "size", "unpad"]

# Elements of a band, which stay in cache.
_BAND = 2**18
# Elements of a set of images that one call works on: more calls cost more than the cache saves.
_SET = 2**20


class Geometry(NamedTuple):
    """How a filter is laid over an image, and what comes out."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int
    kernel: tuple[int, int]
    out: tuple[int, int]

    @classmethod
    def over(
        cls,
        image: tuple[int, int],
        kernel: tuple[int, int],
        stride: list[int],
        padding: list[int],
        dilation: list[int],
        groups: int,
    ) -> Geometry:
        """Lay a filter over an image in the way that `torch.nn.functional.conv2d` does."""
        height, width = (
            (image[axis] + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1)
            // stride[axis]
            + 1
            for axis in (0, 1)
        )
        return cls(stride, padding, dilation, groups, kernel, (height, width))

    def taps(self, channels: int) -> int:
        """Return the number of pixels under a filter."""
        return channels * self.kernel[0] * self.kernel[1]

    def sets(self, images: int, height: int, data: int) -> Iterator[slice]:
        """Go through images in sets, one image at least.

        The sizes are those of `bands`.
        """
        whole = height * self.out[0] * self.out[1] * data
        each = max(1, _SET // max(whole, 1))
        for first in range(0, images, each):
            yield slice(first, min(first + each, images))

    def bands(self, height: int, data: int) -> Iterator[tuple[int, int]]:
        """Go through the rows of the result in bands that stay in cache.

        A band is worked on as matrices of `height` rows in all, with a column for each of its
        pixels and data.
        """
        rows = max(1, _BAND // max(height * self.out[1] * data, 1))
        for first in range(0, self.out[0], rows):
            yield first, min(first + rows, self.out[0])

    def columns(self, band: tuple[int, int], data: int) -> slice:
        """Return the place of a band's rows among the pixels and data of the result."""
        row = self.out[1] * data
        return slice(band[0] * row, band[1] * row)

    def add_up(self, unfolded: Tensor, padded: Tensor, band: tuple[int, int]) -> None:
        """Add patches ``(image, channel * taps, pixel * data)`` to where they were taken from."""
        rows = band[1] - band[0]
        images, channels, data = padded.shape[0], padded.shape[1], padded.shape[4]
        patches = unfolded.view(images, channels, *self.kernel, rows, self.out[1], data)
        top, down = band[0] * self.stride[0], self.dilation[0]
        height = down * (self.kernel[0] - 1) + 1
        width = self.stride[1] * (self.out[1] - 1) + 1
        for column in range(self.kernel[1]):
            left = column * self.dilation[1]
            under = padded[:, :, :, left : left + width : self.stride[1]]
            part = patches[:, :, :, column]
            if rows <= self.kernel[0]:
                # The rows of a filter lie on as many rows of the image: one call adds them all.
                for row in range(rows):
                    first = top + row * self.stride[0]
                    under[:, :, first : first + height : down].add_(part[:, :, :, row])
                continue
            span = self.stride[0] * (rows - 1) + 1
            for row in range(self.kernel[0]):
                first = top + row * down
                under[:, :, first : first + span : self.stride[0]].add_(part[:, :, row])

    def patches(self, padded: Tensor, band: tuple[int, int]) -> Tensor:
        """Unfold ``(image, channel, height, width, data)``.

        The result is ``(image, channel * taps, pixel * data)``.
        """
        image, channel, height, width, data = padded.stride()
        view = padded.as_strided(
            (*padded.shape[:2], *self.kernel, band[1] - band[0], self.out[1], padded.shape[4]),
            (
                image,
                channel,
                height * self.dilation[0],
                width * self.dilation[1],
                height * self.stride[0],
                width * self.stride[1],
                data,
            ),
            padded.storage_offset() + band[0] * self.stride[0] * height,
        )
        return view.reshape(len(padded), self.taps(padded.shape[1]), -1)


def size(images: Tensor) -> tuple[int, int]:
    """Return the height and width of images or filters."""
    return images.shape[-2], images.shape[-1]


def by_group(images: Tensor, groups: int) -> Tensor:
    """Split ``(chain, channel, height, width, data)`` into the images of each chain and group.

    The result is ``(chain * group, channel / group, height, width, data)``.
    """
    chains, channels, *rest = images.shape
    return images.view(chains * groups, channels // groups, *rest)


def data_last(images: Tensor) -> Tensor:
    """Turn ``(chain, data, channel, height, width)`` into how it lies in memory."""
    return images.permute(0, 2, 3, 4, 1).contiguous()


def pad(images: Tensor, padding: list[int]) -> Tensor:
    """Frame images ``(chain, data, channel, height, width)`` by zeros, data last."""
    rows, columns = padding
    last = images.permute(0, 2, 3, 4, 1)
    if not rows and not columns:
        return last.contiguous()
    return torch.nn.functional.pad(last, (0, 0, columns, columns, rows, rows))


def unpad(padded: Tensor, padding: list[int]) -> Tensor:
    """Take the frame off what `pad` returned, and move the data back behind the chains."""
    rows, columns = padding
    height, width = padded.shape[2:4]
    inner = padded[:, :, rows : height - rows, columns : width - columns]
    return inner.contiguous().permute(0, 4, 1, 2, 3)
