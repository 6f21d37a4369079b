"""A report before it is rendered: what Markdown, the page and the console all show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from reports.rows import Schema
from reports.tables import Table, Tone


@dataclass(frozen=True)
class Fact:
    """One figure at the top of a report."""

    label: str
    value: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class Figure:
    """A drawing as SVG text, with the sentence that says what it shows to those who cannot see it."""

    title: str
    svg: str
    description: str


@dataclass(frozen=True)
class Entry:
    """One finding with what is needed to act on it: a heading, details as they were recorded, and a command."""

    heading: str
    detail: str
    command: str
    tone: Tone = "bad"


@dataclass(frozen=True)
class Listing:
    """Findings in order of weight, and how many more there are than are shown."""

    entries: tuple[Entry, ...]
    left_out: int = 0


Block = str | Table | Figure | Listing


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it; ``brief`` sections are in the short Markdown summary as well."""

    heading: str
    blocks: tuple[Block, ...]
    brief: bool = True


@dataclass(frozen=True)
class Report:
    """A whole report.

    Attributes:
        kind: its folder under ``reports/out``.
        title: what was run.
        headline: the outcome, in one sentence.
        tone: ``"bad"`` when the run should be red.
        facts: the figures at the top.
        sections: the rest, in order.
        console: the table that ends a run on the terminal.
    """

    kind: str
    title: str
    headline: str
    tone: Tone
    facts: tuple[Fact, ...]
    sections: tuple[Section, ...]
    console: Table


@dataclass(frozen=True)
class Kind:
    """A kind of report: its name, which is its folder's; the rows that it reads; and the function that makes the report of them."""

    name: str
    schema: Schema
    build: Callable[[pd.DataFrame], Report]
