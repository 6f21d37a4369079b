"""Draws matplotlib's figures as SVG whose colours are variables of the page, so that one drawing serves light and dark pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

# Colours that matplotlib draws with, each replaced by a variable of the page's style sheet.
INK, FAINT = "#010101", "#020202"
SERIES = ("#030303", "#040404", "#050505", "#060606", "#070707", "#080808")
BAD = "#090909"
VARIABLES = {INK: "--ink", FAINT: "--line", BAD: "--bad"} | {colour: f"--series-{at}" for at, colour in enumerate(SERIES, 1)}

STYLE = {
    "svg.fonttype": "none",  # text stays text: searchable, and in the page's own font
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}


class Drawing:
    """A figure; its :attr:`svg` is set at the end of the context."""

    def __init__(self, canvas: Canvas, axes: Axes) -> None:
        self.canvas, self.axes, self.svg = canvas, axes, ""


@contextmanager
def drawing(name: str, height: float, width: float = 9.0) -> Iterator[Drawing]:
    """The context of a drawing on one pair of axes, sizes in inches; ``name`` makes the figure's identifiers unique on the page."""
    style: Any = {**STYLE, "svg.hashsalt": name}
    with mpl.rc_context(style):
        canvas = Canvas(figsize=(width, height), layout="constrained")
        drawn = Drawing(canvas, canvas.add_subplot())
        yield drawn
        drawn.svg = _svg(canvas, name)


def _svg(canvas: Canvas, name: str) -> str:
    """Returns the figure as an element of a page: without prologue, metadata and fixed size, with the page's colours."""
    text = StringIO()
    canvas.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)  # needless inside HTML
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg))
    svg = re.sub(
        r'\bid="(figure|axes|patch|line2d|text|matplotlib|xtick|ytick|legend|PathCollection|LineCollection)', rf'id="{name}-\1', svg
    )
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg
