"""The rows of a bench run: one for each workload, setting, heap, contender and phase."""

from __future__ import annotations

import pandas as pd

from reports import tasks
from reports.rows import Schema

SCHEMA = Schema(
    required={
        "workload": "text",
        "contender": "text",
        "backend": "text",
        "device": "text",
        "dtype": "text",  # of the logits, with the surrounding autocast: bfloat16+autocast(bfloat16)
        "phase": "text",  # forward, backward, step; stage: NAME; training step, loss in training step; growth of step
        "ms_median": "number",
        "ratio_to_reference": "number",  # how many times faster than the reference: above 1 is faster
        "ratio_lo95": "number",
        "ratio_hi95": "number",
        "peak_bytes": "count",  # above the inputs
        "images_per_s": "number",
        "heap": "text",
        "minor_faults": "count",  # a call
    },
    optional={
        "ms_q1": "number",
        "ms_q3": "number",
        "cpu_ms_median": "number",  # of the processor, all threads
        "warm_ms": "number",  # the first call, compilation included
        "rounds": "count",
        "processes": "count",
        "share": "number",  # of a stage in the step, of the loss in the training step
        "gradient_bytes": "count",
        "floor_bytes_ms": "number",  # moving logits and gradients at the measured copy bandwidth
        "floor_exp_ms": "number",  # the classification term's exponentials at the measured rate
        "launches": "count",
        "synchronisations": "count",
        "what": "text",
        "origin": "text",
        "images": "count",
        "image_size": "text",
        "anchors": "count",
        "classes": "count",
        "reg_max": "count",
        "boxes": "count",
        "candidate_pairs": "count",
        "sweep": "text",
        "size": "number",
        "exponent": "number",
        "exponent_lo95": "number",
        "exponent_hi95": "number",
        "note": "text",
        "copy_bytes_per_s": "number",
        "exp_per_s": "number",
        "log_per_s": "number",
        "log1p_per_s": "number",
        "twinloss": "text",
        "ultralytics": "text",
        "torch": "text",
        "python": "text",
        "threads": "text",
        "cpu": "text",
        "gpu": "text",
        "system": "text",
        "commit": "text",
        "written": "text",
        "retained_bytes": "count",  # held between forward and backward, above the inputs
        **tasks.COLUMN,
    },
    defaults=tasks.DEFAULT,
    written_by="nox -s bench",
)

REFERENCE = "reference"
PHASES = ("forward", "backward", "step")
SINGLE = "float32"


def labelled(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows with columns ``label`` (contender and backend) and ``measured`` (false for failures)."""
    own = rows["backend"].isin(["eager", "own"])
    label = rows["contender"].where(own, rows["contender"] + " (" + rows["backend"] + ")")
    return rows.assign(label=label, measured=rows["ms_median"].notna())


def steps(rows: pd.DataFrame, heap: str = "steady", dtype: str | None = SINGLE, *, swept: bool = False) -> pd.DataFrame:
    """Returns the measured whole steps on a heap: of the workloads, or with ``swept`` of the sweeps."""
    kept = rows["measured"] & (rows["phase"] == "step") & (rows["heap"] == heap) & (rows["sweep"].notna() == swept)
    return rows[kept & (rows["dtype"] == dtype)] if dtype else rows[kept]


def others(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of all contenders but the reference."""
    return rows[rows["label"] != REFERENCE]
