"""What docs/security.md promises."""

from __future__ import annotations

import ast
import pickle
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import pyro_bnn
from pyro_bnn.errors import UserError
from pyro_bnn.infer.recipe import Recipe
from pyro_bnn.infer.settings import GUIDES, KERNELS
from pyro_bnn.trace import import_checkpoints, open_trace

SOURCE = Path(pyro_bnn.__file__).parent


class Bomb:
    """What writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path(self.path).touch, ())


def test_the_code_in_a_checkpoint_is_not_run(tmp_path):
    folder, trap = tmp_path / "downloads", tmp_path / "trap"
    folder.mkdir()
    torch.save({"weight": torch.zeros(2)}, folder / "good.pt")
    torch.save({"weight": torch.zeros(2), "more": Bomb(trap)}, folder / "torch.pt")
    (folder / "plain.bin").write_bytes(pickle.dumps(Bomb(trap), protocol=2))
    found = import_checkpoints(folder, {"weight": (2,)})
    assert found.files == ["good.pt"]
    assert set(found.skipped) == {"torch.pt", "plain.bin"}
    assert not trap.exists()
    pickle.loads((folder / "plain.bin").read_bytes())
    assert trap.exists()  # the trap works


@pytest.mark.parametrize("allows", [None, True, False])
def test_a_zarr_store_is_read_only_where_nothing_is_unpickled(tmp_path, monkeypatch, allows):
    (tmp_path / ".zgroup").write_text('{"zarr_format": 2}')
    codec = ModuleType("numcodecs.pickles")  # before 0.16.6 it did not say, and always unpickled
    if allows is not None:
        codec.ALLOW_UNSAFE_PICKLE_DECODE = allows
    monkeypatch.setitem(sys.modules, "numcodecs.pickles", codec)
    monkeypatch.setattr("pyro_bnn.trace.reader.find_spec", lambda name: name)
    monkeypatch.setattr("xarray.open_datatree", lambda path, **options: path)
    if allows is False:
        assert open_trace(tmp_path) == tmp_path
    else:
        with pytest.raises(UserError, match="may hold pickles"):
            open_trace(tmp_path)


def test_a_zarr_store_without_zarr_is_told_in_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "zarr.json").write_text("{}")
    monkeypatch.setattr("pyro_bnn.trace.reader.find_spec", lambda name: None)
    with pytest.raises(UserError, match="install zarr"):
        open_trace(tmp_path)


def calls(tree):
    """Go through the calls of a module: what is called, as it is written, and the call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


# Processes that a command starts talk to it through pipes, in text or pickles that no file holds.
PIPES = {"infer/guides/pool.py", "infer/guides/worker.py"}
STARTS = {"infer/child.py"}


def test_no_module_unpickles_evaluates_or_starts_a_shell():
    seen = 0
    for path in SOURCE.rglob("*.py"):
        file = path.relative_to(SOURCE).as_posix()
        for name, node in calls(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{file}:{node.lineno}: {name}"
            library = name.partition(".")[0]
            assert name not in {"eval", "exec", "__import__", "os.system", "os.popen"}, where
            assert library not in {"marshal", "shelve"}, where
            assert library != "pickle" or file in PIPES, where
            assert library != "subprocess" or file in STARTS, where
            options = {k.arg: ast.unparse(k.value) for k in node.keywords}
            assert options.get("shell", "False") == "False", where
            assert options.get("allow_pickle", "False") == "False", where
            if name == "torch.load":
                assert options["weights_only"] == "True", where
                seen += 1
    assert seen > 0


@pytest.mark.parametrize("value", ["../../etc/passwd", "/etc/passwd", "~/x", "a\0b", "x.toml"])
def test_paths_in_a_recipe_are_refused(outcome, value):
    keys = {key for rows in Recipe.documentation().values() for key, _, _ in rows}
    accepted = set()
    for key in keys:
        table, _, name = key.partition(".")
        for kind in {"kernel": KERNELS, "guide": GUIDES}.get(table, [None]):
            tables = {table: {name: value}}
            if kind is not None and name != "name":
                tables[table]["name"] = kind
            recipe, _ = outcome(Recipe.parse, tables, "a stranger")
            if recipe is not None:
                accepted.add(key)
    assert accepted == set()
