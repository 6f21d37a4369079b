"""The report of a differential run."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import pandas as pd

from reports import tasks
from reports.diff import decisions, plots, tables
from reports.diff.schema import AMBIGUOUS, DIFFER, DTYPES, NOT_ASKED, NOT_COMPARED, SCHEMA, drawn, generated
from reports.document import Entry, Fact, Kind, Listing, Report, Section
from reports.tables import Table

SHOWN = 20


def build(rows: pd.DataFrame) -> Report:
    """Returns the report of rows with the columns of :data:`reports.diff.schema.SCHEMA`."""
    shown, rows = rows, tasks.ordered(drawn(rows))
    compared = tables.comparisons(rows, "stage")
    differ, total = int((compared["verdict"] == DIFFER).sum()), int((compared["verdict"] != NOT_COMPARED).sum())
    batches = rows["case"].nunique()
    by_stage = tables.stages(rows)
    headline = f"{differ:,} of {total:,} comparisons differ" if differ else f"Nothing differs: {total:,} comparisons, {batches:,} batches"
    empty, few = uncompared(rows)
    headline = "; ".join([*(f"Nothing was compared of {name}" for name in empty), *([headline] if total else []), *few])
    sections = [
        Section("Conformance", (tables.contenders(rows),), brief=False),
        Section("Verdicts", (by_stage, tables.precision(rows))),
        Section(
            "Not checked", (*not_checked(rows), *not_compared(rows)) or ("Every dtype, on CPU and CUDA, over real and generated boxes.",)
        ),
        Section("Distance from float64", (*plots.distances(rows), tables.closest(rows)), brief=False),
        Section("Open decisions", (decisions.by_workload(rows), plots.open_shares(rows))),
        Section("Open decisions by kind", (decisions.by_kind(rows),), brief=False),
        *(Section("Kinks", (table,)) for table in tables.kinks(rows)),
        Section("Boxes", (tables.sources(rows),)),
        Section("Environment", (tables.environment(rows),)),
    ]
    if differ:
        sections.insert(0, Section("Differences", (differences(shown),)))
    return Report(
        "diff", "Differential run", headline, "bad" if differ or empty else "good", facts(rows, compared), tuple(sections), by_stage
    )


def uncompared(rows: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Returns the contenders that declined every batch, and a clause about each that declined most batches."""
    empty, few = [], []
    for name, compared, asked in tables.asked(rows):
        if not compared:
            empty.append(name)
        elif compared < tables.SMALL * asked:
            few.append(f"{name} was compared on {tables.part(compared, asked)}")
    return empty, few


def facts(rows: pd.DataFrame, compared: pd.DataFrame) -> tuple[Fact, ...]:
    """Returns the facts at the top: batches by origin, the worst ratio, the share of ambiguous decisions."""
    batches = rows.drop_duplicates(["workload", "case"])
    made_up = int(generated(batches["source"]).sum())
    decided = decisions.counted(rows)
    worst = tables.ratios(rows).max()
    ambiguous = int((compared["verdict"] == AMBIGUOUS).sum())
    return (
        Fact("real batches", f"{len(batches) - made_up:,}", "plain" if made_up < len(batches) else "warn"),
        Fact("generated batches", f"{made_up:,}"),
        Fact("comparisons", f"{(compared['verdict'] != NOT_COMPARED).sum():,}"),
        Fact("ambiguous", f"{ambiguous:,}", "warn" if ambiguous else "plain"),
        Fact("decisions tipped", f"{int(decided['ambiguous_decisions'].sum()):,} of {int(decided['decisions'].sum()):,}"),
        Fact("worst error ÷ allowance", tables.RATIO.text(worst), tables.RATIO.judged(worst)),
    )


def differences(rows: pd.DataFrame) -> Listing:
    """Returns the differences, largest ratio first, with their replay commands; those of saved batches only, if any was saved."""
    wrong = rows[rows["verdict"] == DIFFER].sort_values("error_over_allowance", ascending=False, na_position="first", kind="stable")
    wrong = wrong.drop_duplicates(["contender", "stage", "case"])
    saved = wrong[wrong["replay"].fillna("") != ""]
    entries = tuple(_entry(row) for row in (saved if len(saved) else wrong).head(SHOWN).to_dict("records"))
    return Listing(entries, max(len(drawn(wrong)) - len(entries), 0))


def _entry(row: Mapping[Hashable, Any]) -> Entry:
    text = {name: "" if pd.isna(value) else str(value) for name, value in row.items()}
    where = f"{text['dtype']} on {text['device']}", f"{text['workload']} {text['case']}" if text["replay"] else text["workload"]
    task = () if text["task"] == tasks.DETECT else (text["task"],)
    heading = " · ".join((*task, text["contender"], text["stage"], text["quantity"], *where))
    numbers = f"error {row['error']:.3e}, {tables.RATIO.text(row['error_over_allowance'])} × the allowance of {row['allowance']:.3e}"
    return Entry(heading, text["detail"] or numbers, text["replay"])


def not_checked(rows: pd.DataFrame) -> Iterator[str]:
    """Yields a sentence for each device, dtype and origin that a complete run compares and this one did not."""
    if not rows["device"].str.startswith("cuda").any():
        yield "CUDA was not checked: the run had no CUDA device."
    if not rows["device"].str.startswith("cpu").any():
        yield "The CPU was not checked: the run was on CUDA alone."
    plain = set(rows["dtype"].unique())
    if missing := [name for name in DTYPES if name not in plain]:
        yield f"Logits in {', '.join(missing)} were not checked."
    if not rows["dtype"].str.contains("autocast", regex=False).any():
        yield "Autocast was not checked."
    made_up = generated(rows["source"])
    if made_up.all():
        yield "No real boxes were checked: no label files were found, and every batch was generated. Give some with `--labels PATH`."
    if not made_up.any():
        yield "No generated batch was checked: every batch came from label files."


def not_compared(rows: pd.DataFrame) -> Iterator[Table]:
    """Yields tables of the reasons for missing comparisons: assumptions of the candidates, and others."""
    left_out = rows[rows["verdict"] == NOT_COMPARED].fillna({"reason": "no reason was recorded"})
    assumed = left_out["reason"].str.startswith(NOT_ASKED)
    for title, part in (("Not asked", left_out[assumed]), ("Not compared", left_out[~assumed])):
        if len(part):
            yield tables.reasons(part, title)


KIND = Kind("diff", SCHEMA, build)
