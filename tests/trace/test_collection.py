"""Collections: many writers, damage found and named, lazy reading, filters, export."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import load_file

from pyro_bnn.errors import UserError
from pyro_bnn.trace import Collection, CollectionWriter, open_trace
from pyro_bnn.trace.collection import manifest
from pyro_bnn.trace.collection.importing import collect_checkpoints

SHAPES = {"0.weight": (3, 4), "0.bias": (3,), "2.weight": (2, 3), "scale": ()}
DIMS = {"0.weight": ["h0", "x0"], "0.bias": ["h0"], "2.weight": ["y0", "h0"]}


def weights(seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(s, generator=generator).to(dtype) for n, s in SHAPES.items()}


def filled(directory, count=6, **options):
    out = CollectionWriter(directory, "w", dims=DIMS)
    for seed in range(count):
        recipe = {"guide": {"name": "map"}, "run": {"draws": seed % 2}}
        metrics = {"accuracy": seed / 10}
        out.append(weights(seed), name=f"m{seed}", seed=seed, recipe=recipe, metrics=metrics)
    return Collection.open(directory, **options)


def test_what_is_appended_is_read_again(tmp_path):
    found = filled(tmp_path)
    assert found.names == [f"m{seed}" for seed in range(6)]
    assert not found.skipped
    assert found.shapes == SHAPES
    data = found.dataset()
    assert data["0.weight"].dims == ("chain", "draw", "h0", "x0")
    assert data["0.weight"].chunks is not None
    for seed in range(6):
        for name, value in weights(seed).items():
            np.testing.assert_array_equal(data[name][seed, 0], value, strict=True)
    assert data["member"].to_numpy().tolist() == found.names


@pytest.mark.parametrize("chunks", [None, "auto", {"chain": 2}])
@pytest.mark.parametrize(
    "key",
    [
        {"chain": 2},
        {"chain": slice(1, 5, 2), "h0": 1},
        {"chain": [4, 0], "h0": [2, 0], "x0": slice(1, 3)},
        {"chain": slice(4, None, -1), "h0": slice(None, None, -1), "draw": 0},
        {"chain": [], "h0": slice(1, 2)},
        {"chain": [1], "h0": []},
    ],
)
def test_every_index_reads_what_numpy_would(tmp_path, key, chunks):
    found = filled(tmp_path)
    stacked = np.stack([weights(seed)["0.weight"].numpy() for seed in range(6)])[:, None]
    array = found.dataset(chunks)["0.weight"]
    expected = array.copy(data=stacked).isel(key)
    np.testing.assert_array_equal(array.isel(key).to_numpy(), expected, strict=True)


def test_pairs_of_chain_and_draw_are_read_point_by_point(tmp_path):
    found = filled(tmp_path)
    picks = {"chain": xr.DataArray([3, 1, 3], dims="s"), "draw": xr.DataArray([0, 0, 0], dims="s")}
    values = found.dataset(None)["0.bias"].isel(picks).transpose("s", ...).to_numpy()
    expected = torch.stack([weights(seed)["0.bias"] for seed in (3, 1, 3)])
    np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precision_is_kept_on_disk_and_widens_when_read(tmp_path, dtype):
    CollectionWriter(tmp_path).append(weights(0, dtype), name="one")
    data = Collection.open(tmp_path).dataset(None)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    for name, value in weights(0, dtype).items():
        np.testing.assert_array_equal(data[name][0, 0].to_numpy(), value.to(wide), strict=True)
    stored = load_file(tmp_path / "members" / "one.safetensors")
    assert stored["0.bias"].dtype == dtype


def test_damaged_and_half_written_members_are_named_and_left_out(tmp_path):
    filled(tmp_path)
    members = tmp_path / "members"
    content = bytearray((members / "m0.safetensors").read_bytes())
    content[-1] ^= 1
    (members / "m0.safetensors").write_bytes(content)
    (members / "m1.safetensors").write_bytes(content[:-3])
    (members / "m2.safetensors").unlink()
    (members / ".m9.w.partial").write_bytes(b"half")
    (members / "m8.safetensors").write_bytes(b"whole, but no line")
    lines = tmp_path / "manifest" / "w-0000.jsonl"
    lines.write_text(lines.read_text()[:-30])

    found = Collection.open(tmp_path)

    assert found.names == ["m3", "m4"]
    assert set(found.skipped) == {"m0", "m1", "m2", ".m9.w.partial", "m8", "m5"} | {
        "w-0000.jsonl, line 6"
    }
    assert "checksum" in found.skipped["m0"]
    assert f"{len(content) - 3:,} bytes, not {len(content):,}" in found.skipped["m1"]
    assert "missing" in found.skipped["m2"]
    assert "half written" in found.skipped[".m9.w.partial"]
    assert Collection.open(tmp_path, verify="size").names == ["m0", "m3", "m4"]


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        DEEP,
        "{}",
        '{"sites": {"a": {"shape": [2], "double": false}}}',
        '{"sites": {"a": {"shape": ["2"], "double": false}}, "dims": {}}',
        '{"sites": {"a": {"shape": [-1], "double": false}}, "dims": {}}',
        '{"sites": {"a": {"shape": 3, "double": false}}, "dims": {}}',
        '{"sites": {"a": {"shape": [2], "double": false}}, "dims": {"a": "h0"}}',
    ],
)
def test_a_damaged_head_is_a_sentence(tmp_path, text):
    filled(tmp_path, 1)
    (tmp_path / "collection.json").write_text(text, encoding="utf-8")
    for use in (Collection.open, lambda folder: CollectionWriter(folder).append(weights(0))):
        with pytest.raises(UserError, match=r"collection\.json is not the head of a collection"):
            use(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        DEEP,
        "3",
        '["m0"]',
        '{"name": "../m0", "sha256": "", "size": 1}',
        '{"name": "m0", "sha256": "", "size": true}',
        '{"name": "m0", "sha256": "", "size": 1, "seed": "1"}',
        '{"name": "m0", "sha256": "", "size": 1, "recipe": []}',
        '{"name": "m0", "sha256": "", "size": 1, "metrics": {"loss": "low"}}',
    ],
)
def test_lines_of_a_manifest_that_cannot_be_read_are_skipped_and_named(tmp_path, line):
    filled(tmp_path, 1)
    with (tmp_path / "manifest" / "w-0000.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    found = Collection.open(tmp_path)
    assert found.names == ["m0"]
    assert found.skipped == {"w-0000.jsonl, line 2": "the line of the manifest cannot be read"}


@pytest.mark.parametrize(
    "entry",
    [
        DEEP,
        '{"dtype": "F32", "shape": ["3"], "data_offsets": [0, 12]}',
        '{"dtype": "F32", "shape": [3], "data_offsets": [0]}',
        '{"dtype": "F32", "shape": [3], "data_offsets": [-4, 8]}',
        '{"dtype": [], "shape": [3], "data_offsets": [0, 12]}',
    ],
)
def test_a_member_with_a_head_of_nonsense_is_left_out(tmp_path, entry):
    whole = filled(tmp_path, 1)
    path = tmp_path / "members" / "m0.safetensors"
    text = f'{{"0.bias": {entry}}}'.encode()
    content = len(text).to_bytes(8, "little") + text
    path.write_bytes(content)
    line = {**manifest.asdict(whole.records[0]), "size": len(content)}
    (tmp_path / "manifest" / "w-0000.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    found = Collection.open(tmp_path, verify="size")
    assert not found.names
    assert "it is not a safetensors file" in found.skipped["m0"]


def test_a_member_written_again_is_one_member_and_the_later_file_stands(tmp_path):
    CollectionWriter(tmp_path, "first").append(weights(0), name="m", seed=0)
    CollectionWriter(tmp_path, "second").append(weights(1), name="m", seed=1)
    found = Collection.open(tmp_path)
    assert [record.seed for record in found.records] == [1]
    np.testing.assert_array_equal(found.dataset()["0.bias"][0, 0], weights(1)["0.bias"])


def test_members_are_selected_by_recipe_seed_metric_and_anything_else(tmp_path):
    found = filled(tmp_path)
    assert found.select(recipe={"run.draws": 1}).names == ["m1", "m3", "m5"]
    assert found.select(seeds=range(2, 4)).names == ["m2", "m3"]
    assert found.select(metrics={"accuracy": (0.2, 0.4)}).names == ["m2", "m3", "m4"]
    assert found.select(metrics={"loss": (None, None)}).names == []
    few = found.select(where=lambda record: record.size > 0, seeds=[5, 0])
    assert few.names == ["m0", "m5"]
    np.testing.assert_array_equal(few.dataset()["0.bias"][1, 0], weights(5)["0.bias"])


def test_members_are_exported_with_their_lines(tmp_path):
    found = filled(tmp_path / "all").select(["m1", "m4"])
    paths = found.export(tmp_path / "out")
    assert [path.name for path in paths] == ["m1.safetensors", "m4.safetensors"]
    for name, value in weights(4).items():
        assert torch.equal(load_file(paths[1])[name], value)
    lines = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
    assert [json.loads(line)["seed"] for line in lines] == [1, 4]


def test_open_trace_takes_a_collection(tmp_path):
    filled(tmp_path)
    with open_trace(tmp_path) as trace:
        assert dict(trace["posterior"].sizes) == {"chain": 6, "draw": 1, "h0": 3, "x0": 4, "y0": 2}


def test_a_manifest_goes_on_in_another_file(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "LINES", 3)
    found = filled(tmp_path, 7)
    files = sorted((tmp_path / "manifest").iterdir())
    assert [len(file.read_text().splitlines()) for file in files] == [3, 3, 1]
    assert found.names == [f"m{seed}" for seed in range(7)]


def test_other_models_and_names_of_no_file_are_refused(tmp_path):
    filled(tmp_path)
    out = CollectionWriter(tmp_path)
    other = weights(0) | {"0.bias": torch.zeros(4)}
    with pytest.raises(UserError, match=r"'0.bias' has shape \(4,\) .* but \(3,\)"):
        out.append(other)
    with pytest.raises(UserError, match="cannot name a file"):
        out.append(weights(0), name="../up")
    with pytest.raises(UserError, match="holds no collection"):
        Collection.open(tmp_path / "members")


def test_a_folder_of_checkpoints_is_appended_once(tmp_path):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for seed, name in enumerate(("a 1.pt", "sub/b.pt")):
        torch.save({"net." + n: v for n, v in weights(seed).items()}, tmp_path / "in" / name)
    (tmp_path / "in" / "c.pt").write_bytes(b"")
    for _ in range(2):
        names, skipped = collect_checkpoints(tmp_path / "in", tmp_path / "out", prefix="net.")
        assert names == ["a-1", "sub-b"]
        assert list(skipped) == ["c.pt"]
    found = Collection.open(tmp_path / "out")
    assert found.names == names
    np.testing.assert_array_equal(found.dataset()["0.bias"][1, 0], weights(1)["0.bias"])


WRITER = """
import sys, torch
from pyro_bnn.trace.collection import CollectionWriter

out = CollectionWriter(sys.argv[1])
number = 0
while True:
    seed = int(sys.argv[2]) * 10_000 + number
    value = torch.randn(200, 50, generator=torch.Generator().manual_seed(seed))
    out.append({"w": value}, name=f"s{seed:06d}", seed=seed)
    number += 1
    print(seed, flush=True)
"""


def test_writers_killed_at_any_moment_leave_whole_members(tmp_path):
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-W", "ignore", "-c", WRITER, str(tmp_path)]
    writers = [
        subprocess.Popen([*command, str(k)], stdout=subprocess.PIPE, text=True, env=environment)
        for k in range(2)
    ]
    told = [int(writer.stdout.readline()) for writer in writers]
    time.sleep(0.2)
    for writer in writers:
        writer.send_signal(signal.SIGKILL)
    for writer in writers:
        told += map(int, writer.stdout.read().split())
        writer.stdout.close()
        writer.wait()

    found = Collection.open(tmp_path)

    # What was told to be appended is there; at most the last of each writer is left over.
    assert {f"s{seed:06d}" for seed in told} <= set(found.names)
    assert len(found.skipped) <= len(writers)
    data = found.dataset(None)["w"]
    for place, record in enumerate(found.records):
        generator = torch.Generator().manual_seed(record.seed)
        np.testing.assert_array_equal(data[place, 0], torch.randn(200, 50, generator=generator))
