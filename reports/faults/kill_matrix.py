"""Which property finds which planted fault: what finds nothing, and what is found by one property alone.

A property is a quantity of a stage, such as ``loss: gradient of boxes``. It finds a fault if it differs on the batch that caught the fault,
whose row lists all that differ; so does a decision that the earlier stages decide already, since every stage is judged.
"""

from __future__ import annotations

import pandas as pd

from reports import tasks
from reports.document import Block
from reports.tables import Column, Table, bad_if_any

SOUND = "the twin itself"
SEPARATOR = "; "
WITH_STAGES = "stages"


def build(rows: pd.DataFrame) -> tuple[Block, ...]:
    """Returns the tables of properties and of faults that one property alone finds; none for rows that do not tell."""
    if "found_by" not in rows or not rows["found_by"].fillna("").ne("").any():
        return ()
    found = _long(rows[rows["fault"] != SOUND], "found_by")
    return (properties(rows, found), alone(found))


def _long(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Returns a row for each property that a column lists, with the number of properties of its row."""
    named = rows.assign(property=rows[column].fillna("").str.split(SEPARATOR))
    named["properties"] = named["property"].str.len()
    long = named.explode("property")
    return long[long["property"] != ""]


def by_task(rows: pd.DataFrame) -> Table:
    """Returns a line for each property, with the number of faults of each task that it finds where the stages are shown."""
    rows = tasks.ordered(rows[rows["mode"] == WITH_STAGES])
    found = properties(rows, _long(rows[rows["fault"] != SOUND], "found_by")).frame
    written = found["faults"].map("{:.0f}".format) + found["alone"].map(lambda alone: f" ({alone:.0f} alone)" if alone else "")
    several = found.assign(written=written, task=found[tasks.TASK] if tasks.TASK in found else rows[tasks.TASK].iloc[0])
    frame = several.pivot(index="property", columns=tasks.TASK, values="written").fillna("–")
    totals = several.groupby("property")["faults"].sum()
    columns = (Column("property", "property"), *(Column(str(name), str(name)) for name in frame.columns))
    return Table("What each property finds", columns, frame.loc[totals.sort_values(kind="stable").index].reset_index())


def alone_by_task(rows: pd.DataFrame) -> Table:
    """Returns the faults of every task that one property alone finds, by property."""
    return alone(_long(tasks.ordered(rows[rows["fault"] != SOUND]), "found_by"))


def properties(rows: pd.DataFrame, found: pd.DataFrame) -> Table:
    """Returns the number of faults that each property finds, and that it alone finds; those that find nothing first."""
    keys = [*tasks.keys(found), "mode", "property"]
    counted = found.assign(alone=found["properties"] == 1).groupby(keys, sort=False, observed=True)
    frame = counted.agg(faults=("fault", "nunique"), alone=("alone", "sum")).reset_index()
    looked = _long(rows[rows["fault"] == SOUND], "looked")[keys].drop_duplicates() if "looked" in rows else frame[keys]
    frame = looked.merge(frame, how="outer", on=keys).fillna({"faults": 0, "alone": 0})
    frame["nothing"] = frame["faults"] == 0
    frame = frame.sort_values([*tasks.keys(frame), "mode", "faults"], kind="stable")
    columns = (
        Column("mode", "what is seen"),
        Column("property", "property"),
        Column("faults", "faults found", "count"),
        Column("alone", "found by it alone", "count"),
        Column("nothing", "finds nothing", "count", bad_if_any),
    )
    return tasks.table("What each property finds", columns, frame, "Counted on the batch that caught the fault.")


def alone(found: pd.DataFrame) -> Table:
    """Returns the faults that one property alone finds where the stages are shown: without that property they would survive."""
    lone = found[(found["properties"] == 1) & (found["mode"] == WITH_STAGES)].sort_values(["property", "fault"], kind="stable")
    columns = (Column("property", "property"), Column("fault", "fault"), Column("section", "§"), Column("setting", "logits"))
    return tasks.table("Faults that one property alone finds", columns, lone)
