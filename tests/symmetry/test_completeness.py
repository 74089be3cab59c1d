"""The group explains the rank deficit where theory says that it is all there is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pyro_bnn.errors import UserError
from pyro_bnn.symmetry import discover
from pyro_bnn.symmetry.completeness import completeness


class Abs(nn.Module):
    def forward(self, x):
        return x.abs()


def net(act):
    return nn.Sequential(nn.Linear(4, 6), act, nn.Linear(6, 3))


@pytest.mark.parametrize(
    ("act", "deficit"), [(nn.ReLU(), 6), (Abs(), 6), (nn.Tanh(), 0), (nn.SiLU(), 0)]
)
def test_group_explains_the_rank_deficit(act, deficit):
    x = torch.zeros(40, 4)
    found = completeness(discover(net(act), x), net(act), x)
    assert (found.deficit, found.explained) == (deficit, deficit)
    assert found.score == 1.0


def test_linear_stream_has_more_than_scales():
    plain = nn.Sequential(nn.Linear(3, 4), nn.Identity(), nn.Linear(4, 3))
    x = torch.zeros(30, 3)
    found = completeness(discover(plain, x), plain, x)
    assert found.explained == 4
    assert found.deficit > 4
    assert found.score < 1.0


def test_too_few_outputs_are_refused():
    plain, x = net(nn.Tanh()), torch.zeros(2, 4)
    group = discover(plain, x)
    with pytest.raises(UserError, match="more rows"):
        completeness(group, plain, x)
