"""The rows of training runs: a value of a quantity at a step or after an epoch, the tolerance of a curve at a step, or a check."""

from __future__ import annotations

import pandas as pd

from reports.rows import Schema

ROLES = ("reference", "repeat", "nudged", "twin", "shadow", "tolerance", "check")
CURVES, SCORES, SECONDS = ("loss", "gradient norm"), ("mAP50", "mAP50-95"), "processor seconds"

SCHEMA = Schema(
    required={
        "run": "text",
        "role": "text",  # what the run is for; or that the row is a tolerance or a check
        "quantity": "text",  # of a check: what was to hold
        "value": "number",
        "seed": "number",
        "step": "number",
        "epoch": "number",
        "torch": "text",
        "ultralytics": "text",
        "twinloss": "text",
        "python": "text",
        "source": "text",  # what was trained on
        "recipe": "text",  # model, epochs, size
    },
    optional={
        "limit": "number",  # of a check: what the reference alone allows
        "passed": "count",
        "detail": "text",
    },
    choices={"role": ROLES},
    written_by="nox -s train",
)


def curve(rows: pd.DataFrame, run: str, quantity: str) -> pd.DataFrame:
    """A run's values at every step, in order."""
    chosen = rows[(rows["run"] == run) & (rows["quantity"] == quantity) & rows["step"].notna()]
    return chosen.sort_values("step")[["step", "value"]]


def runs(rows: pd.DataFrame, role: str) -> list[str]:
    """The runs of a role, the first that was planned first."""
    return list(rows[rows["role"] == role]["run"].unique())
