"""The tables of a bench run."""

from __future__ import annotations

from typing import Any

import pandas as pd

from reports import tasks
from reports.bench.schema import PHASES, REFERENCE, SINGLE, others, steps
from reports.tables import Column, Table, Tone, made_with

UNIT = ["workload", "dtype", "device", "heap"]


def faster(ratio: Any) -> Tone:
    """Returns the tone of a lower bound: above 1 the contender is faster."""
    return "good" if ratio > 1 else "plain"


def slower(ratio: Any) -> Tone:
    """Returns the tone of an upper bound: below 1 the contender is slower."""
    return "bad" if ratio < 1 else "plain"


def slow(ratio: Any) -> Tone:
    """Returns the tone of a ratio: below 1 the contender may be slower."""
    return "warn" if ratio < 1 else "plain"


RATIO = (
    Column("ratio_to_reference", "times faster", "ratio", slow),
    Column("ratio_lo95", "from", "ratio", faster),
    Column("ratio_hi95", "to", "ratio", slower),
)
TIMES = (Column("reference_ms", "reference, ms", "ms"), Column("ms_median", "ms", "ms"), *RATIO)
WORKLOAD, CONTENDER = Column("workload", "workload"), Column("label", "contender")


def against_reference(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns each row with the reference's time, peak and faults on the same unit and phase."""
    keys = [*UNIT, "phase"]
    renamed = {"ms_median": "reference_ms", "peak_bytes": "reference_peak", "retained_bytes": "reference_retained"}
    renamed |= {"minor_faults": "reference_faults"}
    baseline = frame[frame["label"] == REFERENCE][[*keys, *renamed]].rename(columns=renamed)
    return frame.merge(baseline, on=keys, how="left", sort=False)


def workloads(rows: pd.DataFrame, heap: str = "steady") -> Table:
    """Returns the table of whole steps in float32, by workload."""
    frame = others(against_reference(steps(rows, heap)))
    faults = (Column("reference_faults", "its faults", "count"), Column("minor_faults", "faults", "count"))
    return tasks.table(
        f"Step in {SINGLE}, {heap} heap" if heap == "default" else f"Step in {SINGLE}",
        (WORKLOAD, CONTENDER, *TIMES, Column("images_per_s", "images/s", "ratio"), *(faults if heap == "default" else ())),
        frame,
        "Forward and backward. Times are medians over all processes; the ratio is the median of the rounds' own ratios, with its 95 % "
        "interval over processes. " + HEAPS[heap],
    )


HEAPS = {
    "steady": "The heap keeps its memory, so that no page is faulted in.",
    "default": "The C library's own heap, as users have it: large temporaries are handed back, and faulted in again. Faults: pages a call.",
}


def dtypes(rows: pd.DataFrame) -> Table:
    """Returns the table of whole steps by dtype, for the workloads that were measured in several."""
    frame = others(against_reference(steps(rows, dtype=None)))
    several = frame.groupby("workload")["dtype"].transform("nunique") > 1
    return tasks.table(
        "Step by dtype",
        (WORKLOAD, Column("dtype", "logits"), CONTENDER, *TIMES, Column("peak_bytes", "peak", "bytes")),
        frame[several],
        "Without a reference's time the reference raises there.",
    )


def memory(rows: pd.DataFrame) -> Table:
    """Returns the table of peak memory of a step above its inputs."""
    frame = others(against_reference(steps(rows)))
    frame = frame.assign(
        of_reference=frame["peak_bytes"] / frame["reference_peak"], of_gradients=frame["peak_bytes"] / frame["gradient_bytes"]
    )
    held = (
        Column("reference_retained", "reference holds", "bytes"),
        Column("retained_bytes", "held between forward and backward", "bytes"),
    )
    return tasks.table(
        "Peak memory of a step, above its inputs",
        (
            WORKLOAD,
            CONTENDER,
            Column("reference_peak", "reference", "bytes"),
            Column("peak_bytes", "peak", "bytes"),
            Column("of_reference", "of the reference's", "share"),
            Column("gradient_bytes", "gradients alone", "bytes"),
            Column("of_gradients", "× gradients", "ratio"),
            *(held if frame["retained_bytes"].notna().any() else ()),
        ),
        frame,
        "What the framework's allocator handed out, to the byte, the same on every run. The gradients are part of every contender's peak.",
    )


def slower_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows in which a contender is slower than the reference, the worst first."""
    timed = others(rows[rows["measured"] & rows["phase"].isin(PHASES)])
    return against_reference_phases(rows, timed[timed["ratio_to_reference"] < 1]).sort_values("ratio_to_reference")


def against_reference_phases(rows: pd.DataFrame, chosen: pd.DataFrame) -> pd.DataFrame:
    """Returns the chosen rows with the reference's time in the same phase."""
    baseline = rows[rows["label"] == REFERENCE][[*UNIT, "phase", "ms_median"]].rename(columns={"ms_median": "reference_ms"})
    return chosen.merge(baseline, on=[*UNIT, "phase"], how="left", sort=False)


def where_slower(rows: pd.DataFrame) -> Table:
    """Returns the table of rows in which a contender is slower than the reference."""
    return tasks.table(
        "Slower than the reference",
        (WORKLOAD, CONTENDER, Column("phase", "phase"), Column("dtype", "logits"), Column("heap", "heap"), *TIMES),
        slower_rows(rows),
        "Forward and backward count one by one here: a contender that takes its gradients while it goes forward has a slower forward.",
    )


def failures(rows: pd.DataFrame) -> Table:
    """Returns the table of failures with their errors."""
    return tasks.table(
        "Not measured",
        (WORKLOAD, Column("dtype", "logits"), Column("heap", "heap"), CONTENDER, Column("note", "because", "code")),
        rows[~rows["measured"] & rows["note"].notna()],
    )


def described(rows: pd.DataFrame) -> Table:
    """Returns the table that describes the workloads."""
    frame = rows[rows["what"].notna() & rows["sweep"].isna()].drop_duplicates("workload")
    return tasks.table(
        "Workloads",
        (
            WORKLOAD,
            Column("what", "what"),
            Column("boxes", "boxes", "count"),
            Column("anchors", "anchors", "count"),
            Column("classes", "classes", "count"),
            Column("reg_max", "bins", "count"),
            Column("origin", "boxes from"),
        ),
        frame,
        "Predictions are those of a network midway in training.",
    )


def environment(rows: pd.DataFrame) -> Table:
    """Returns the table of versions and machine."""
    return made_with(rows, "twinloss", "ultralytics", "torch", "python", "cpu", "gpu", "threads", "system", "commit", "written")
