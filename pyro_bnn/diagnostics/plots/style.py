"""One quiet look for all pictures, and their way into a page."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK = "#22303c"
MUTED = "#667481"
RULE = "#d5dbe0"
PAPER = "#ffffff"

# Okabe and Ito's colours, which colour-blind readers tell apart.
BLUE = "#0072b2"
ORANGE = "#d55e00"
AMBER = "#e69f00"
GREEN = "#009e73"
PURPLE = "#cc79a7"
SKY = "#56b4e9"

SERIES = (BLUE, ORANGE, GREEN, AMBER, PURPLE, SKY)
"""Lines of one picture, in this order; markers tell them apart too."""

SPACE_COLOURS = {"weight": ORANGE, "canonical": AMBER, "function": BLUE, "null": MUTED}
SPACE_NAMES = {
    "weight": "weights",
    "canonical": "canonical weights",
    "function": "functions",
    "null": "prior, canonical (control)",
}
POSTERIOR = BLUE
POINT = ORANGE

WIDTH = 4.6
"""Inches: half the page, the whole of a phone."""

_SVG_DPI = 72  # points an inch

# On a dark page the picture stays transparent and its greys change sides.
_DARK = {
    INK: "#e7ebee",
    MUTED: "#a3afb9",
    RULE: "#3a4651",
    PAPER: "#171c21",
    BLUE: "#56a9dc",
    ORANGE: "#f0854a",
}

_RC: dict[str, Any] = {
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "figure.constrained_layout.use": False,
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "axes.titlelocation": "left",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "axes.grid": False,
    "grid.color": RULE,
    "lines.linewidth": 1.3,
    "axes.prop_cycle": cycler(color=SERIES),
    "svg.fonttype": "none",
    "svg.hashsalt": "pyro_bnn",
}


@contextmanager
def look() -> Iterator[None]:
    """Set the style for as long as a picture is drawn."""
    with mpl.rc_context(_RC):
        yield


def figure(height: float, width: float = WIDTH) -> Figure:
    """Start a figure outside of pyplot, so that no global state remembers it.

    Parameters
    ----------
    height, width
        In inches.
    """
    return Figure(figsize=(width, height), layout="constrained")


def chain_colours(chains: int) -> list[str]:
    """Shades of viridis, one a chain, without its ends, which fade into a dark or a light page."""
    cmap = mpl.colormaps["viridis"]
    return [mpl.colors.to_hex(cmap(0.22 + 0.64 * i / max(1, chains - 1))) for i in range(chains)]


def bare(axes: Axes) -> None:
    """Leave only the horizontal axis."""
    axes.spines["left"].set_visible(False)
    axes.set_yticks([])


def data_uri(picture: Figure) -> str:
    """Turn a figure into an SVG data URI that follows the page into the dark.

    Parameters
    ----------
    picture
        The figure.

    Returns
    -------
    str
        ``data:image/svg+xml;base64,...``
    """
    with look():
        buffer = io.StringIO()
        _lay_out(picture)
        picture.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # A hundredth of a point cannot be seen, and what follows it is half of the file.
    # Only inside of tags: the numbers of the text are to be read.
    svg = re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\d\.\d\d)\d+", r"\1", tag[0]), svg)
    svg = re.sub(r"(<svg[^>]*>)", lambda match: match[1] + _stylesheet(), svg, count=1)
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _lay_out(picture: Figure) -> None:
    """Lay a figure out, once: `savefig` would draw all of it for that, unseen, before it draws."""
    engine = picture.get_layout_engine()
    if engine is not None:
        FigureCanvasSVG(picture)  # whose renderer measures the text
        dpi = picture.dpi
        picture.dpi = _SVG_DPI
        engine.execute(picture)
        picture.dpi = dpi
        picture.set_layout_engine("none")


def _stylesheet() -> str:
    dark = "".join(
        f'[style*="{name}: {light}"]{{{name}:{dark} !important}}'
        for light, dark in _DARK.items()
        for name in ("fill", "stroke")
    )
    return (
        "<style>text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',"
        "'Noto Sans','Liberation Sans',Arial,sans-serif !important}"
        f"@media (prefers-color-scheme:dark){{{dark}}}</style>"
    )
