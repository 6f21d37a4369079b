"""The report of a gate run."""

from __future__ import annotations

import pandas as pd
from matplotlib.ticker import FuncFormatter

from reports import tasks
from reports.document import Fact, Figure, Kind, Report, Section
from reports.gate.schema import FAIL, INCONCLUSIVE, PASS, SCHEMA
from reports.plots import BAD, SERIES, drawing
from reports.tables import Column, Table, Tone, made_with

TONES: dict[str, Tone] = {PASS: "good", FAIL: "bad", INCONCLUSIVE: "warn"}
HEADLINES = {
    PASS: "Nothing is slower, heavier or less exact than at the base",
    FAIL: "Worse than the base",
    INCONCLUSIVE: "Inconclusive: the reference, which did not change, was not equally fast on both sides",
}


def build(rows: pd.DataFrame) -> Report:
    """Returns the report of these rows, which have the columns of :data:`reports.gate.schema.SCHEMA`."""
    rows = tasks.ordered(rows)
    outcome = str(rows["outcome"].iloc[0])
    verdicts, measured = findings(rows[rows["kind"] == "finding"], "Verdicts"), estimates(rows)
    sections = [
        Section("Verdicts", (verdicts,)),
        Section("Passes that count for nothing", (findings(rows[rows["kind"] == "note"], "Passes that count for nothing"),)),
        Section("Measured", (measured, *([ratios(measured.frame)] if len(measured.frame) else []))),
        Section("Made with", (made_with(rows, "base", "head", "cpu", "gpu", "system", "written"),)),
    ]
    sections = [section for section in sections if not isinstance(section.blocks[0], Table) or len(section.blocks[0].frame)]
    facts = (
        Fact("rows", f"{rows['row'].nunique():,}"),
        Fact("passes taken", f"{int(rows['pass'].max()) if rows['pass'].notna().any() else 0}"),
        Fact("base", str(rows["base"].iloc[0])[:12]),
    )
    return Report("gate", "Gate", HEADLINES[outcome], TONES[outcome], facts, tuple(sections), verdicts)


def findings(rows: pd.DataFrame, title: str) -> Table:
    """Returns the table of verdicts with their reasons, the gravest first."""
    rank = rows["verdict"].map({FAIL: 0, INCONCLUSIVE: 1, PASS: 2})
    columns = (Column("verdict", "verdict", "text", lambda verdict: TONES[verdict]), Column("row", "row"), Column("text", "because"))
    return tasks.table(title, columns, rows.assign(rank=rank).sort_values("rank", kind="stable"))


def estimates(rows: pd.DataFrame) -> Table:
    """Returns the table of the ratios head / base of twin and reference, by clock and pass."""
    frame = rows[rows["kind"] == "estimate"]
    limit = float(frame["threshold"].iloc[0]) if len(frame) else 1.0
    slow: dict[bool, Tone] = {True: "warn", False: "plain"}
    return tasks.table(
        "Head / base",
        (
            Column("row", "row"),
            Column("program", "program"),
            Column("clock", "clock"),
            Column("pass", "pass", "count"),
            Column("ratio", "head / base", "factor"),
            Column("lo95", "from", "factor", lambda low: slow[low > limit]),
            Column("hi95", "to", "factor"),
            Column("pairs", "pairs of processes", "count"),
        ),
        frame,
        f"Medians of paired ratios with 95 % intervals over pairs of processes. The twin fails where its lower bound is above {limit:g} in "
        "two passes in which the reference, the same program on both sides, was steady.",
    )


def ratios(frame: pd.DataFrame) -> Figure:
    """Draws the estimates of processor time as intervals."""
    frame = frame[frame["clock"] == "cpu"]
    frame = frame.assign(label=frame["row"] + ", pass " + frame["pass"].astype(int).astype(str))
    names, limit = list(dict.fromkeys(frame["label"])), float(frame["threshold"].iloc[0])
    with drawing("gate", height=1.2 + 0.4 * len(names)) as drawn:
        axes = drawn.axes
        for at, program in enumerate(("twin", "reference")):
            mine = frame[frame["program"] == program]
            places = [names.index(name) + 0.3 * (at - 0.5) for name in mine["label"]]
            axes.hlines(places, mine["lo95"], mine["hi95"], color=SERIES[at], linewidth=3, alpha=0.5)
            axes.plot(mine["ratio"], places, "o", color=SERIES[at], markersize=5, label=program)
        axes.axvline(limit, color=BAD, linewidth=1.5)
        axes.axvline(1, color=BAD, linewidth=0.5)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlabel("head / base, processor's clock; the heavy line is the threshold")
        axes.grid(axis="x", linewidth=0.6)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
    return Figure(
        "Head / base with 95 % intervals", drawn.svg, "Ratio of head to base for twin and reference, row by row and pass by pass."
    )


KIND = Kind("gate", SCHEMA, build)
