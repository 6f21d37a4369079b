"""Tables of stages, lower bounds, growth and first calls."""

from __future__ import annotations

import pandas as pd

from reports import tasks
from reports.bench.schema import REFERENCE, steps
from reports.bench.tables import CONTENDER, WORKLOAD
from reports.tables import Column, Table


def stages(rows: pd.DataFrame) -> Table:
    """Returns the table of each stage's share of a step."""
    frame = rows[rows["measured"] & rows["phase"].str.startswith("stage: ")]
    frame = frame.assign(stage=frame["phase"].str.removeprefix("stage: "))
    return tasks.table(
        "Where a step's time goes",
        (WORKLOAD, CONTENDER, Column("stage", "stage"), Column("ms_median", "ms", "ms"), Column("share", "share", "share")),
        frame,
        "One process. Decoding is part of the assignment and of the terms where a contender decodes only what they need.",
    )


def training(rows: pd.DataFrame) -> Table:
    """Returns the table of the loss in a whole training step."""
    frame = rows[rows["phase"] == "training step"]
    loss = rows[rows["phase"] == "loss in training step"][["label", "ms_median"]].rename(columns={"ms_median": "loss_ms"})
    frame = frame.merge(loss, on="label", how="left")
    baseline = frame.loc[frame["label"] == REFERENCE, "ms_median"]
    frame = frame.assign(gain=(baseline.iloc[0] if len(baseline) else float("nan")) / frame["ms_median"])
    return tasks.table(
        "The loss in a whole training step",
        (
            Column("note", "model"),
            CONTENDER,
            Column("ms_median", "step, ms", "ms"),
            Column("loss_ms", "loss, ms", "ms"),
            Column("share", "share of the loss", "share"),
            Column("gain", "whole step, times faster", "ratio"),
        ),
        frame,
        "Model, loss and optimiser on the COCO batch, in one process. The share of the reference's loss bounds what any other can gain.",
    )


def floors(rows: pd.DataFrame) -> Table:
    """Returns the table of step times relative to the machine's lower bounds."""
    frame = steps(rows)
    bound = frame[["floor_bytes_ms", "floor_exp_ms"]].max(axis=1)
    return tasks.table(
        "Distance from the machine's floor",
        (
            WORKLOAD,
            CONTENDER,
            Column("floor_bytes_ms", "bytes, ms", "ms"),
            Column("floor_exp_ms", "exponentials, ms", "ms"),
            Column("ms_median", "step, ms", "ms"),
            Column("of_floor", "step ÷ floor", "ratio"),
            Column("utilised", "of the floor", "share"),
        ),
        frame.assign(of_floor=frame["ms_median"] / bound, utilised=bound / frame["ms_median"]),
        f"Bytes: logits read once and gradients written once, at the bandwidth of a copy{_rate(rows, 'copy_bytes_per_s', 'GB/s')}. "
        f"Exponentials: one for each class logit, at the rate on cached values{_rate(rows, 'exp_per_s', 'billion/s')}. "
        "The floor is the larger of the two.",
    )


def _rate(rows: pd.DataFrame, column: str, unit: str) -> str:
    rates = rows[column].dropna()
    return f" ({rates.median() / 1e9:.3g} {unit} in this run)" if len(rates) else ""


def growth(rows: pd.DataFrame) -> Table:
    """Returns the table of exponents of growth."""
    return tasks.table(
        "Exponents of growth",
        (
            Column("sweep", "of"),
            CONTENDER,
            Column("exponent", "exponent", "ratio"),
            Column("exponent_lo95", "from", "ratio"),
            Column("exponent_hi95", "to", "ratio"),
            Column("ms_median", "constant part, ms", "ms"),
        ),
        rows[rows["phase"] == "growth of step"],
        "The step's time as a constant and a power of the size, fitted by relative error; the exponent's 95 % interval is over processes.",
    )


def warm_up(rows: pd.DataFrame) -> Table:
    """Returns the table of first calls, which no other table includes."""
    frame = steps(rows)
    return tasks.table(
        "First call, compilation included",
        (WORKLOAD, CONTENDER, Column("warm_ms", "first call, ms", "ms"), Column("ms_median", "later, ms", "ms")),
        frame[frame["backend"].isin(["compile", "triton"]) | (frame["workload"] == "coco")],
    )
