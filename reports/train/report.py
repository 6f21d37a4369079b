"""The report of training runs."""

from __future__ import annotations

import pandas as pd

from reports.document import Fact, Kind, Report, Section
from reports.tables import Column, Table
from reports.tasks import DETECT, LOSSES
from reports.train import plots
from reports.train.schema import CURVES, SCHEMA, SECONDS, curve, runs, scores


def build(rows: pd.DataFrame) -> Report:
    """Returns the report of these rows, which have the columns of :data:`reports.train.schema.SCHEMA`."""
    judged = rows[rows["role"] == "check"]
    failed = int((judged["passed"] == 0).sum())
    headline = (
        f"{failed} of {len(judged)} checks failed: the training changes"
        if failed
        else "Nothing changes: the twin trains as the reference does"
    )
    table = checks(judged)
    sections = (
        Section("Verdict", (table, HOW)),
        Section("Trainings", (trainings(rows), plots.scores(rows))),
        Section("Step by step", tuple(plots.curves(rows)), brief=False),
        Section("Side by side on the same predictions", tuple(plots.beside(rows)), brief=False),
        Section("Environment", (environment(rows),)),
    )
    task = str(rows["task"].iloc[0])
    title = "Parity of training" + ("" if task == DETECT else f": {LOSSES.get(task, task)}")
    return Report("train", title, headline, "bad" if failed else "good", facts(rows, failed), sections, table)


HOW = (
    "Everything allowed was measured on the reference before the twin trained: how far its own curves move when every logit is off by one "
    "unit in the last place at every step, and how its scores spread over seeds. A training amplifies rounding until single steps differ "
    "by percents; the comparison on the same predictions, where nothing can grow, is the sharp one."
)


def facts(rows: pd.DataFrame, failed: int) -> tuple[Fact, ...]:
    """Returns the figures at the top."""
    whole = rows[rows["role"].isin(["reference", "tied", "twin"])]
    seconds = rows[rows["quantity"] == SECONDS].groupby("run")["value"].max().sum()
    beside = rows[rows["quantity"].str.endswith("/twin/anchors")]
    return (
        Fact("checks failed", str(failed), "bad" if failed else "good"),
        Fact("whole trainings compared", str(whole["run"].nunique())),
        Fact("steps side by side", f"{len(beside):,}"),
        Fact("of these with another assignment", f"{int((beside['value'] > 0).sum()):,}"),
        Fact("trained on", str(rows["source"].iloc[0]).split(":")[0]),
        Fact("processor time", f"{seconds / 60:.0f} min"),
    )


def checks(judged: pd.DataFrame) -> Table:
    """Returns the table of checks."""
    frame = judged.assign(verdict=judged["passed"].map({1: "holds", 0: "FAILS"}))
    columns = (
        Column("quantity", "what is to hold"),
        Column("value", "found", "ratio"),
        Column("limit", "allowed", "ratio"),
        Column("verdict", "verdict", "text", lambda verdict: "bad" if verdict == "FAILS" else "good"),
        Column("detail", "how to read it"),
    )
    return Table("Checks", columns, frame)


def trainings(rows: pd.DataFrame) -> Table:
    """Returns the table of runs with their last losses and scores."""
    frame = pd.DataFrame([_training(rows, run, role) for role in ("reference", "tied", "twin", "nudged") for run in runs(rows, role)])
    columns = (
        Column("run", "run"),
        Column("steps", "steps", "count"),
        *(Column(name, f"last {name}", "ratio") for name in CURVES),
        *(Column(name, name, "factor") for name in scores(rows)),
        Column(SECONDS, SECONDS, "ratio"),
    )
    return Table("Trainings", columns, frame, "Runs named nudged are the reference with every logit off by one unit in the last place.")


def _training(rows: pd.DataFrame, run: str, role: str) -> dict[str, object]:
    mine = rows[(rows["run"] == run) & (rows["role"] == role)]
    last = {name: mine[mine["quantity"] == name].sort_values("epoch")["value"].iloc[-1:].tolist() for name in (*scores(rows), SECONDS)}
    found = {name: curve(mine, run, name)["value"] for name in CURVES}
    return {
        "run": run,
        "steps": len(found[CURVES[0]]),
        **{name: values.iloc[-1] for name, values in found.items()},
        **{name: values[0] if values else float("nan") for name, values in last.items()},
    }


def environment(rows: pd.DataFrame) -> Table:
    """Returns the table of versions, recipe and data."""
    names = ("recipe", "source", "torch", "ultralytics", "twinloss", "python")
    frame = pd.DataFrame({"what": names, "value": [str(rows[name].iloc[0]) for name in names]})
    return Table("Environment", (Column("what", "what"), Column("value", "value")), frame)


KIND = Kind("train", SCHEMA, build)
