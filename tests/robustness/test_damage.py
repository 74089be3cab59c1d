"""Flipped bits and lost ends of files: found by their checksums, told in a sentence.

``PYRO_BNN_FLIPS`` is the number of bits that are flipped in each file, one at a time.
"""

from __future__ import annotations

import os
import random
import re

import pytest

from pyro_bnn.errors import UserError
from pyro_bnn.trace import check_trace, load_state, open_trace, segment_paths

FLIPS = int(os.environ.get("PYRO_BNN_FLIPS", "60"))


def flipped(content, rng):
    """Return the content with one bit of it changed."""
    changed = bytearray(content)
    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def test_a_flipped_bit_of_a_segment(finished):
    (finished / "trace.nc").unlink()
    path = segment_paths(finished)[3]
    content, rng = path.read_bytes(), random.Random()
    seal = re.search(rb"\nsha256 [0-9a-f]{64}\n\Z", content)
    assert seal is not None
    for _ in range(FLIPS):
        path.write_bytes(flipped(content[: seal.start()], rng) + seal[0])
        with pytest.raises(UserError, match=r"000003\.nc.*checksum.*others|segments are all whole"):
            open_trace(finished)


def test_a_flipped_bit_of_a_state(finished):
    path = finished / "state.safetensors"
    content, rng = path.read_bytes(), random.Random()
    for _ in range(FLIPS):
        path.write_bytes(flipped(content, rng))
        with pytest.raises(UserError, match=r"state\.safetensors is (damaged|truncated)"):
            load_state(path)


def test_a_flipped_bit_of_a_trace(host, finished):
    path = finished / "trace.nc"
    content, rng = path.read_bytes(), random.Random()
    for _ in range(FLIPS // 3):
        path.write_bytes(flipped(content[:-74], rng) + content[-74:])
        with pytest.raises(UserError, match=r"trace\.nc is damaged.*remove it and resume"):
            check_trace(path)
    for command in ("report", "quotient", "compare"):
        code, started = host.run(command, finished)
        assert code == 2
        started.assert_one_sentence(path, "its checksum does not fit")


@pytest.mark.parametrize("name", ["segments/000002.nc", "state.safetensors", "trace.nc"])
def test_lost_ends(finished, name):
    path = finished / name
    path.write_bytes(path.read_bytes()[: random.randrange(path.stat().st_size - 100)])
    if name != "trace.nc":
        (finished / "trace.nc").unlink()
    read = load_state if path.suffix == ".safetensors" else open_trace
    with pytest.raises(UserError, match=path.name):
        read(path if path.suffix == ".safetensors" else finished)


def test_a_trace_of_another_origin_needs_no_seal(finished):
    path = finished / "trace.nc"
    path.write_bytes(path.read_bytes()[:-73])
    check_trace(path)
    with open_trace(path) as trace:
        assert trace["posterior"].sizes["draw"] == 40
