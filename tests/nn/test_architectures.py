"""The studies' networks: of the published sizes, and fit to be lifted as they come."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from pyro_bnn import LogDensity, UserError
from pyro_bnn.nn import Normal, categorical, lift
from pyro_bnn.nn.architectures import lenet5, mlp, optunet, resnet18, resnet20_frn, small_vit
from pyro_bnn.nn.layers import FilterResponseNorm2d


def resnet20_weights(width=16, classes=10):
    """Count convolutions of 3x3, shortcuts of 1x1, two numbers a channel of each norm."""
    total, channels = 27 * width + 2 * width, width
    for stage in range(3):
        for _ in range(3):
            out = width * 2**stage
            total += 9 * out * (channels + out) + 4 * out
            total += (channels + 2) * out if channels != out else 0
            channels = out
    return total + (channels + 1) * classes


def small_vit_weights(tokens=8 * 8 + 1, width=64, layers=4, classes=10):
    """Count patches, class token and positions; attention, norms and two layers a block."""
    block = 4 * (width + 1) * width + 4 * width + (width + 1) * 2 * width + (2 * width + 1) * width
    head = 2 * width + (width + 1) * classes
    return (3 * 16 + 1) * width + (1 + tokens) * width + layers * block + head


# A network, one input, and its number of parameters: published, or counted.
CASES = {
    "optunet": (optunet, (1, 28, 28), 392),
    "lenet5": (lenet5, (1, 28, 28), 61_706),
    "resnet18": (resnet18, (3, 32, 32), 11_173_962),
    "resnet20_frn": (resnet20_frn, (3, 32, 32), resnet20_weights()),
    "small_vit": (small_vit, (3, 32, 32), small_vit_weights()),
    "toy": (lambda: mlp((2, 2, 1)), (2,), 9),
}


@pytest.mark.parametrize("name", CASES)
def test_sizes(name):
    build, shape, size = CASES[name]
    net = build()
    assert sum(parameter.numel() for parameter in net.parameters()) == size
    with torch.no_grad():
        assert net(torch.zeros(2, *shape)).shape == (2, 1 if name == "toy" else 10)


SMALL = {
    "optunet": (optunet, (1, 28, 28)),
    "resnet20_frn": (lambda: resnet20_frn(width=2), (3, 8, 8)),
    "small_vit": (lambda: small_vit(image=8, layers=1, heads=2, width=8), (3, 8, 8)),
}


SLOW = pytest.param("resnet20_frn", marks=pytest.mark.slow)


@pytest.mark.parametrize("name", [SLOW if name == "resnet20_frn" else name for name in SMALL])
def test_lifted_in_a_batch_of_chains(name):
    build, shape = SMALL[name]
    seeded = torch.Generator().manual_seed(0)
    x, y = torch.randn(4, *shape, generator=seeded).double(), torch.tensor([0, 3, 9, 1])
    bnn = lift(build().double(), prior=Normal(scale="fan_in"))
    density = LogDensity(lambda x, y: categorical(bnn(x), y), x, y)
    position = density.initial_position(2, seeded).requires_grad_()
    _, gradient = density.value_and_grad(position.detach())
    expected = torch.autograd.grad(density.potential(position).sum(), position)[0]
    torch.testing.assert_close(gradient, expected, rtol=1e-7, atol=1e-9)


def test_filter_response_norm_divides_by_the_root_mean_square():
    norm = FilterResponseNorm2d(3, eps=0.5).double()
    nn.init.constant_(norm.weight, 2.0)
    nn.init.constant_(norm.bias, -1.0)
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1)).double()
    for image, found in zip(x, norm(x), strict=True):
        for channel, out in zip(image, found, strict=True):
            root = (channel.pow(2).sum() / 20 + 0.5).sqrt()
            torch.testing.assert_close(out, 2 * channel / root - 1)


def test_widths_that_make_no_network_are_refused():
    with pytest.raises(UserError, match=r"widths are \(3,\)"):
        mlp((3,))


def test_networks_of_our_own_do_not_import_torchvision():
    """It takes seconds and, with torch's compiler, some hundred megabytes of every process."""
    code = (
        "import sys; from pyro_bnn.nn.architectures import lenet5, optunet; optunet(), lenet5(); "
        "sys.exit('torchvision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
