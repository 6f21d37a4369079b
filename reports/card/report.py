"""One contender's card from its rows of a differential run."""

from __future__ import annotations

import pandas as pd

from reports.diff import tables
from reports.diff.report import differences, not_checked, not_compared
from reports.diff.schema import AGREE, AMBIGUOUS, DIFFER, NOT_COMPARED, drawn
from reports.document import Fact, Report, Section
from reports.tables import Column, Table, bad_if_any
from reports.tasks import DETECT, LOSSES

CONDUCT, WARNINGS = "conduct", "warnings"
KINDS_SHOWN = 12


def build(rows: pd.DataFrame, explanation: str = "") -> Report:
    """Returns the card of the contender of these rows; the sentence that explains its differences, if there is one, comes first."""
    shown, rows = rows, drawn(rows)
    version = rows["version"].iloc[0]
    by_stage = tables.stages(rows)
    sections = [
        Section("Stages", (by_stage,)),
        Section("Conduct", (conduct(rows),) if (rows["stage"] == CONDUCT).any() else ("How it behaves was not observed.",)),
        *([Section("Warnings", (warnings(rows),))] if len(warned(rows)) else []),
        Section("Precision", (tables.precision(rows), *tables.kinks(rows))),
        Section("Not checked", (*not_checked(rows), *not_compared(rows[rows["stage"] != CONDUCT])) or ("Nothing was left out.",)),
        Section("Made with", (tables.environment(rows),)),
    ]
    if failed(rows):
        sections.insert(0, Section("Which batches differ", (kinds(rows),)))
        sections.insert(1, Section("Differences", (differences(shown),), brief=False))
    title = f"Conformance card: {named(rows)}" + (f" ({version})" if pd.notna(version) else "")
    return Report(
        "diff",
        title,
        headline(rows, explanation),
        "bad" if failed(rows) or not _compared(rows) else "good",
        facts(rows),
        tuple(sections),
        by_stage,
    )


def named(rows: pd.DataFrame) -> str:
    """Returns the contender's name, with the task where it is not detection."""
    name, task = str(rows["contender"].iloc[0]), str(rows["task"].iloc[0])
    return name if task == DETECT else f"{name}, {LOSSES.get(task, task)}"


def failed(rows: pd.DataFrame) -> list[str]:
    """Returns the failure modes that were found, and the stages that differ, in the order of the definition."""
    wrong = rows[rows["verdict"] == DIFFER]
    stages = [stage for stage in tables.stages(wrong).frame["stage"].astype(str) if stage != CONDUCT] if len(wrong) else []
    return [*wrong.loc[wrong["stage"] == CONDUCT, "quantity"].astype(str).drop_duplicates(), *stages]


def headline(rows: pd.DataFrame, explanation: str = "") -> str:
    """Returns the result in one sentence, after the one that explains it."""
    compared, asked = _compared(rows), rows["case"].nunique()
    wrong = rows.loc[rows["verdict"] == DIFFER, "case"].nunique()
    few = f"; it was compared on {tables.part(compared, asked)}" if compared < tables.SMALL * asked else ""
    if wrong:
        first = f"{explanation[:1].upper()}{explanation[1:]}. " if explanation else ""
        return f"{first}Differs in {wrong:,} of {compared:,} batches: {', '.join(failed(rows))}{few}"
    return f"Conforms: {compared:,} batches, no difference{few}" if compared else f"Nothing was compared: {asked:,} batches were declined"


def _compared(rows: pd.DataFrame) -> int:
    """Returns the number of batches with a comparison."""
    return int(rows.loc[rows["verdict"] != NOT_COMPARED, "case"].nunique())


def facts(rows: pd.DataFrame) -> tuple[Fact, ...]:
    """Batches, verdicts and the worst ratio."""
    compared = tables.comparisons(rows)
    counts = compared["verdict"].value_counts()
    worst = tables.ratios(rows).max()
    return (
        Fact("batches in a setting", f"{len(compared):,}"),
        *(Fact(verdict.lower(), f"{counts.get(verdict, 0):,}") for verdict in (AGREE, AMBIGUOUS, DIFFER)),
        Fact("worst error ÷ allowance", tables.RATIO.text(worst), tables.RATIO.judged(worst)),
        *([Fact("ran in", way(rows))] if "isolated" in rows else []),
    )


def way(rows: pd.DataFrame) -> str:
    """Returns in which process the contender's code ran."""
    return "a process of its own" if (rows["isolated"] > 0).all() else "the judge's process"


def observed(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of failure modes that were checked."""
    return rows[(rows["stage"] == CONDUCT) & (rows["verdict"] != NOT_COMPARED) & (rows["quantity"] != WARNINGS)]


def warned(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows with the warnings of a contender's code."""
    return rows[(rows["stage"] == CONDUCT) & (rows["quantity"] == WARNINGS)]


def warnings(rows: pd.DataFrame) -> Table:
    """Returns each warning of the contender's code or its libraries, with the number of comparisons."""
    texts = warned(rows)["reason"].astype("string").fillna("").str.split("\n").explode()
    counted = texts.str.replace(r", \d+ times$", "", regex=True).value_counts().rename_axis("warning").reset_index(name="comparisons")
    columns = (Column("warning", "warning"), Column("comparisons", "comparisons", "count"))
    return Table("Warnings", columns, counted.head(KINDS_SHOWN), "A warning is no fault, and changes no verdict.")


def conduct(rows: pd.DataFrame) -> Table:
    """Returns each failure mode with the number of batches on which it was checked, and found."""
    frame = observed(rows)
    seen = (frame["verdict"] == DIFFER).groupby(frame["quantity"], sort=False).agg(["size", "sum"]).reset_index()
    columns = (
        Column("quantity", "failure mode"),
        Column("size", "looked for", "count"),
        Column("sum", "seen", "count", bad_if_any),
    )
    return Table("Conduct", columns, seen)


def kinds(rows: pd.DataFrame) -> Table:
    """Returns the kinds of batch, by tag, dtype and workload, that differ more often than the rest."""
    batches = rows[rows["verdict"] != NOT_COMPARED].groupby(["case", "dtype", "workload"], observed=True)
    frame = batches.agg(tags=("tags", "first"), differs=("verdict", lambda found: (found == DIFFER).any())).reset_index()
    named = frame["tags"].fillna("") + " logits:" + frame["dtype"] + " boxes:" + frame["workload"]
    long = frame[["differs"]].assign(kind=named.str.split()).explode("kind")
    inside = long.groupby("kind")["differs"].agg(["size", "sum"])
    total, wrong = len(frame), int(frame["differs"].sum())
    inside["with"] = inside["sum"] / inside["size"]
    inside["without"] = (wrong - inside["sum"]) / (total - inside["size"]).where(inside["size"] < total)
    inside["gap"] = (inside["with"] - inside["without"].fillna(0)) * inside["size"] ** 0.5
    shown = inside[inside["sum"] > 0].nlargest(KINDS_SHOWN, "gap").reset_index()
    columns = (
        Column("kind", "kind of batch"),
        Column("size", "cases", "count"),
        Column("sum", "differ", "count", bad_if_any),
        Column("with", "share that differs", "share"),
        Column("without", "of all others", "share"),
    )
    return Table("Kinds of batch that differ", columns, shown, "First those that set the differing batches apart most clearly.")


def badge(rows: pd.DataFrame) -> dict[str, object]:
    """Returns the JSON of shields.io's endpoint badge."""
    rows = drawn(rows)
    batches = _compared(rows)
    wrong = rows.loc[rows["verdict"] == DIFFER, "case"].nunique()
    message = f"{wrong:,} of {batches:,} batches differ" if wrong else f"{batches:,} batches agree" if batches else "nothing compared"
    return {
        "schemaVersion": 1,
        "label": LOSSES.get(task := str(rows["task"].iloc[0]), task),
        "message": message,
        "color": "red" if wrong else "brightgreen" if batches else "lightgrey",
        "isError": bool(wrong) or not batches,
    }
