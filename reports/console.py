"""Prints a report on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from reports.document import Report
from reports.escape import plain
from reports.tables import Table, Tone

STYLES: dict[Tone, str] = {"plain": "", "good": "green", "warn": "yellow", "bad": "bold red"}


NARROW = 120  # columns where the output is no terminal, such as a log


def show(report: Report) -> None:
    """Print the report's table and its headline."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=NARROW)
    console.print(_table(report.console))
    console.print(Text(plain(report.headline), style=STYLES[report.tone]))


def _table(table: Table) -> RichTable:
    shown = RichTable(title=table.title, title_justify="left", title_style="bold", header_style="bold")
    for column in table.columns:
        shown.add_column(column.title, justify="right" if column.numeric else "left", overflow="fold")
    for cells in table.cells():
        shown.add_row(*(Text(plain(text), style=STYLES[tone]) for text, tone in cells))
    return shown
