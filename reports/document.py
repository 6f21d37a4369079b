"""The contents of a report, which are rendered as Markdown, as a page and on the console."""

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
    """A drawing as SVG text, with a description for screen readers."""

    title: str
    svg: str
    description: str


@dataclass(frozen=True)
class Entry:
    """One finding: a heading, the recorded details, and the command that replays it."""

    heading: str
    detail: str
    command: str
    tone: Tone = "bad"


@dataclass(frozen=True)
class Listing:
    """Findings, the gravest first, and the number of findings that are not shown."""

    entries: tuple[Entry, ...]
    left_out: int = 0


Block = str | Table | Figure | Listing


@dataclass(frozen=True)
class Section:
    """A heading and its blocks; the Markdown summary shows ``brief`` sections only."""

    heading: str
    blocks: tuple[Block, ...]
    brief: bool = True


@dataclass(frozen=True)
class Report:
    """A whole report.

    Attributes:
        kind: name of its folder under ``reports/out``.
        title: name of the run.
        headline: the outcome, in one sentence.
        tone: ``"bad"`` when the run failed.
        facts: figures at the top.
        sections: the other parts, in order.
        console: the table that the console shows.
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
    """A kind of report: its name, which is also its folder; the schema of its rows; the function that makes a report of them."""

    name: str
    schema: Schema
    build: Callable[[pd.DataFrame], Report]
