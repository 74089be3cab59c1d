"""Naming axes and encoding attributes."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
import xarray as xr

from pyro_bnn.errors import UserError
from pyro_bnn.trace import encode_attrs, site_dataset

DIMS = {"0.weight": ("h0", "x0"), "0.bias": ("h0",), "2.weight": ("y0", "h0")}


def draws() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "0.weight": torch.randn(2, 5, 4, 3, generator=generator),
        "0.bias": torch.randn(2, 5, 4, generator=generator),
        "2.weight": torch.randn(2, 5, 6, 4, generator=generator),
        "noise": torch.rand(2, 5, generator=generator),
    }


def test_a_permutation_of_a_shared_dimension_reaches_every_variable_that_carries_it():
    values = draws()
    data = site_dataset(values, DIMS)
    permutation = [2, 0, 3, 1]
    moved = data.isel(h0=permutation)
    np.testing.assert_array_equal(moved["0.weight"], values["0.weight"][:, :, permutation])
    np.testing.assert_array_equal(moved["0.bias"], values["0.bias"][:, :, permutation])
    np.testing.assert_array_equal(moved["2.weight"], values["2.weight"][..., permutation])
    np.testing.assert_array_equal(moved["noise"], values["noise"])


def test_axes_without_names_get_those_of_arviz():
    data = site_dataset(draws(), {"0.bias": ["h0"]}, draw_start=30)
    assert data["0.weight"].dims == ("chain", "draw", "0.weight_dim_0", "0.weight_dim_1")
    assert data["0.bias"].dims == ("chain", "draw", "h0")
    assert data["noise"].dims == ("chain", "draw")
    np.testing.assert_array_equal(data["draw"], np.arange(30, 35))
    np.testing.assert_array_equal(data["chain"], [0, 1])
    assert data["draw"].dtype.kind == data["chain"].dtype.kind == "i"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_widens_exactly(dtype: torch.dtype):
    values = torch.randn(2, 3, 4).to(dtype).requires_grad_()
    data = site_dataset({"w": values})
    assert data["w"].dtype == np.float32
    np.testing.assert_array_equal(data["w"], values.detach().float())


@pytest.mark.parametrize(
    ("values", "dims", "message"),
    [
        ({"w": np.zeros(3)}, None, "Site 'w' has shape .* leading axes"),
        ({"w": np.zeros((2, 3, 4))}, {"w": ("a", "b")}, "Site 'w' .* one name an axis"),
        (
            {"w": np.zeros((2, 3, 4)), "v": np.zeros((2, 3, 5))},
            {"w": ["h0"], "v": ["h0"]},
            "'h0' has size 4 in site 'w' but 5 in site 'v'",
        ),
        ({"w": np.zeros((2, 3)), "v": np.zeros((2, 4))}, None, "'draw' has size 3 in site 'w'"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_by_site(values, dims, message):
    with pytest.raises(UserError, match=message):
        site_dataset(values, dims)


def test_attributes_are_only_strings_and_numbers(tmp_path):
    attrs = {
        "model": "mlp",
        "compiled": True,
        "flag": np.bool_(False),
        "seconds": np.float32(1.5),
        "draws": np.int64(7),
        "nothing": None,
        "sizes": [1, 2],
        "group": {"h0": {"order": math.factorial(30)}},
        "order": math.factorial(30),
        "array": np.arange(3),
        "tensor": torch.ones(2),
        "names": {"b", "a"},
        "path": tmp_path,
    }
    encoded = encode_attrs(attrs)
    assert encoded.keys() == attrs.keys()
    assert {type(value) for value in encoded.values()} == {str, int, float}
    assert (encoded["compiled"], encoded["flag"], encoded["draws"]) == (1, 0, 7)
    assert encoded["seconds"] == 1.5
    assert json.loads(encoded["group"]) == attrs["group"]
    assert json.loads(encoded["tensor"]) == [1.0, 1.0]
    assert int(encoded["order"]) == math.factorial(30)
    xr.Dataset(attrs=encoded).to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    with xr.open_dataset(tmp_path / "a.nc", engine="netcdf4") as back:
        assert back.attrs == encoded


def test_an_attribute_that_json_cannot_hold_is_refused():
    with pytest.raises(TypeError, match="object"):
        encode_attrs({"x": object()})
