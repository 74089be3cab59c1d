"""The group explains the rank deficit where theory says that it is all there is."""

from __future__ import annotations

import pickle

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import nn

from pyro_bnn.errors import UserError
from pyro_bnn.logdensity import LogDensity
from pyro_bnn.symmetry import SymmetryGroup, discover
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


def regression(x, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(3, 5), 1.0).to_event(2))
    v = pyro.sample("v", dist.Normal(torch.zeros(5, 4), 1.0).to_event(2))
    width = pyro.sample("width", dist.HalfNormal(1.0))
    with pyro.plate("data", len(x)):
        loc = torch.relu(x @ w) @ v * width
        pyro.sample("y", dist.Normal(loc, 1.0).to_event(1), obs=y)


class Regression(PyroModule):
    def forward(self, x, y):
        return regression(x, y)


def test_the_table_of_a_small_network_has_the_score_whatever_the_example():
    """Six scales of ReLU units, from an example of one row that gives three outputs."""
    group = discover(net(nn.ReLU()), torch.zeros(1, 4))
    assert "completeness 1.00: the function stays in 6 directions of its 51" in str(group)
    for seed in range(5):  # a unit that is rarely on is on in some of the rows
        torch.manual_seed(seed)
        wide = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        assert discover(wide, torch.zeros(1, 4)).measure().score == 1.0
    read = SymmetryGroup.from_json(group.to_json())
    assert read.measured == group.measured is not None
    assert str(read) == str(group)
    # deep and narrow: at random weights some units are never on
    layers = [nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU()]
    hidden = discover(nn.Sequential(*layers, nn.Linear(4, 1)), torch.zeros(1, 3)).measure()
    assert hidden.score < 1


def test_a_model_is_measured_by_single_observations():
    """Five scales of units and one of the width against the output weights; six rows of data."""
    x, y = torch.randn(6, 3), torch.randn(6, 4)
    by_hand = discover(regression, x, y=y)
    found = completeness(by_hand, LogDensity(regression, x, y))
    assert (found.weights, found.deficit, found.explained) == (36, 6, 6)
    assert "completeness 1.00" in str(by_hand)
    of_module = discover(Regression(), x, y)
    assert of_module.measure() == found == completeness(of_module, Regression(), x, y)
    assert pickle.loads(pickle.dumps(by_hand)) == by_hand


def test_larger_networks_say_what_measures_them():
    big = nn.Sequential(nn.Linear(60, 40), nn.ReLU(), nn.Linear(40, 3))
    group = discover(big, torch.zeros(1, 60))
    assert group.measure() is None
    assert "completeness(group, network, x)" in str(group)
