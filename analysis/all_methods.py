"""Every method that ships, on one model: accuracy, NLL, Brier, calibration, largest R-hat and time.

Run: python analysis/all_methods.py [--model SCRIPT] [--out FOLDER] [--minutes M] [--quick]
                                   [--only METHOD ...]

Each recipe in inference/ is run by the command line into a directory of its own; a directory that
holds a finished run is read instead, so that the table can be made again in seconds and a stopped
study goes on. A recipe that refuses the model keeps its row, with the reason. All of them together
take M minutes at most: guides run first, each recipe may take its share of the minutes that are
left, and one that would take longer is stopped, its row says so, and the next call of this script
goes on with it. `--only` takes some recipes by name. `--quick` shortens every run to a few steps,
to see that all of them work; its numbers mean nothing else.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
COLUMNS = {
    "accuracy": ("test.accuracy", "{:.3f}"),
    "NLL": ("test.nll", "{:.4f}"),
    "Brier": ("test.brier", "{:.4f}"),
    "ECE": ("test.ece", "{:.4f}"),
    "R-hat, functions": ("rhat.function.max", "{:.2f}"),
    "members x draws": ("size", "{}"),
    "seconds": ("seconds", "{:.0f}"),
}


def command(recipe: Path, model: Path, out: Path, *, quick: bool) -> list[str]:
    """Return the command that runs a recipe."""
    words = [sys.executable, "-m", "pyro_bnn.infer", str(model), "--recipe", str(recipe)]
    words += ["--out", str(out), "--no-report"]
    if (out / "recipe.toml").exists():
        words.append("--resume")
    if quick:
        tables = tomllib.loads(recipe.read_text(encoding="utf-8"))
        draws = min(4, tables.get("run", {}).get("draws", 4))
        chains = tables.get("start", {}).get("members", 2)
        words += ["--chains", str(chains), "--draws", str(draws), "--warmup", "20"]
        words += ["--set", "run.threads=1"]
        if "guide" in tables:
            words += ["--set", "guide.epochs=10"]
    return words


def is_guide(recipe: Path) -> bool:
    """Whether a recipe fits a guide."""
    return "guide" in tomllib.loads(recipe.read_text(encoding="utf-8"))


def run_for(words: list[str], seconds: float) -> subprocess.CompletedProcess[str] | None:
    """Run a command; stop it as Ctrl-C does, so that it saves, after so many seconds."""
    with subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            _, told = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            process.communicate()
            return None
    return subprocess.CompletedProcess(words, process.returncode, "", told)


def chosen(only: list[str] | None) -> list[Path]:
    """Return the recipes that are to run, guides first; all that ship, or those of some names."""
    found = {path.stem: path for path in (ROOT / "inference").glob("*.toml")}
    for name in only or ():
        if name not in found:
            sys.exit(f"there is no recipe {name!r} in inference/; there are {', '.join(found)}")
    kept = [path for name, path in found.items() if not only or name in only]
    return sorted(kept, key=lambda path: (not is_guide(path), path.stem))


def rows(
    recipes: list[Path], model: Path, out: Path, minutes: float, *, quick: bool
) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """Yield the name of each method and its summary, or why it has none."""
    end = time.monotonic() + 60 * minutes
    for number, recipe in enumerate(recipes):
        run = out / recipe.stem
        if not (run / "summary.json").is_file():
            share = max(1.0, (end - time.monotonic()) / (len(recipes) - number))
            done = run_for(command(recipe, model, run, quick=quick), share)
            if done is None:
                yield recipe.stem, f"stopped after {share:.0f} s"
                continue
            if done.returncode:
                lines = done.stderr.strip().splitlines()
                yield recipe.stem, lines[-1] if lines else f"exit code {done.returncode}"
                continue
        yield recipe.stem, json.loads((run / "summary.json").read_text(encoding="utf-8"))


def table(found: dict[str, dict[str, Any] | str]) -> str:
    """Return the table as Markdown, the best negative log likelihood first."""
    lines = [f"| method | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    scored = {name: row for name, row in found.items() if isinstance(row, dict)}
    for name in sorted(scored, key=lambda name: scored[name].get("test.nll") or float("inf")):
        row = {**scored[name], "size": f"{scored[name]['chains']} x {scored[name]['draws']}"}
        cells = [
            "-" if row.get(key) is None else shape.format(row[key])
            for key, shape in COLUMNS.values()
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for name, reason in found.items():
        if isinstance(reason, str):
            lines.append(f"| {name} | {reason.replace('|', '/')} |" + " |" * (len(COLUMNS) - 1))
    point = next((row for row in scored.values() if "point.nll" in row), None)
    if point is not None:
        cells = [
            f"{point[key.replace('test', 'point')]:.4f}" for key, _ in list(COLUMNS.values())[:4]
        ]
        empty = " |" * (len(COLUMNS) - len(cells))
        lines.append(f"| point estimate, best of 16 starts | {' | '.join(cells)} |{empty}")
    return "\n".join(lines)


def main() -> None:
    """Run what has not been run, then print the table and write it beside the runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "digits_mlp.py")
    parser.add_argument("--out", type=Path, default=Path("runs") / "all_methods")
    parser.add_argument("--minutes", type=float, default=20.0, help="of all methods together")
    parser.add_argument("--only", nargs="+", metavar="METHOD", help="names of recipes")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    recipes, found = chosen(arguments.only), {}
    for name, row in rows(
        recipes, arguments.model, arguments.out, arguments.minutes, quick=arguments.quick
    ):
        found[name] = row
        print(f"{name}: {'done' if isinstance(row, dict) else row}", file=sys.stderr, flush=True)
    text = table(found)
    (arguments.out / "table.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
