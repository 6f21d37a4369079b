"""A report as one self-contained HTML file, with its style, tables and drawings."""

from __future__ import annotations

import re
from pathlib import Path

import jinja2
import pandas as pd
from markupsafe import Markup, escape
from pandas.io.formats.style_render import CSSDict

from reports.document import Block, Figure, Listing, Report
from reports.escape import plain
from reports.tables import Column, Table, Tone

SHORT = 36  # characters that are not broken into lines
HERE = Path(__file__).parent


def render(report: Report) -> str:
    """Returns the HTML of a report."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"kind": _kind, "table": _table, "prose": _prose, "drawing": lambda figure: Markup(figure.svg), "anchor": anchor}
    style = Markup((HERE / "page.css").read_text("utf-8"))
    # Invisible characters, such as those that change the direction of writing, are escaped as for a terminal.
    return plain(environment.get_template("page.html.j2").render(report=report, style=style))


def anchor(heading: str) -> str:
    """Returns a heading's anchor, without characters that selectors do not allow."""
    return re.sub(r"\W+", "-", heading.lower()).strip("-")


def _kind(block: Block) -> str:
    match block:
        case Table():
            return "table"
        case Figure():
            return "figure"
        case Listing():
            return "listing"
        case str():
            return "text"


def _prose(text: str) -> Markup:
    """Returns text as HTML, with `backticks` as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _table(table: Table) -> Markup:
    """Renders a table with pandas' Styler; tones and alignment become classes."""
    cells = list(table.cells())
    titles = [column.title for column in table.columns]
    texts = pd.DataFrame([[text for text, _ in row] for row in cells], columns=titles, dtype="object")
    classes = pd.DataFrame([list(map(_class, table.columns, row)) for row in cells], columns=titles)
    right: list[CSSDict] = [
        {"selector": f"th.col{at}", "props": "text-align: right"} for at, column in enumerate(table.columns) if column.numeric
    ]
    styler = texts.style.hide(axis="index").format(escape="html").set_td_classes(classes)
    styler = styler.set_table_styles(right).set_uuid(anchor(table.title)).set_table_attributes('class="data"')
    return Markup(styler.to_html(doctype_html=False))


def _class(column: Column, cell: tuple[str, Tone]) -> str:
    """Returns a cell's classes: alignment, line breaking, and tone."""
    text, tone = cell
    return f"{'number' if column.numeric else column.form} {'short' if len(text) <= SHORT else ''} {tone}"
