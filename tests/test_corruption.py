"""Corruptions of inputs: exact where they are, of the stated strength where they are random."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from pyro_bnn.corruption import SEVERITIES, image_corruptions, table_corruptions
from pyro_bnn.data import Data, Split
from pyro_bnn.errors import UserError

SHAPE = (3, 9, 7)
ALL = image_corruptions(SHAPE)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def images() -> Tensor:
    return torch.rand((5, *SHAPE), generator=generator(), dtype=torch.float64)


@pytest.mark.parametrize(("severity", "deviation"), [(1, 0.3), (3, 0.7), (5, 1.2)])
def test_blur_equals_scipy(images: Tensor, severity: int, deviation: float) -> None:
    blurred = ALL["gaussian blur"](images, severity, generator()).numpy()
    radius = math.ceil(4 * deviation)
    for image, ours in zip(images.numpy(), blurred, strict=True):
        for channel in range(3):
            wanted = gaussian_filter(image[channel], deviation, mode="nearest", radius=radius)
            np.testing.assert_allclose(ours[channel], wanted, atol=1e-12)


def test_contrast_and_brightness_are_closed_forms(images: Tensor) -> None:
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(ALL["contrast"](images, 5, generator()), 0.85 * mean + 0.15 * images)
    bright = ALL["brightness"](images, 2, generator())
    torch.testing.assert_close(bright, torch.clamp(images + 0.2, max=1.0))


def test_random_corruptions_have_the_stated_strength() -> None:
    grey = torch.full((400, 100), 0.5, dtype=torch.float64)  # 40,000 pixels
    corruptions = image_corruptions((10, 10))
    five = 5 / math.sqrt(2 * grey.numel())  # standard errors of a deviation, relative
    for name, deviation in (("gaussian noise", 0.08), ("shot noise", math.sqrt(0.5 / 100))):
        changed = corruptions[name](grey, 2, generator())
        assert abs(changed.std().item() / deviation - 1) < five, name
        assert abs(changed.mean().item() - 0.5) < 5 * deviation / math.sqrt(grey.numel()), name
    changed = corruptions["impulse noise"](grey, 5, generator())
    for value in (0.0, 1.0):
        share = (changed == value).double().mean().item()
        assert abs(share - 0.085) < 5 * math.sqrt(0.085 / grey.numel())


def test_every_severity_is_worse_and_of_the_same_shape(images: Tensor) -> None:
    flat = 4 * images.flatten(1) - 2  # black is -2, white is 2
    for name, corruption in image_corruptions(SHAPE, low=-2, high=2).items():
        sizes = [(corruption(flat, s, generator()) - flat).square().mean() for s in SEVERITIES]
        assert sizes == sorted(sizes), name
        assert sizes[0] > 0, name
        changed = corruption(flat, 5, generator())
        assert changed.shape == flat.shape
        assert changed.min() >= -2 - 1e-9, name
        assert changed.max() <= 2 + 1e-9, name


def test_tables_are_disturbed_in_their_own_units() -> None:
    scale = torch.tensor([1.0, 100.0], dtype=torch.float64)
    train = scale * (3 + torch.randn(20_000, 2, generator=generator(), dtype=torch.float64))
    corruptions = table_corruptions(train)
    noise = (corruptions["feature noise"](train, 3, generator()) - train) / train.std(0)
    assert (noise.std(0) - 0.5).abs().max() < 0.5 * 5 / math.sqrt(2 * len(train))
    missing = corruptions["missing values"](train, 5, generator())
    replaced = missing == train.mean(0)
    assert abs(replaced.double().mean().item() - 0.5) < 5 * 0.5 / math.sqrt(train.numel())
    assert torch.equal(missing[~replaced], train[~replaced])


def test_what_is_no_image_is_refused() -> None:
    for shape, low, high in (((4,), 0, 1), ((2, 2), 1, 1)):
        with pytest.raises(UserError, match="not of images"):
            image_corruptions(shape, low, high)
    with pytest.raises(UserError, match=r"inputs of shape \(5,\) are not images"):
        image_corruptions((2, 2))["contrast"](torch.ones(3, 5), 1, generator())


def test_data_keeps_its_corruptions_on_another_device() -> None:
    split = Split(torch.ones(2, 4), torch.ones(2))
    data = Data(split, split, corruptions=image_corruptions((2, 2)))
    assert data.to("cpu").corruptions is data.corruptions
