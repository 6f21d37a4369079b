"""The report of a run on a GPU; without a GPU it lists what such a run would measure."""

from __future__ import annotations

import pandas as pd

from reports.document import Fact, Kind, Report, Section
from reports.rows import Schema
from reports.tables import Column, Table, Tone, made_with

PASSED, FAILED, MEASURED, MISSING = VERDICTS = ("passed", "failed", "measured", "not measured")
TONES: dict[str, Tone] = {PASSED: "good", FAILED: "bad", MEASURED: "plain", MISSING: "warn"}

SCHEMA = Schema(
    required={
        "check": "text",
        "what": "text",
        "verdict": "text",
        "value": "number",
        "limit": "number",
        "unit": "text",
        "workload": "text",
        "dtype": "text",
        "detail": "text",
        "gpu": "text",
        "torch": "text",
        "triton": "text",
        "commit": "text",
        "written": "text",
    },
    optional={"cuda": "text", "ultralytics": "text", "twinloss": "text", "python": "text", "cpu": "text", "system": "text"},
    choices={"verdict": VERDICTS},
    written_by="nox -s gpu",
)

MADE_WITH = ("gpu", "cuda", "triton", "torch", "ultralytics", "twinloss", "python", "cpu", "system", "commit", "written")


def build(rows: pd.DataFrame) -> Report:
    """Returns the report of these rows, which have the columns of :data:`SCHEMA`."""
    counts = rows["verdict"].value_counts()
    failed, passed, missing = (int(counts.get(verdict, 0)) for verdict in (FAILED, PASSED, MISSING))
    held = rows[rows["limit"].notna() & (rows["verdict"] != FAILED)]
    sure = rows[rows["limit"].isna() & rows["verdict"].isin([PASSED, MISSING])]
    plain = rows[(rows["verdict"] == MEASURED)]
    summary = findings(held, "Limits")
    sections = [
        Section("What failed", (findings(rows[rows["verdict"] == FAILED], "What failed"),)),
        Section("Limits", (summary,)),
        Section("What must hold", (findings(sure, "What must hold"),)),
        Section("Measured", (findings(plain, "Measured"),)),
        Section("Made with", (made_with(rows, *(name for name in MADE_WITH if rows[name].fillna("").ne("").any())),)),
    ]
    sections = [section for section in sections if isinstance(section.blocks[0], Table) and len(section.blocks[0].frame)]
    facts = (
        Fact("passed", str(passed), "good" if passed else "plain"),
        Fact("failed", str(failed), "bad" if failed else "plain"),
        Fact("not measured", str(missing), "warn" if missing else "plain"),
        Fact("GPU", ", ".join(sorted(rows["gpu"].unique()))),
    )
    tone: Tone = "bad" if failed else "warn" if missing else "good"
    return Report("gpu", "The Triton kernels on a GPU", headline(rows, failed, missing), tone, facts, tuple(sections), summary)


def headline(rows: pd.DataFrame, failed: int, missing: int) -> str:
    """Returns the outcome as one sentence."""
    if missing == len(rows):
        return "Not measured on a GPU: there was none. The limits that would apply are listed below"
    if failed:
        return f"{failed} of {len(rows) - missing} findings failed"
    return "Every check passed" + (f"; {missing} findings were not measured" if missing else "")


def findings(rows: pd.DataFrame, title: str) -> Table:
    """Returns the table of findings with value, limit and details, in the order of the run."""
    columns = (
        Column("check", "check"),
        Column("what", "what"),
        Column("workload", "workload"),
        Column("dtype", "logits"),
        Column("value", "found", "ratio"),
        Column("limit", "limit", "ratio"),
        Column("unit", "unit"),
        Column("verdict", "verdict", "text", lambda verdict: TONES[verdict]),
        Column("detail", "in words"),
    )
    return Table(title, columns, rows)


KIND = Kind("gpu", SCHEMA, build)
