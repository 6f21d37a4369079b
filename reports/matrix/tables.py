"""Tables of the matrix."""

from __future__ import annotations

from typing import Any

import pandas as pd

from reports.matrix.schema import CANNOT_RUN, CONDUCT, DIFFERS, HALF, NOT_OFFERED, SAME, TONES
from reports.tables import Column, Table, Tone

MARKS = {SAME: "same", NOT_OFFERED: "–", CANNOT_RUN: "cannot run"}
LONGEST = 60


def columns_of(rows: pd.DataFrame) -> list[str]:
    """Returns the names of the columns, in the order of the rows."""
    return [str(name) for name in rows["column"].drop_duplicates()]


def short(row: Any) -> str:
    """Returns the text of a cell: its verdict, and for a difference what is otherwise."""
    if row["verdict"] != DIFFERS:
        return MARKS[row["verdict"]]
    what = str(row["what"])
    return f"differs: {what if len(what) <= LONGEST else what[:LONGEST].rsplit(' ', 1)[0] + ' …'}"


def tone_of(text: Any) -> Tone:
    """Returns the tone of a cell's text."""
    return next((tone for verdict, tone in TONES.items() if str(text).startswith(MARKS.get(verdict, DIFFERS))), "plain")


def matrix(rows: pd.DataFrame, kinds: tuple[str, ...], title: str, note: str = "") -> Table:
    """Returns the table of features by implementations of some kinds."""
    own = rows[rows["kind"].isin(kinds)]
    cells = own.assign(text=[short(row) for row in own.to_dict("records")])
    frame = cells.pivot(index="feature", columns="column", values="text").reindex(own["feature"].drop_duplicates())
    names = columns_of(own)
    columns = (Column("feature", "feature"), *(Column(name, name, "text", tone_of) for name in names))
    return Table(title, columns, frame[names].reset_index(), note)


def differences(rows: pd.DataFrame) -> Table:
    """Returns the table of cells that differ, with their counter-proofs."""
    own = rows[(rows["verdict"] == DIFFERS) & ~rows["feature"].isin((CONDUCT, HALF))]
    frame = own.assign(
        proof=[f"{row['proved']:.0f} of {row['answered']:.0f}" for row in own.to_dict("records")],
        without=[f"{row['proved_without']:.0f}" for row in own.to_dict("records")],
    )
    columns = (
        Column("column", "implementation", "code"),
        Column("feature", "feature"),
        Column("what", "what is otherwise"),
        Column("proof", "the definition with all that is otherwise gives its answer to"),
        Column("without", "without this difference, to"),
        Column("before", "largest difference without", "number"),
        Column("after", "and with it", "number"),
    )
    note = (
        "Differences are relative to the largest number of their kind. In each row the other differences of that implementation are kept."
    )
    return Table("Differences and their counter-proofs", columns, frame, note)


def others(rows: pd.DataFrame) -> Table:
    """Returns the table of what differs in half precision and in conduct, and of what is not known, with the reasons."""
    special = rows["feature"].isin((CONDUCT, HALF)) & (rows["verdict"] == DIFFERS)
    frame = rows[special | rows["verdict"].isin((NOT_OFFERED, CANNOT_RUN))]
    frame = frame.groupby(["column", "verdict", "what"], sort=False)["feature"].agg(", ".join).reset_index()
    columns = (
        Column("column", "implementation", "code"),
        Column("feature", "feature"),
        Column("verdict", "verdict"),
        Column("what", "why"),
    )
    return Table("Half precision, conduct, and what is not known", columns, frame)


def implementations(rows: pd.DataFrame) -> Table:
    """Returns the table of implementations with the numbers of their cells."""
    counts = rows.pivot_table(index="column", columns="verdict", values="feature", aggfunc="count", fill_value=0, sort=False)
    counts = counts.reindex(columns=[SAME, DIFFERS, NOT_OFFERED, CANNOT_RUN], fill_value=0).reset_index()
    named = rows.drop_duplicates("column")[["column", "licence", "rounding"]]
    frame = named.merge(counts, on="column")
    tones: dict[str, Any] = {DIFFERS: lambda value: "bad" if value else "good"}
    columns = (
        Column("column", "implementation", "code"),
        Column("licence", "licence"),
        *(Column(verdict, verdict, "count", tones.get(verdict, lambda _: "plain")) for verdict in (SAME, DIFFERS, NOT_OFFERED, CANNOT_RUN)),
        Column("rounding", "differences up to this count as rounding", "number"),
    )
    return Table("Implementations", columns, frame)
