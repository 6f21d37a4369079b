"""The rows of training runs: a value of a quantity at a step or after an epoch, the tolerance of a curve at a step, or a check."""

from __future__ import annotations

import pandas as pd

from reports import tasks
from reports.rows import Schema

ROLES = ("reference", "repeat", "nudged", "tied", "twin", "shadow", "tolerance", "check")
CURVES, SECONDS = ("loss", "gradient norm"), "processor seconds"

SCHEMA = Schema(
    required={
        "run": "text",
        "role": "text",  # role of the run; or "tolerance" or "check" for such rows
        "quantity": "text",  # of a check: its condition
        "value": "number",
        "seed": "number",
        "step": "number",
        "epoch": "number",
        "torch": "text",
        "ultralytics": "text",
        "twinloss": "text",
        "python": "text",
        "source": "text",  # training data
        "recipe": "text",  # model, epochs, size
    },
    optional={
        "limit": "number",  # of a check: tolerance measured on the reference
        "passed": "count",
        "detail": "text",
        **tasks.COLUMN,
    },
    choices={"role": ROLES},
    defaults=tasks.DEFAULT,
    written_by="nox -s train",
)


def curve(rows: pd.DataFrame, run: str, quantity: str) -> pd.DataFrame:
    """Returns a run's values at every step, in order."""
    chosen = rows[(rows["run"] == run) & (rows["quantity"] == quantity) & rows["step"].notna()]
    return chosen.sort_values("step")[["step", "value"]]


def scores(rows: pd.DataFrame) -> list[str]:
    """Returns the scores of the trainings, such as mAP50, in the order in which they were recorded."""
    return [name for name in dict.fromkeys(rows["quantity"]) if "mAP50" in name and not name.startswith("final")]


def runs(rows: pd.DataFrame, role: str) -> list[str]:
    """Returns the runs of a role, in the order of the plan."""
    return list(rows[rows["role"] == role]["run"].unique())
