"""The report of a run of the planted faults."""

from __future__ import annotations

import pandas as pd

from reports import tasks
from reports.document import Fact, Kind, Report, Section
from reports.faults import kill_matrix
from reports.faults.kill_matrix import SOUND
from reports.rows import Schema
from reports.tables import Column, Table, bad_if_any

EXTENT = {"images": "image", "boxes": "box", "levels": "level"}

SCHEMA = Schema(
    required={
        "fault": "text",
        "violates": "text",  # the sentence of the definition
        "section": "text",
        "mode": "text",  # with its stages, or nothing but the loss
        "caught": "count",
        "stage": "text",
        "quantity": "text",
        "setting": "text",
        "profile": "text",
        "case": "text",
        "examples": "count",
        "seconds": "number",  # of the fault alone
        "images": "count",  # of the smallest batch found, as the next two
        "boxes": "count",
        "levels": "count",
    },
    optional={
        "found_by": "text",  # every property that differs on the batch that caught it, separated by semicolons
        "looked": "text",  # of the twin itself: every property that was looked at
        **tasks.COLUMN,
    },
    defaults=tasks.DEFAULT,
    written_by="nox -s faults",
)


def build(rows: pd.DataFrame) -> Report:
    """Returns the report of these rows, which have the columns of :data:`SCHEMA`."""
    rows = tasks.ordered(rows)
    faults, twin = rows[rows["fault"] != SOUND], rows[rows["fault"] == SOUND]
    survivors, alarms = int((faults["caught"] == 0).sum()), int(twin["caught"].sum())
    names = faults["fault"].nunique()
    headline = f"{survivors} of {len(faults)} hunts ended without a catch" if survivors else f"All {names} planted faults are caught"
    if alarms:
        headline += f", and the twin itself was found wrong {alarms} times"
    caught = faults[faults["caught"] > 0]
    facts = (
        Fact("faults", str(names)),
        Fact("survivors", str(survivors), "bad" if survivors else "good"),
        Fact("false alarms", str(alarms), "bad" if alarms else "good"),
        Fact("batches, median", f"{caught['examples'].median():.0f}" if len(caught) else "–"),
        Fact("batches, largest", f"{caught['examples'].max():.0f}" if len(caught) else "–"),
        Fact("smallest batch, median", _extent(caught) if len(caught) else "–"),
    )
    summary = by_stage(faults)
    sections: tuple[Section, ...] = (Section("By what", (summary,)), Section("Every fault", (each(faults),), brief=False))
    if kills := kill_matrix.build(rows):
        sections = (sections[0], Section("Which property finds which fault", kills, brief=False), sections[1])
    if survivors:
        sections = (Section("Survivors", (each(faults[faults["caught"] == 0]),)), *sections)
    return Report("faults", "Planted faults", headline, "bad" if survivors or alarms else "good", facts, sections, summary)


def _extent(caught: pd.DataFrame) -> str:
    parts = ((caught[name].median(), name if caught[name].median() != 1 else one) for name, one in EXTENT.items())
    return ", ".join(f"{count:g} {name}" for count, name in parts)


def by_stage(faults: pd.DataFrame) -> Table:
    """Returns the table of faults by the stage that detected them."""
    frame = faults.assign(survived=faults["caught"] == 0, stage=faults["stage"].where(faults["caught"] > 0, "nothing"))
    frame = frame.groupby([*tasks.keys(frame), "mode", "stage"], sort=False, observed=True).agg(
        faults=("fault", "nunique"), survived=("survived", "sum"), median=("examples", "median"), most=("examples", "max")
    )
    columns = (
        Column("mode", "what is seen"),
        Column("stage", "first caught by"),
        Column("faults", "faults", "count"),
        Column("survived", "survived", "count", bad_if_any),
        Column("median", "batches, median", "count"),
        Column("most", "batches, most", "count"),
    )
    return tasks.table(
        "What catches faults", columns, frame.reset_index(), "Batches count all settings in turn, so that a rare one takes longer."
    )


def each(faults: pd.DataFrame) -> Table:
    """Returns the table of faults, one row for each fault and mode, those detected last first."""
    columns = (
        Column("fault", "fault"),
        Column("violates", "violates"),
        Column("section", "§"),
        Column("mode", "what is seen"),
        Column("stage", "caught by"),
        Column("quantity", "quantity"),
        Column("setting", "logits"),
        Column("examples", "batches", "count"),
        Column("seconds", "seconds", "number"),
        Column("images", "images", "count"),
        Column("boxes", "boxes", "count"),
        Column("levels", "levels", "count"),
        Column("case", "case", "code"),
    )
    return tasks.table("Planted faults", columns, faults.sort_values(["caught", "examples"], ascending=[True, False], kind="stable"))


KIND = Kind("faults", SCHEMA, build)
