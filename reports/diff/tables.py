"""The tables of a differential run."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from reports import tasks
from reports.diff.schema import AGREE, AMBIGUOUS, DIFFER, DTYPES, NOT_COMPARED, STAGES, VERDICTS, ordered
from reports.tables import Column, Table, against, bad_if_any, warn_if_any

SETTING = ["task", "workload", "case", "dtype", "device"]
SMALL = 0.5  # share of the batches compared, below which a headline says it
SHARE = Column("share", "share", "share")
RATIO = Column("ratio", "worst error ÷ allowance", "ratio", against(1.0))


def ratios(rows: pd.DataFrame) -> pd.Series:
    """Returns error ÷ allowance for AGREE and DIFFER; in AMBIGUOUS rows the contender computed another assignment."""
    return rows["error_over_allowance"].where(rows["verdict"].isin([AGREE, DIFFER]))


def comparisons(rows: pd.DataFrame, *by: str) -> pd.DataFrame:
    """Returns one row per batch, setting, contender and ``by``: the gravest verdict and the largest ratio of the quantities."""
    keys = ["contender", *by, *[name for name in SETTING if name not in by]]
    frame = rows.assign(gravity=rows["verdict"].map(VERDICTS.index), ratio=ratios(rows))
    frame = frame.groupby(keys, observed=True, sort=False).agg(gravity=("gravity", "max"), ratio=("ratio", "max")).reset_index()
    return frame.assign(verdict=frame["gravity"].map(dict(enumerate(VERDICTS))))


def tally(compared: pd.DataFrame, *by: str) -> pd.DataFrame:
    """Returns batches, verdicts and the worst ratio per group of comparisons."""
    flags = compared.assign(**{name: compared["verdict"] == name for name in VERDICTS})
    counts = flags.groupby(list(by), observed=True).agg({"case": "nunique", **dict.fromkeys(VERDICTS, "sum"), "ratio": "max"})
    return counts.reset_index()


def verdicts(frame: pd.DataFrame) -> tuple[Column, ...]:
    """Returns the columns of a tally; NOT COMPARED has one only if it occurs."""
    left_out = (Column(NOT_COMPARED, "not compared", "count", warn_if_any),) if frame[NOT_COMPARED].any() else ()
    return (
        Column("case", "cases", "count"),
        Column(AGREE, "agree", "count"),
        Column(AMBIGUOUS, "ambiguous", "count", warn_if_any),
        Column(DIFFER, "differ", "count", bad_if_any),
        *left_out,
        RATIO,
    )


def contenders(rows: pd.DataFrame) -> Table:
    """Returns one line per contender: a summary of the conformance cards."""
    keys = [*tasks.keys(rows), "contender"]
    frame = tally(comparisons(rows), *keys)
    wrong = rows[rows["verdict"] == DIFFER]
    where = wrong.assign(where=wrong["stage"].where(wrong["stage"] != "conduct", "conduct: " + wrong["quantity"]))
    said = where.groupby(keys, observed=True)["where"].agg(lambda found: ", ".join(found.astype(str).unique())).reset_index()
    frame = frame.merge(said, on=keys, how="left")
    frame = frame.assign(where=frame["where"].astype(object).fillna("nowhere: it conforms"))
    return tasks.table(
        "Conformance of each contender",
        (Column("contender", "contender"), *verdicts(frame), Column("where", "differs in")),
        frame,
        "Here a case has one verdict over all of its stages. The whole cards stand beside this page, as card-NAME.html.",
    )


def stages(rows: pd.DataFrame) -> Table:
    """Stage by contender: the table that ends a run."""
    frame = rows.assign(stage=ordered(rows["stage"], STAGES))
    frame = tally(comparisons(frame, "stage"), *tasks.keys(rows), "stage", "contender")
    return tasks.table(
        "Verdicts by stage",
        (Column("stage", "stage"), Column("contender", "contender"), *verdicts(frame)),
        frame,
        "A case has a verdict for each dtype and device that it ran in. The allowance is twice the reference's own distance from float64 "
        "and the rounding of the value itself: at 1 a contender is as far off as it may be.",
    )


def precision(rows: pd.DataFrame) -> Table:
    """Dtype by contender: how good the arithmetic is."""
    frame = tally(comparisons(rows.assign(dtype=ordered(rows["dtype"], DTYPES))), *tasks.keys(rows), "dtype", "device", "contender")
    return tasks.table(
        "Verdicts by dtype",
        (Column("dtype", "logits"), Column("device", "device"), Column("contender", "contender"), *verdicts(frame)),
        frame,
        "Here a case has one verdict over all of its stages.",
    )


def kinks(rows: pd.DataFrame) -> Iterator[Table]:
    """Yields a table of the numbers at kinks, and of the contenders' positions in their intervals; none if there are no kinks."""
    found = rows[rows["kinks"] > 0]
    if found.empty:
        return
    keys = [*tasks.keys(found), "dtype", "device", "contender"]
    groups = found.assign(dtype=ordered(found["dtype"], DTYPES)).groupby(keys, observed=True)
    frame = groups.agg(case=("case", "nunique"), kinks=("kinks", "sum"), kink_reach=("kink_reach", "max")).reset_index()
    columns = (
        Column("dtype", "logits"),
        Column("device", "device"),
        Column("contender", "contender"),
        Column("case", "cases", "count"),
        Column("kinks", "numbers at kinks", "count"),
        Column("kink_reach", "farthest into one", "share"),
    )
    yield tasks.table(
        "Gradients at kinks",
        columns,
        frame,
        "Where a predicted side coincides with the truth's within rounding, the gradient may be any number between its one-sided values. "
        "Within is right, wherever: 0 % is where float64 stands, 100 % an end. Error ÷ allowance counts from the nearer end, so that it is "
        "of rounding alone.",
    )


def asked(rows: pd.DataFrame) -> Iterator[tuple[str, int, int]]:
    """Yields each contender with its numbers of compared batches and of all batches."""
    for name, mine in rows.groupby("contender", observed=True):
        yield str(name), int(mine.loc[mine["verdict"] != NOT_COMPARED, "case"].nunique()), int(mine["case"].nunique())


def part(compared: int, asked: int) -> str:
    """Returns a clause on the number of compared batches among all."""
    return f"{compared:,} of {asked:,} batches alone, {SHARE.text(compared / asked)}"


def reasons(left_out: pd.DataFrame, title: str = "Not compared") -> Table:
    """Returns the table of missing comparisons and their reasons."""
    frame = left_out.assign(stage=ordered(left_out["stage"], STAGES)).sort_values("stage", kind="stable")
    keys = [*tasks.keys(left_out), "contender", "reason"]
    frame = frame.groupby(keys, observed=True).agg(case=("case", "nunique"), stages=("stage", lambda found: ", ".join(found.unique())))
    columns = (Column("contender", "contender"), Column("reason", "reason"), Column("case", "cases", "count"), Column("stages", "stages"))
    return tasks.table(title, columns, frame.reset_index())


def sources(rows: pd.DataFrame) -> Table:
    """Returns the origins of the boxes of each workload."""
    keys = [*tasks.keys(rows), "workload", "source"]
    frame = rows.groupby(keys, observed=True).agg(batches=("case", "nunique"), rows=("case", "size")).reset_index()
    return tasks.table(
        "Where the boxes came from",
        (
            Column("workload", "workload"),
            Column("source", "source"),
            Column("batches", "cases", "count"),
            Column("rows", "values compared", "count"),
        ),
        frame,
    )


def closest(rows: pd.DataFrame, count: int = 10) -> Table:
    """Returns the agreeing values with the largest ratios."""
    frame = rows[rows["verdict"] == AGREE].nlargest(count, "error_over_allowance")
    return tasks.table(
        "Closest to the allowance",
        (
            Column("error_over_allowance", "error ÷ allowance", "ratio", against(1.0)),
            Column("contender", "contender"),
            Column("stage", "stage"),
            Column("quantity", "quantity"),
            Column("dtype", "logits"),
            Column("workload", "workload"),
            Column("error", "error", "number"),
        ),
        frame,
        "A ratio that creeps up is seen here before it fails.",
    )


def environment(rows: pd.DataFrame) -> Table:
    """Returns versions and settings of the rows; several values if files of several runs were joined."""
    names = ["twinloss", "ultralytics", "torch", "python", "device", "profile", "seed"]
    said = [(name, rows[name]) for name in names]
    said += [(f"contender {name}", found) for name, found in rows.groupby("contender")["version"]]
    values = [(name, ", ".join(sorted(found.dropna().unique()))) for name, found in said]
    frame = pd.DataFrame([(name, value) for name, value in values if value], columns=["name", "value"])
    return Table("Made with", (Column("name", "what"), Column("value", "value", "code")), frame)
