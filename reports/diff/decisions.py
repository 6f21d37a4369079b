"""Tables of open decisions, and of those in which a contender differs."""

from __future__ import annotations

import pandas as pd

from reports import tasks
from reports.diff.schema import AMBIGUOUS, DTYPES, TOTAL, ordered
from reports.tables import Column, Table, warn_if_any

COUNTS = {"decisions": "sum", "open_decisions": "sum", "ambiguous_decisions": "sum"}
SHARES = (
    Column("decisions", "decisions", "count"),
    Column("open", "open", "share"),
    Column("ambiguous", "ambiguous", "share", warn_if_any),
)
NOTE = (
    "Open: a margin within rounding, or a tie, so that the decision could be tipped. "
    "Ambiguous: open, and made differently than in float64, in a way that the definition allows."
)


def counted(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows that count decisions, without the totals."""
    decided = rows[(rows["decisions"] > 0) & (rows["quantity"] != TOTAL)]
    return decided.assign(dtype=ordered(decided["dtype"], DTYPES))


def by_workload(rows: pd.DataFrame) -> Table:
    """Returns decisions by workload and dtype, with the share of ambiguous batches."""
    keys = [*tasks.keys(rows), "workload", "dtype", "contender"]
    counts = counted(rows).groupby(keys, observed=True).agg({"case": "nunique", **COUNTS})
    decisive = rows[rows["decisions"].notna() & ((rows["decisions"] > 0) | (rows["quantity"] == TOTAL))]
    tipped = decisive[decisive["verdict"] == AMBIGUOUS].groupby(keys, observed=True)["case"].nunique()
    frame = _shares(counts.assign(tipped=tipped.reindex(counts.index, fill_value=0)).reset_index())
    frame["tipped"] = frame["tipped"] / frame["case"]
    columns = (
        Column("workload", "workload"),
        Column("dtype", "logits"),
        Column("contender", "contender"),
        Column("case", "cases", "count"),
    )
    return tasks.table("Decisions by workload", (*columns, *SHARES, Column("tipped", "ambiguous cases", "share", warn_if_any)), frame, NOTE)


def by_kind(rows: pd.DataFrame) -> Table:
    """Returns decisions by kind, such as a box's last place, a conflict or a border, and dtype."""
    frame = counted(rows)
    frame = frame.assign(kind=frame["stage"] + ": " + frame["quantity"])
    keys = [*tasks.keys(rows), "kind", "dtype", "contender"]
    frame = _shares(frame.groupby(keys, observed=True).agg(COUNTS).reset_index())
    columns = (Column("kind", "kind"), Column("dtype", "logits"), Column("contender", "contender"), *SHARES)
    return tasks.table("Decisions by kind", columns, frame)


def _shares(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(
        open=frame["open_decisions"] / frame["decisions"],
        ambiguous=frame["ambiguous_decisions"] / frame["decisions"],
    )
