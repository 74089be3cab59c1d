"""A saved state comes back, or says why not."""

from __future__ import annotations

import pytest
import torch

from pyro_bnn.errors import UserError
from pyro_bnn.trace import load_state, save_state


def test_round_trip_keeps_every_bit(tmp_path):
    position = torch.randn(4, 7, dtype=torch.float64)
    tensors = {
        "position": position,
        "view": position[:, ::2],
        "same": position,
        "generator": torch.Generator().manual_seed(3).get_state(),
        "step": torch.tensor(0.1),
    }
    path = tmp_path / "run" / "state.safetensors"
    save_state(path, tensors, {"draw": "12", "recipe": "x = 1\n"})
    loaded, metadata = load_state(path)
    assert metadata == {"draw": "12", "recipe": "x = 1\n"}
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)
    assert [file.name for file in path.parent.iterdir()] == ["state.safetensors"]


def test_a_missing_state_is_named(tmp_path):
    with pytest.raises(UserError, match=r"state\.safetensors.*start the run anew"):
        load_state(tmp_path / "state.safetensors")


@pytest.mark.parametrize("keep", [0, 5, 0.5, 0.99])
def test_a_truncated_state_is_named(tmp_path, keep):
    path = tmp_path / "state.safetensors"
    save_state(path, {"position": torch.randn(50)}, {})
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    with pytest.raises(UserError, match=r"state\.safetensors is truncated.*restore it"):
        load_state(path)


def test_a_failed_save_leaves_the_old_state(tmp_path):
    path = tmp_path / "state.safetensors"
    save_state(path, {"position": torch.ones(2)}, {})
    with pytest.raises(TypeError):
        save_state(path, {"position": torch.zeros(2)}, {"draw": 3})
    assert torch.equal(load_state(path)[0]["position"], torch.ones(2))
    assert [file.name for file in tmp_path.iterdir()] == ["state.safetensors"]
