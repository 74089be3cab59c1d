"""Fuzz the parsers of recipes and of collections' manifests, guided by coverage (atheris).

    python tests/robustness/fuzz_parsers.py recipe --runs 200000
    python tests/robustness/fuzz_parsers.py manifest --runs 200000

The first feeds text to `Recipe.read`; the second the head, a line of the manifest and the head of
a member to `Collection.open`. Each outcome has to be a result or a `UserError`: anything else ends
the script with its traceback and the input in a file.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["tomllib", "pyro_bnn.infer.recipe", "pyro_bnn.infer.settings", "pyro_bnn.trace"]
):
    import tomllib

    from pyro_bnn.errors import UserError
    from pyro_bnn.infer.recipe import Recipe
    from pyro_bnn.trace import Collection, CollectionWriter

outcomes: Counter[str] = Counter()


def counted(parse, *arguments):
    """Parse, and note whether that was a success or a sentence."""
    try:
        parse(*arguments)
        outcomes["read"] += 1
    except UserError as error:
        outcomes["refused" if str(error).strip() else "without a word"] += 1


def recipes(folder):
    """Return a function of bytes, and what it starts from: the recipes that ship."""
    path = folder / "recipe.toml"

    def one(content):
        path.write_bytes(content)
        counted(read, path)

    def read(path):
        recipe = Recipe.read(path)
        assert Recipe.parse(tomllib.loads(recipe.to_toml()), "what it wrote") == recipe

    shipped = Path(__file__).parents[2] / "inference"
    return one, [file.read_bytes() for file in sorted(shipped.rglob("*.toml"))]


def manifests(folder):
    """Return a function of bytes, and what it starts from: the parts of a sound collection."""
    collection = folder / "collection"
    CollectionWriter(collection, "w", dims={"a": ["h0"]}).append(
        {"a": [1.0, 2.0]}, name="m", seed=1, recipe={"run": {"chains": 1}}, metrics={"loss": 0.5}
    )
    files = [
        collection / "collection.json",
        collection / "manifest" / "w-0000.jsonl",
        collection / "members" / "m.safetensors",
    ]
    sound = [file.read_bytes() for file in files]

    def one(content):
        # One file at a time, chosen by the first byte: the others stay sound.
        which = content[0] % len(files) if content else 0
        files[which].write_bytes(content[1:])
        try:
            counted(opened, content)
        finally:
            files[which].write_bytes(sound[which])

    def opened(content):
        found = Collection.open(collection, verify="size")
        found.select(found.names).export(folder / "copy")
        json.dumps(dict(found.skipped))

    return one, [bytes([which]) + content for which, content in enumerate(sound)]


def main():
    """Fuzz so many times; print what the outcomes were."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("target", choices=["recipe", "manifest"])
    parser.add_argument("--runs", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0, help="0: another one each time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        folder = Path(name)
        one, seeds = {"recipe": recipes, "manifest": manifests}[options.target](folder)
        corpus = folder / "corpus"
        corpus.mkdir()
        for number, content in enumerate(seeds):
            (corpus / str(number)).write_bytes(content)
        began = time.perf_counter()

        def told(content):
            one(content)
            if outcomes.total() == options.runs:
                seconds = time.perf_counter() - began
                counts = ", ".join(f"{count:,} {name}" for name, count in outcomes.items())
                print(f"{options.target}: {options.runs:,} inputs in {seconds:,.0f} s: {counts}")
                sys.stdout.flush()

        atheris.Setup(
            [
                sys.argv[0],
                str(corpus),
                f"-atheris_runs={options.runs}",
                f"-seed={options.seed}",
                f"-artifact_prefix={Path.cwd()}/",
                "-max_len=4096",
                "-verbosity=0",
            ],
            told,
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
