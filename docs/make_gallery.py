"""Every picture of the reports of three short runs and of a comparison, for the gallery.

The site's build calls `make`; by hand it is ``python docs/make_gallery.py``.
"""

from __future__ import annotations

import base64
import html
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
PICTURES = HERE / "_static" / "gallery"
PAGE = HERE / "reference" / "generated" / "gallery.txt"

# A classification with inputs from elsewhere and corrupted ones, a regression, and a guide.
RUNS = {
    "digits_mlp": ["digits_mlp", "--chains=4", "--warmup=60", "--draws=40"],
    "diabetes_mlp": ["diabetes_mlp", "--chains=4", "--warmup=80", "--draws=40"],
    "digits_mlp, mean-field": [
        "digits_mlp",
        "--recipe=mean_field.toml",
        "--set=guide.epochs=20",
        "--chains=2",
        "--draws=40",
    ],
}
COMPARED = ("digits_mlp", "digits_mlp, mean-field")


def make() -> None:
    """Run, take the pictures out of the reports, and write the page's text; once is enough."""
    if PAGE.is_file():
        return
    PICTURES.mkdir(parents=True, exist_ok=True)
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    seen: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for run, options in RUNS.items():
            out = Path(folder) / run
            _call("infer", *options, "--out", str(out))
            _take(run, (out / "report.html").read_text(encoding="utf-8"), seen)
        runs = [str(Path(folder) / run) for run in COMPARED]
        page = Path(folder) / "comparison.html"
        _call("compare", *runs, "--reference", runs[0], "--out", str(page))
        _take("a comparison", page.read_text(encoding="utf-8"), seen)
    PAGE.write_text("\n".join(seen.values()), encoding="utf-8")


def _call(*arguments: str) -> None:
    """Run ``pyro-bnn``, as a shell would."""
    program = [sys.executable, "-c", "from pyro_bnn.infer.cli.app import main; main()"]
    subprocess.run([*program, *arguments], check=True, stdout=subprocess.DEVNULL)


def _take(origin: str, report: str, seen: dict[str, str]) -> None:
    """Add the pictures of a page that are not there yet, by how their descriptions begin."""
    section = ""
    for heading, figure in re.findall(
        r"<h2[^>]*>(.*?)</h2>|<figure[^>]*>(.*?)</figure>", report, re.S
    ):
        if heading:
            section = _text(heading)
            continue
        image = re.search(r'<img[^>]*alt="([^"]*)"[^>]*>', figure)
        data = re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', figure)
        if image is None or data is None:
            continue
        description = html.unescape(image[1])
        kind = " ".join(re.sub(r"[\d.,:%]+", "", description).split()[:5])
        if kind in seen:
            continue
        name = f"{len(seen):02d}.svg"
        (PICTURES / name).write_bytes(base64.b64decode(data[1]))
        caption = re.search(r"<figcaption[^>]*>(.*?)</figcaption>", figure, re.DOTALL)
        words = _text(caption[1]) if caption else description
        alt = description.replace("\n", " ")
        seen[kind] = (
            f"```{{figure}} _static/gallery/{name}\n:alt: {alt}\n\n"
            f"{words} ({origin}, section “{section}”)\n```\n"
        )


def _text(markup: str) -> str:
    plain = html.unescape(re.sub(r"<[^>]+>", "", markup))
    return re.sub(r"([*_`\\$])", r"\\\1", " ".join(plain.split()))


if __name__ == "__main__":
    make()
