"""Splits: what they refuse, and that standardising looks at the training rows only."""

from __future__ import annotations

import math

import pytest
import torch

from pyro_bnn import Data, Split, UserError
from pyro_bnn.data import standardised_split


@pytest.mark.parametrize(
    ("x", "y", "sentence"),
    [
        (torch.zeros(3, 2), torch.zeros(4), r"x has shape \(3, 2\) and y \(4,\)"),
        (torch.zeros(0, 2), torch.zeros(0), "no rows"),
        ([[0.0, 1.0]], torch.zeros(1), r"x is a list: make it a tensor, such as torch\.tensor"),
        (torch.tensor([[0.0], [math.nan]]), torch.zeros(2), "x is NaN or infinite in row 1"),
        (torch.zeros(2, 1), torch.tensor([math.inf, 0.0]), "y is NaN or infinite in row 0"),
    ],
)
def test_splits_that_cannot_be_worked_with(x, y, sentence):
    with pytest.raises(UserError, match=sentence):
        Split(x, y)


def test_splits_of_different_inputs_are_refused():
    train = Split(torch.zeros(3, 2), torch.zeros(3))
    other = Split(torch.zeros(3, 1), torch.zeros(3))
    with pytest.raises(UserError, match=r"'test' has inputs of shape \(1,\)"):
        Data(train, other)
    with pytest.raises(UserError, match=r"'noise' has inputs of shape \(1,\)"):
        Data(train, train, ood={"noise": other})


def test_splits_move_to_a_device_together():
    split = Split(torch.ones(3, 2), torch.zeros(3))
    data = Data(split, split, ood={"far": split}, name="ones")
    moved = data.to("cpu")
    assert moved.name == "ones"
    assert set(moved.ood) == {"far"}
    assert all(
        torch.equal(part.x, split.x) and torch.equal(part.y, split.y)
        for part in (moved.train, moved.test, moved.ood["far"])
    )


@pytest.fixture
def table():
    generator = torch.Generator().manual_seed(0)
    x = 5 + 3 * torch.randn(50, 3, generator=generator, dtype=torch.float64)
    x[:, 2] = 7.0
    return x, x[:, 0] * 2


def test_standardised_by_the_training_rows(table):
    data = standardised_split(*table, standardise_y=True, name="table")
    assert (len(data.train.x), len(data.test.x)) == (40, 10)
    torch.testing.assert_close(data.train.x.mean(0), torch.zeros(3).double())
    expected = torch.tensor([1.0, 1.0, 0.0]).double()
    torch.testing.assert_close(data.train.x.std(0), expected)
    assert float(data.train.y.std()) == pytest.approx(1.0)
    # The test rows are mapped by the same line, not standardised by themselves.
    torch.testing.assert_close(data.test.x[:, 0], data.test.y)
    assert abs(float(data.test.x[:, 0].mean())) > 1e-3


def test_every_row_is_in_exactly_one_split(table):
    data = standardised_split(*table, test_fraction=0.3, seed=1)
    found = torch.cat([data.train.y, data.test.y]).sort().values
    assert len(data.test.y) == 15
    torch.testing.assert_close(found, table[1].sort().values)
    again = standardised_split(*table, test_fraction=0.3, seed=1)
    other = standardised_split(*table, test_fraction=0.3, seed=2)
    assert torch.equal(again.test.y, data.test.y)
    assert not torch.equal(other.test.y, data.test.y)
