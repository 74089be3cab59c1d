"""Principal components of draws."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from sklearn.decomposition import PCA

import pyro_bnn.diagnostics.embedding as embedding_module
from pyro_bnn.diagnostics.embedding import embedding, principal_components
from pyro_bnn.diagnostics.plots.embedding import plot_embeddings
from pyro_bnn.diagnostics.report.embeddings import missing_embeddings
from pyro_bnn.errors import UserError


@pytest.mark.parametrize("shape", [(30, 8), (8, 30)])
def test_components_equal_sklearn(shape: tuple[int, int]) -> None:
    values = np.random.default_rng(0).normal(size=shape) * np.arange(1, shape[1] + 1)
    points, explained = principal_components(values)
    pca = PCA(2).fit(values)
    np.testing.assert_allclose(np.abs(points), np.abs(pca.transform(values)), atol=1e-8)
    np.testing.assert_allclose(explained, pca.explained_variance_ratio_)
    assert (np.abs(points).max(axis=0) == points.max(axis=0)).all()


def test_equal_draws_are_one_point() -> None:
    points, explained = principal_components(np.ones((5, 3)))
    assert not points.any()
    assert not explained.any()


def test_chains_apart_in_weights_are_together_in_functions(trace: xr.DataTree) -> None:
    weight, function = (embedding(trace, space) for space in ("weight", "function"))
    assert weight.points.shape == (400, 2)

    def apart(found) -> float:
        means = np.stack([found.points[found.chain == c].mean(axis=0) for c in range(4)])
        return float(means.var(axis=0).sum() / found.points.var(axis=0).sum())

    assert apart(weight) > 0.7
    assert apart(function) < 0.1


def test_few_or_broken_draws(trace: xr.DataTree, make_trace) -> None:
    assert embedding(make_trace(chains=1, draws=2), "weight") is None
    assert embedding(xr.DataTree(), "weight") is None
    broken = trace.copy(deep=True)
    broken["posterior"]["0.bias"][0, 0, 0] = np.nan
    assert len(embedding(broken, "weight").points) == 399


def test_tsne_keeps_clusters_and_umap_is_said_when_absent(
    trace: xr.DataTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = embedding(trace, "weight", points=60, method="tsne")
    assert found is not None
    assert np.isnan(found.explained).all()
    # The nearest neighbour of a draw is of its own chain, as chains sit in modes of their own.
    apart = np.linalg.norm(found.points[:, None] - found.points[None], axis=-1)
    np.fill_diagonal(apart, np.inf)
    assert np.mean(found.chain[apart.argmin(axis=1)] == found.chain) > 0.95
    assert len(plot_embeddings({"weight": found}).axes) == 1
    monkeypatch.setattr(embedding_module, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="install umap-learn"):
        embedding(trace, "weight", method="umap")
    assert "umap-learn" in missing_embeddings()
