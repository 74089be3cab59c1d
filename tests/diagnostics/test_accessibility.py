"""The pages of a run and of a comparison can be read by everybody, and printed."""

from __future__ import annotations

import html
import importlib.util
import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
import xarray as xr

from pyro_bnn import diagnostics
from pyro_bnn.diagnostics import compare, diagnose
from pyro_bnn.diagnostics.plots import style
from pyro_bnn.diagnostics.report import embeddings, render

CSS = (Path(diagnostics.__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")
TEXT = ("ink", "muted", "good", "fair", "poor", "accent")
ENOUGH = 4.5  # of WCAG 2.2, level AA, for text
ENOUGH_GRAPHIC = 3.0  # of WCAG 2.2, level AA, for lines and marks

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
AXE = importlib.util.find_spec("axe_core_python")
ASK = """
axe.run(document).then(found => {
  const answer = document.createElement("pre");
  answer.id = "axe-found";
  answer.textContent = JSON.stringify({
    passes: found.passes.length,
    violations: found.violations.map(v => [v.id, v.help, v.nodes.map(n => n.html)]),
  });
  document.body.append(answer);
});
"""


class Outline(HTMLParser):
    """Reads what a page tells to those who do not see it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.path: list[str] = []
        self.text: dict[str, str] = {}
        self.lone_marks: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.path.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.path and self.path.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self.path:
            self.text[self.path[-1]] = self.text.get(self.path[-1], "") + data

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.tags if tag == name]


@pytest.fixture(scope="module", params=["run", "comparison"])
def page(request: pytest.FixtureRequest, make_trace) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embeddings, "has_method", lambda method: method == "pca")
        if request.param == "run":
            trace = make_trace()
            return render(trace, diagnose(trace, max_scalars=20))
        runs = {name: make_trace(seed=seed, draws=20) for seed, name in enumerate("ab")}
        for one in runs.values():
            one["predictions_constant_data"] = runs["a"]["predictions_constant_data"].copy()
        return compare(runs, reference=make_trace(seed=5, draws=20), resamples=5).to_html()


def test_language_title_and_landmark(page: str) -> None:
    outline = Outline(page)
    assert outline.all("html")[0]["lang"] == "en"
    assert outline.text["title"].strip()
    assert len(outline.all("main")) == 1
    assert any(meta.get("name") == "viewport" for meta in outline.all("meta"))


def test_headings_are_in_order(page: str) -> None:
    levels = [int(tag[1]) for tag, _ in Outline(page).tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in itertools.pairwise(levels))


def test_every_picture_says_what_it_shows(page: str) -> None:
    pictures = Outline(page).all("img")
    assert pictures
    for attrs in pictures:
        assert len((attrs["alt"] or "").split()) > 4


def test_tables_have_headers_with_scope(page: str) -> None:
    tables = re.findall(r"<table.*?</table>", page, flags=re.DOTALL)
    assert tables
    for table in tables:
        heads = Outline(table).all("th")
        assert heads
        assert all(head.get("scope") in {"col", "row"} for head in heads)
    assert not re.search(r"<th[^>]*>\s*</th>", page)


def test_what_scrolls_can_be_reached_by_keyboard_and_has_a_name(page: str) -> None:
    for attrs in Outline(page).all("div"):
        if "scroll" in (attrs.get("class") or "").split():
            assert attrs.get("tabindex") == "0"
            assert attrs.get("role") == "region"
            assert attrs.get("aria-label")
    labels = re.findall(r'role="region" aria-label="([^"]+)"', page)
    assert len(labels) == len(set(labels))


def test_no_meaning_by_colour_alone(page: str) -> None:
    marks = re.findall(r'<span class="mark (\w+)">(.*?)</span>', page)
    assert all(level in text for level, text in marks)
    # A best number is bold, not only coloured.
    assert ".key { font-weight: 600; }" in page


def test_nothing_is_fetched_and_nothing_runs(page: str) -> None:
    outside = re.sub(r"data:image[^\"]*", "", page)
    assert "http" not in outside
    assert "url(" not in outside
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in Outline(page).tags}


def test_paper_has_rules_of_its_own(page: str) -> None:
    assert "@media print" in page
    assert "break-inside: avoid" in page


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="Chromium is not installed")
@pytest.mark.skipif(AXE is None, reason="axe-core-python is not installed")
@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing_in_a_browser(page: str, width: int, dark: bool, tmp_path: Path) -> None:
    assert BROWSER is not None
    found = asked(page, tmp_path, width, dark)
    assert found["passes"] > 15
    assert found["violations"] == []


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="Chromium is not installed")
@pytest.mark.skipif(AXE is None, reason="axe-core-python is not installed")
def test_axe_finds_what_is_wrong(page: str, tmp_path: Path) -> None:
    broken = re.sub(r' alt="[^"]*"', "", page, count=1)
    broken = re.sub(r"--muted: #\w+", "--muted: #dddddd", broken)
    found = asked(broken, tmp_path, 1280, False)
    assert {"image-alt", "color-contrast"} <= {name for name, _, _ in found["violations"]}


def asked(page: str, folder: Path, width: int, dark: bool) -> dict:
    """Run axe-core on a page in headless Chromium."""
    assert BROWSER is not None
    assert AXE is not None
    axe = (Path(str(AXE.origin)).parent / "axe.min.js").read_text(encoding="utf-8")
    (folder / "axe.js").write_text(axe + ASK, encoding="utf-8")
    file = folder / "page.html"
    script = '<script src="axe.js"></script></body>'
    file.write_text(page.replace("</body>", script), encoding="utf-8")
    done = subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={folder / 'profile'}",
            f"--window-size={width},900",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            "--virtual-time-budget=60000",
            "--dump-dom",
            file.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    answer = re.search(r'<pre id="axe-found">(.*?)</pre>', done.stdout, flags=re.DOTALL)
    assert answer is not None, done.stderr[-2000:]
    found: dict = json.loads(html.unescape(answer[1]))
    return found


def palettes() -> Iterator[dict[str, str]]:
    """Yield the light palette and the dark one."""
    for block in re.findall(r":root \{(.*?)\}", CSS, flags=re.DOTALL):
        yield dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))


def luminance(colour: str) -> float:
    """Relative luminance as WCAG defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


def test_text_stands_out_from_its_ground() -> None:
    both = list(palettes())
    assert len(both) == 2
    for palette in both:
        for text, ground in itertools.product(TEXT, ("paper", "soft")):
            found = contrast(palette[text], palette[ground])
            assert found >= ENOUGH, (text, ground, found)


@pytest.mark.parametrize("dark", [False, True])
def test_text_and_marks_of_pictures_stand_out(dark: bool) -> None:
    shown = {c: style._DARK.get(c, c) if dark else c for c in (style.INK, style.MUTED, style.PAPER)}
    for colour in (style.INK, style.MUTED):
        assert contrast(shown[colour], shown[style.PAPER]) >= ENOUGH
    for colour in (style.BLUE, style.ORANGE, style.GREEN):
        seen = style._DARK.get(colour, colour) if dark else colour
        assert contrast(seen, shown[style.PAPER]) >= ENOUGH_GRAPHIC


def test_a_trace_of_nothing_is_accessible_too() -> None:
    empty = xr.DataTree()
    text = render(empty, diagnose(empty))
    test_tables_have_headers_with_scope(text) if "<table" in text else None
    test_headings_are_in_order(text)
