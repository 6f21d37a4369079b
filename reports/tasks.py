"""Rows of several tasks: the column that names the task, which tables show where the rows are of more than one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pandas as pd

from reports.rows import Type
from reports.tables import Column, Table

TASK, DETECT = "task", "detect"
LOSSES = {DETECT: "detection loss", "segment": "segmentation loss", "oriented": "oriented-box loss", "pose": "pose loss"}
COLUMN: Mapping[str, Type] = {TASK: "text"}
"""For a schema's optional columns; with :data:`DEFAULT`, since rows that are older than the column are all detection's."""
DEFAULT = {TASK: DETECT}


def keys(rows: pd.DataFrame) -> tuple[str, ...]:
    """Returns the names of the columns that tables group by first: the task if the report is of several (:func:`ordered`)."""
    if TASK not in rows:
        return ()
    values = rows[TASK]
    several = len(values.cat.categories) if isinstance(values.dtype, pd.CategoricalDtype) else values.nunique()
    return (TASK,) if several > 1 else ()


def table(title: str, columns: tuple[Column, ...], rows: pd.DataFrame, note: str = "") -> Table:
    """Returns a table with a line for each of the rows, and with the task in front if they are of several."""
    return Table(title, (*(Column(name, name) for name in keys(rows)), *columns), rows, note)


def ordered(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows with the task as a categorical, so that tables keep the order of :data:`LOSSES`."""
    present = sorted(rows[TASK].unique(), key=lambda name: (list(LOSSES).index(name) if name in LOSSES else len(LOSSES), name))
    return rows.assign(task=rows[TASK].astype(pd.CategoricalDtype(present, ordered=True)))


def each(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yields the name of each task with its rows; the name is empty if there is one task alone."""
    for name, mine in rows.groupby(TASK, sort=True, observed=True):
        yield str(name) if keys(rows) else "", mine
