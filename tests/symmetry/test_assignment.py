"""Assignments are the best there are, whoever solves them."""

from __future__ import annotations

import itertools

import pytest
import torch

from pyro_bnn.symmetry.assignment import LAPX_FROM, assignment, best_columns, by_scipy


def scores(batch, n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, n, n, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("signed", [False, True])
def test_no_permutation_scores_higher(signed):
    score = scores(6, 5)
    found = assignment(score, signed)
    reached = (found * score).sum((-2, -1))
    table = score.abs() if signed else score
    rows = torch.arange(5)
    every = torch.stack([table[:, rows, list(p)].sum(-1) for p in itertools.permutations(range(5))])
    assert torch.allclose(reached, every.amax(0))
    assert torch.equal(found.abs().sum(-1), torch.ones(6, 5).double())
    assert torch.equal(found.abs().sum(-2), torch.ones(6, 5).double())


def test_lapx_agrees_with_scipy():
    pytest.importorskip("lap")
    score = scores(5, LAPX_FROM + 8)
    assert torch.equal(best_columns(score), torch.from_numpy(by_scipy(score.numpy())))


def test_a_space_of_one_unit_and_an_empty_batch_are_assigned():
    assert torch.equal(assignment(-torch.ones(3, 1, 1).double()), torch.ones(3, 1, 1).double())
    assert best_columns(torch.zeros(0, 4, 4)).shape == (0, 4)
