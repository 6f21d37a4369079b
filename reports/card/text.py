"""The cards as plain text for a document: one paragraph per contender, between two marks that a command replaces."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from reports.card.report import CONDUCT, headline, named, observed, way
from reports.diff import tables
from reports.diff.schema import AGREE, AMBIGUOUS, DIFFER, drawn
from reports.escape import fenced

Explanations = Mapping[tuple[str, str], str]
"""Sentences that explain differences, by contender and task."""

BEGIN, END = "<!-- cards: begin; written by python -m reports.card --readme docs/tutorial/judge.md -->", "<!-- cards: end -->"


def inserted(readme: str, rows: pd.DataFrame, explanations: Explanations | None = None) -> str:
    """Returns a document with the cards of these rows between its marks.

    Raises:
        ValueError: the marks are missing.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"--readme: the file has no place for the cards; add a line {BEGIN} and a line {END}")
    return f"{before}{BEGIN}\n{block(rows, explanations)}{END}{after}"


def block(rows: pd.DataFrame, explanations: Explanations | None = None) -> str:
    """Returns the cards of all contenders, in a fence."""
    known = explanations or {}
    grouped = rows.groupby(["contender", "task"], sort=False)
    cards = "\n\n".join(card(mine, known.get((str(name), str(task)), "")) for (name, task), mine in grouped)
    return f"{fenced(cards)}\n"


def card(rows: pd.DataFrame, explanation: str = "") -> str:
    """Returns the card of the contender of these rows: result, verdicts, stages, conduct."""
    rows = drawn(rows)
    compared = tables.comparisons(rows)
    counts = compared["verdict"].value_counts()
    verdicts = ", ".join(f"{counts.get(verdict, 0):,} {verdict.lower()}" for verdict in (AGREE, AMBIGUOUS, DIFFER))
    stages = tables.stages(rows[rows["stage"] != CONDUCT]).frame
    shown = [_marked(str(row["stage"]), row[AGREE] + row[AMBIGUOUS], row[DIFFER]) for row in stages.to_dict("records")]
    seen = observed(rows).groupby("quantity", sort=False)["verdict"].agg(differs=lambda found: (found == DIFFER).sum(), looked="size")
    modes = [_marked(str(mode), row["looked"] - row["differs"], row["differs"]) for mode, row in seen.iterrows()]
    lines = [
        f"{named(rows)}: {headline(rows, explanation)}",
        f"  verdicts  {verdicts}; worst error ÷ allowance {tables.RATIO.text(tables.ratios(rows).max())}",
        f"  stages    {', '.join(shown)}",
        f"  conduct   {', '.join(modes) or 'not observed'}",
        *([f"  ran in    {way(rows)}"] if "isolated" in rows else []),
    ]
    return "\n".join(lines)


def _marked(name: str, fine: int, wrong: int) -> str:
    if wrong:
        return f"{name} ✗ {wrong:,}"
    return f"{name} ✓" if fine else f"{name} –"
