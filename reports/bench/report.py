"""The report of a bench run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from reports import tasks
from reports.bench import costs, plots, tables
from reports.bench.schema import PHASES, REFERENCE, SCHEMA, SINGLE, labelled, others, steps
from reports.diff import schema as diff
from reports.diff.plots import distances
from reports.document import Block, Fact, Figure, Kind, Report, Section
from reports.rows import RowsError, read
from reports.tables import Table, Tone

DIFF_ROWS = Path(__file__).parents[1] / "out" / "diff" / "rows.parquet"
MAIN = "coco"


def build(rows: pd.DataFrame, diff_rows: Path = DIFF_ROWS) -> Report:
    """Returns the report of these rows, which have the columns of :data:`reports.bench.schema.SCHEMA`.

    Args:
        rows: rows of a bench run.
        diff_rows: rows of a differential run, for a drawing of the distance from float64; the file may be missing.
    """
    rows = labelled(tasks.ordered(rows))
    by_workload, worse = tables.workloads(rows), tables.where_slower(rows)
    slower_steps = worse.frame[worse.frame["phase"] == "step"]
    tone: Tone = "warn" if len(slower_steps) else "good"
    sections = [
        Section("Steps", tuple(_filled(by_workload))),
        Section("Steps on the default heap", tuple(_filled(tables.workloads(rows, "default")))),
        Section("Steps by dtype", tuple(_filled(tables.dtypes(rows)))),
        Section("Where it is slower", tuple(_filled(worse)) or ("Nowhere: no phase of any workload took longer than the reference's.",)),
        Section("Ratios", (plots.ratios(rows), *([plots.by_dtype(rows)] if len(tables.dtypes(rows).frame) else [])), brief=False),
        Section("Memory", (tables.memory(rows), plots.memory(rows))),
        Section("A training step", tuple(_filled(costs.training(rows))), brief=True),
        Section("Stages and floors", tuple(_filled(costs.stages(rows), costs.floors(rows), costs.warm_up(rows))), brief=False),
        Section("Scaling", (*_filled(costs.growth(rows)), *plots.scaling(rows))),
        Section("Distance from float64", tuple(_distance(diff_rows)), brief=False),
        Section("Not measured", (*not_measured(rows), *_filled(tables.failures(rows)))),
        Section("Workloads", (tables.described(rows),), brief=False),
        Section("Environment", (tables.environment(rows),)),
    ]
    return Report(
        "bench", "Bench run", headline(rows, len(slower_steps)), tone, facts(rows), tuple(s for s in sections if s.blocks), by_workload
    )


def _filled(*shown: Table) -> Iterator[Block]:
    return (table for table in shown if len(table.frame))


def headline(rows: pd.DataFrame, slower: int) -> str:
    """Returns the outcome as one sentence."""
    compared = others(steps(rows)).dropna(subset=["ratio_to_reference"])
    if compared.empty:
        return "No contender was compared with the reference"
    main = compared[compared["workload"] == MAIN] if (compared["workload"] == MAIN).any() else compared
    first = main.iloc[0]
    spread = f"{first['ratio_to_reference']:.3g} [{first['ratio_lo95']:.3g}, {first['ratio_hi95']:.3g}] times the reference's speed"
    where = f"slower in {slower} of {_count(rows)} steps" if slower else f"slower in none of {_count(rows)} steps"
    return f"{first['label']} runs {first['workload']} at {spread}; {where}"


def _count(rows: pd.DataFrame) -> int:
    timed = others(rows[rows["measured"] & (rows["phase"] == "step")])
    return int(timed["ratio_to_reference"].notna().sum())


def facts(rows: pd.DataFrame) -> tuple[Fact, ...]:
    """Returns the figures at the top."""
    compared = others(steps(rows)).dropna(subset=["ratio_to_reference"]).sort_values("ratio_to_reference")
    shown = []
    if len(compared):
        for row, word in ((compared.iloc[0], "least"), (compared.iloc[-1], "most")):
            tone: Tone = "warn" if row["ratio_to_reference"] < 1 else "plain"
            shown.append(Fact(f"times faster at {word}: {row['label']}, {row['workload']}", f"{row['ratio_to_reference']:.3g}", tone))
    step = rows[(rows["phase"] == "training step") & (rows["label"] == REFERENCE)]
    if len(step):
        shown.append(Fact("of a training step is the reference's loss", f"{100 * step['share'].iloc[0]:.1f} %"))
    calls = rows.loc[rows["phase"] == "step", "rounds"].sum()
    return (*shown, Fact("calls measured", f"{int(calls):,}"))


def _distance(diff_rows: Path) -> Iterator[str | Figure]:
    """Yields the drawing of the contenders' distance from float64 in the last differential run, or a text where there was none."""
    try:
        compared = read(diff_rows, diff.SCHEMA)
    except RowsError:
        yield "There are no rows of a differential run; `nox -s diff` writes them."
        return
    yield from distances(compared)


def not_measured(rows: pd.DataFrame) -> Iterator[str]:
    """Yields one sentence for each part of a whole run that this run did not measure."""
    timed = rows[rows["measured"] & rows["phase"].isin(PHASES)]
    if not timed["device"].str.startswith("cuda").any():
        yield "CUDA was not measured: the run had no CUDA device."
    if not (timed["heap"] == "default").any():
        yield "The C library's default heap was not measured."
    if (timed["dtype"] == SINGLE).all():
        yield "Half precision was not measured."
    if rows["origin"].dropna().str.startswith("generated").all():
        yield "No real boxes were measured: no label files were found, and every batch was generated."


KIND = Kind("bench", SCHEMA, build)
