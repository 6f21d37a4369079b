"""The rows of a differential run: one for each contender, batch, setting, stage and compared quantity."""

from __future__ import annotations

import pandas as pd

from reports import tasks
from reports.rows import Schema

# From the lightest to the gravest: of several, the last counts.
NOT_ASKED = "not asked"  # how the reason of what an assumption left out begins
NOT_COMPARED, AGREE, AMBIGUOUS, DIFFER = VERDICTS = ("NOT COMPARED", "AGREE", "AMBIGUOUS", "DIFFER")

SCHEMA = Schema(
    required={
        "workload": "text",  # where the boxes are from, such as coco, or generated
        "case": "text",  # the batch, by the digest of its recipe
        "contender": "text",
        "stage": "text",
        "quantity": "text",  # what of the stage is compared, such as box loss, or gradient of scores
        "dtype": "text",  # of the logits, with the surrounding autocast: float16+autocast(bfloat16)
        "device": "text",
        "verdict": "text",
        "error": "number",  # distance from the float64 result; at a kink, from the interval that it is
        "allowance": "number",
        "error_over_allowance": "number",
        "margin": "number",  # the narrowest decision, where the quantity is decided and not computed
        "decisions": "count",  # none where nothing is decided
        "open_decisions": "count",  # those that rounding or a tie could tip
        "ambiguous_decisions": "count",  # open ones that did turn out differently
        "torch": "text",
        "ultralytics": "text",
        "twinloss": "text",
        "python": "text",
        "profile": "text",
        "seed": "text",
        "source": "text",  # where the boxes of the workload were read, or generated
        "tags": "text",
    },
    optional={
        "version": "text",  # of the contender
        "reason": "text",  # why the verdict is AMBIGUOUS or NOT COMPARED; of the conduct's warnings, their texts
        "detail": "text",  # worst element with its values, shapes: as the run printed it
        "replay": "text",  # the command that runs this case again; none where it was not saved
        "example": "count",  # 1 for a case that was made smaller and saved, beside those that the run drew: shown, and not counted
        "kinks": "count",  # numbers that lie at a kink, where the definition is an interval
        "kink_reach": "number",  # how far into one: 0 where the definition stands, 1 at an end
        "isolated": "count",  # 1 for a contender in a process of its own, 0 for one in the judge's
        **tasks.COLUMN,
    },
    choices={"verdict": VERDICTS},
    defaults=tasks.DEFAULT,
    written_by="nox -s diff",
)

# The quantity whose row sums up the decisions that other rows of its stage count by kind.
TOTAL = "holders"

# The order of the definition; stages that are not named here follow in alphabetical order.
STAGES = ("conduct", "factory", "anchors", "targets", "decode", "candidates", "metrics", "assign", "loss_given", "loss")
DTYPES = ("float64", "float32", "bfloat16", "float16")


def ordered(values: pd.Series, first: tuple[str, ...]) -> pd.Series:
    """The column as a categorical in the order of ``first`` and then the alphabet: tables and plots keep the order of the definition."""
    present = sorted(values.dropna().unique(), key=lambda name: (first.index(name) if name in first else len(first), name))
    return values.astype(pd.CategoricalDtype(present, ordered=True))


def drawn(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of what the run drew: examples, which were made from them afterwards, apart."""
    return rows[~(rows["example"] > 0)] if "example" in rows else rows


def generated(source: pd.Series) -> pd.Series:
    """Whether each row's boxes were made up instead of drawn by people."""
    return source.str.startswith("generated").fillna(True).astype(bool)
