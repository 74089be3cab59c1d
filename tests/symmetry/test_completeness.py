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


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x):
        return self.heads(x, x, x, need_weights=False)[0]


def classifier():
    return nn.Sequential(net(nn.ReLU()), nn.LogSoftmax(-1))


@pytest.mark.parametrize(
    ("make", "shape", "deficit"),
    [
        # two heads of width 3: GL(3) twice each, a null key bias, a value bias taken up later
        (Attention, (12, 4, 6), 2 * 2 * 9 + 6 + 6),
        # six scales; a shift of the last layer's six columns and bias
        (classifier, (60, 4), 6 + 7),
        # GL(4) less the matrix that fixes both maps of rank three, and the first bias
        (lambda: nn.Sequential(nn.Linear(3, 4), nn.Identity(), nn.Linear(4, 3)), (30, 3), 15 + 4),
    ],
)
def test_frames_and_translations_explain_the_rest(make, shape, deficit):
    plain, x = make(), torch.zeros(shape)
    found = completeness(discover(plain, x), plain, x)
    assert (found.deficit, found.explained) == (deficit, deficit)


def test_deep_and_narrow_networks_hide_symmetries():
    layers = [nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU()]
    layers += [nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 1)]
    plain, x = nn.Sequential(*layers), torch.zeros(120, 3)
    found = completeness(discover(plain, x), plain, x)
    assert found.explained == 15
    assert found.deficit > 15
    assert found.score < 1.0


def test_too_few_outputs_are_refused():
    plain, x = net(nn.Tanh()), torch.zeros(2, 4)
    group = discover(plain, x)
    with pytest.raises(UserError, match="more rows"):
        completeness(group, plain, x)
