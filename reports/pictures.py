"""``python -m reports.pictures``: writes the README's drawings from the rows committed in ``reports/measured``.

A drawing on a page uses the colours of the page; a drawing in a file contains its colours, for light and dark backgrounds.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path

import pandas as pd

from reports.bench import plots
from reports.bench.schema import SCHEMA, labelled
from reports.document import Figure
from reports.rows import validated

MEASURED = Path(__file__).parent / "measured"
ROWS = MEASURED / "bench.csv"
STYLE = Path(__file__).with_name("page.css")


def main() -> int:
    """Write the drawings; returns 0."""
    for name, figure in pictures(ROWS):
        (MEASURED / f"{name}.svg").write_text(standalone(figure), "utf-8")
        sys.stdout.write(f"reports/measured/{name}.svg: {figure.title}\n")
    return 0


def pictures(rows: Path) -> Iterator[tuple[str, Figure]]:
    """Yields the drawings with the names of their files."""
    frame = validated(pd.read_csv(rows), SCHEMA, rows)
    frame = labelled(frame.assign(backend=frame["backend"].replace("auto", "native")))  # which is the default on a CPU
    yield "ratios", plots.ratios(frame[frame["heap"] == "steady"])
    yield from (("boxes", figure) for figure in plots.scaling(frame) if "boxes" in figure.title)


def standalone(figure: Figure) -> str:
    """Returns the drawing as the text of an SVG file with colours, title and background."""
    colours = STYLE.read_text("utf-8").partition("* {")[0]
    words = f"<title>{escape(figure.title)}</title><desc>{escape(figure.description)}</desc>"
    style = f"<style>{colours} svg {{ background: var(--sheet); }}</style>"
    opening, closing, rest = figure.svg.partition(">")
    named_spaces = opening.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"', 1)
    return f"{named_spaces}{closing}{words}{style}{rest}"


if __name__ == "__main__":
    sys.exit(main())
