"""Walking through draws in blocks gives every draw once."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from pyro_bnn.diagnostics.blocks import blocks, draw_slices, gather


def array(chains: int, draws: int, *shape: int) -> xr.DataArray:
    values = np.random.default_rng(0).normal(size=(chains, draws, *shape)).astype(np.float32)
    return xr.DataArray(values, dims=("chain", "draw", *(f"d{i}" for i in range(len(shape)))))


@given(
    draws=st.integers(1, 40),
    chunk=st.none() | st.integers(1, 40),
    block=st.integers(1, 4_000),
)
def test_slices_cover_the_draws_in_order_and_within_the_budget(
    draws: int, chunk: int | None, block: int
) -> None:
    data = array(2, draws, 3)
    lazy = data if chunk is None else data.chunk(draw=chunk)
    slices = list(draw_slices(lazy, block))
    covered = [i for part in slices for i in range(part.start, part.stop)]
    assert covered == list(range(draws))
    one = data.nbytes // draws
    assert all((part.stop - part.start) * one <= max(block, one) for part in slices)


def test_slices_end_where_chunks_end() -> None:
    data = array(2, 60, 3).chunk(draw=20)
    per_draw = data.nbytes // 60
    assert [s.stop for s in draw_slices(data, 45 * per_draw)] == [40, 60]
    assert [s.stop for s in draw_slices(data, 15 * per_draw)] == [15, 20, 35, 40, 55, 60]


@pytest.mark.parametrize("block_bytes", [1, 100, 10**6])
def test_blocks_hold_every_number_once(block_bytes: int) -> None:
    data = array(3, 17, 4, 2)
    seen = np.full((3, 17, 8), np.nan, dtype=np.float32)
    for block in blocks(data, block_bytes):
        assert np.isnan(seen[block.chains, block.draws]).all()
        seen[block.chains, block.draws] = block.values
    np.testing.assert_array_equal(seen, data.to_numpy().reshape(3, 17, 8))


def test_draws_heavier_than_a_block_come_chain_by_chain() -> None:
    data = array(3, 2, 50)
    assert [len(block.values) for block in blocks(data, 210)] == [1] * 6


@pytest.mark.parametrize("gather_bytes", [1, 500, 10**6])
def test_gather_finds_the_chosen_scalars(gather_bytes: int) -> None:
    group = xr.Dataset({"a": array(3, 17, 4, 2), "b": array(3, 17)})
    picks = {"a": np.array([0, 3, 7]), "b": np.array([0])}
    found = {
        (name, int(i)): row
        for name, index, values in gather(group, picks, gather_bytes, block_bytes=300)
        for i, row in zip(index, values, strict=True)
    }
    assert list(found) == [("a", 0), ("a", 3), ("a", 7), ("b", 0)]
    np.testing.assert_array_equal(found["a", 3], group["a"].to_numpy()[:, :, 1, 1])
    np.testing.assert_array_equal(found["b", 0], group["b"].to_numpy())


def test_dimensions_may_be_stored_in_any_order() -> None:
    data = array(3, 17, 4)
    turned = xr.Dataset({"a": data.transpose("d0", "draw", "chain")})
    ((_, _, values),) = gather(turned, {"a": np.arange(4)})
    np.testing.assert_array_equal(values, np.moveaxis(data.to_numpy(), -1, 0))
