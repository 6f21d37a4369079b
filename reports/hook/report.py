"""The report of a run of the drop-in inside releases of the reference."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from reports import tasks
from reports.document import Fact, Kind, Report, Section
from reports.rows import Schema
from reports.tables import Column, Table, Tone

VERIFIED, REFUSED = "verified", "refused"
SCHEMA = Schema(
    required={
        "release": "text",
        "head": "text",
        "how": "text",  # training: an epoch with the release's trainer; model: one batch by its model and criterion
        "definition": "text",
        "returns": "text",
        "criterion": "text",
        "training_calls": "count",
        "validation_calls": "count",
        "verifications": "count",
        "difference": "number",  # relative, of a term on the same assignment, the largest
        "verdict": "text",
        "message": "text",
        "note": "text",
    },
    optional=tasks.COLUMN,
    defaults=tasks.DEFAULT,
    written_by="nox -s hook",
)


def build(rows: pd.DataFrame) -> Report:
    """The report of these rows, which have the columns of :data:`SCHEMA`."""
    rows = tasks.ordered(rows)
    good = rows["verdict"].isin([VERIFIED, REFUSED])
    served, refused = (rows["release"][rows["verdict"] == verdict].nunique() for verdict in (VERIFIED, REFUSED))
    failed = int((~good).sum())
    headline = f"The drop-in is verified in {served} releases" + (f", and refuses {refused} by name" if refused else "")
    headline += f"; {failed} trials failed" if failed else ""
    facts = (
        Fact("releases", str(rows["release"].nunique())),
        Fact("trained", str(rows["release"][rows["how"] == "training"].nunique())),
        Fact("failed", str(failed), "bad" if failed else "good"),
        Fact("largest difference", f"{rows['difference'].max():.1e}"),
    )
    table = each(rows)
    return Report(
        "hook", "The drop-in inside releases", headline, "bad" if failed else "good", facts, (Section("Every trial", (table,)),), table
    )


def each(rows: pd.DataFrame) -> Table:
    """One row a release and head."""
    columns = (
        Column("release", "release"),
        Column("head", "head"),
        Column("how", "tried by"),
        Column("definition", "definition"),
        Column("returns", "returns"),
        Column("training_calls", "batches trained", "count"),
        Column("validation_calls", "validated", "count"),
        Column("verifications", "verified", "count"),
        Column("shown", "largest difference"),
        Column("verdict", "verdict", tone=judged),
        Column("said", "message"),
    )
    shown = ["" if math.isnan(value) else f"{value:.1e}" for value in rows["difference"]]
    said = rows["message"].where(rows["message"] != "", rows["note"])
    note = "Differences are relative, of the term that differs most from the own criterion's on the same assignment."
    return tasks.table("The drop-in by release", columns, rows.assign(shown=shown, said=said), note)


def judged(verdict: Any) -> Tone:
    """What a verdict means."""
    tones: dict[str, Tone] = {VERIFIED: "good", REFUSED: "warn"}
    return tones.get(str(verdict), "bad")


KIND = Kind("hook", SCHEMA, build)
