"""How far apart two trainings may be that differ by rounding alone, measured on the reference, and whether the twin stays within.

A training amplifies rounding: one unit in the last place of the logits tips an assignment within ten steps, and after some thirty the
losses of a step differ by percents. So nothing here is a constant of nature: the reference itself, its logits nudged, says how much is
normal, before the twin has made its first step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

CURVES = ("loss", "gradient norm")
SCORES = ("mAP50", "mAP50-95")

# Rounding grows by orders of magnitude, and an event such as a tipped assignment may come some steps earlier or later.
WHILE_GROWING, LOOKAHEAD = 10.0, 5
# Once it has grown, what remains is the largest of many values of one distribution.
ONCE_GROWN = 2.0
# A few roundings of float32, where the nudged runs happen to agree to the bit.
FLOOR = 4 * float(np.finfo(np.float32).eps)
# On the same predictions nothing grows: the largest of some hundred steps, and sums in another order.
BESIDE = 4.0
TIPPED_STEPS = 0.01

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Check:
    """One thing that was to hold.

    Attributes:
        name: what was compared.
        value: what was found.
        limit: what was allowed, as measured on the reference alone.
        detail: how to read the two.
    """

    name: str
    value: float
    limit: float
    detail: str

    @property
    def passed(self) -> bool:
        """Whether it holds; a value that is no number does not."""
        return self.value <= self.limit


def curve(rows: pd.DataFrame, run: str, quantity: str) -> Floats:
    """The values of a quantity of a run at every step."""
    chosen = rows[(rows["run"] == run) & (rows["quantity"] == quantity) & rows["step"].notna()].sort_values("step")
    return chosen["value"].to_numpy(np.float64)


def deviation(found: Floats, expected: Floats) -> Floats:
    """Relative deviation at every step that both have."""
    steps = min(len(found), len(expected))
    scale = np.maximum(np.abs(expected[:steps]), np.finfo(np.float64).tiny)
    apart: Floats = np.abs(found[:steps] - expected[:steps]) / scale
    return apart


def allowed_deviation(nudged: list[Floats], steps: int) -> Floats:
    """Tolerance at every step, from the deviations of nudged runs; short ones inform the beginning alone."""
    padded = np.array([np.pad(run, (0, steps - len(run))) for run in nudged])
    grown: Floats = np.maximum.accumulate(np.maximum(padded.max(axis=0), FLOOR))
    ahead = grown[np.minimum(np.arange(steps) + LOOKAHEAD, steps - 1)]
    tolerance: Floats = np.minimum(WHILE_GROWING * ahead, ONCE_GROWN * grown[-1])
    return tolerance


def repeatable(rows: pd.DataFrame, reference: str, repeat: str) -> Check:
    """That the same training can be repeated to the bit on this machine: without that, nothing else means anything."""
    largest = max(float(deviation(curve(rows, repeat, name), curve(rows, reference, name)).max()) for name in CURVES)
    return Check(
        "the reference repeated, seed 0", largest, 0.0, "largest relative deviation of loss and gradient norm at a step; must be 0"
    )


def curves(rows: pd.DataFrame, tolerance: dict[str, Floats], reference: str, twin: str) -> list[Check]:
    """That a twin's curves lie within the tolerance of the reference's at every step."""
    checks = []
    for name in CURVES:
        apart = deviation(curve(rows, twin, name), curve(rows, reference, name))
        ratio = apart / tolerance[name][: len(apart)]
        worst = int(ratio.argmax())
        detail = f"largest deviation ÷ tolerance, at step {worst}: {apart[worst]:.2g} of {tolerance[name][worst]:.2g}"
        complete = len(apart) == len(tolerance[name]) and bool(np.isfinite(apart).all())
        checks.append(Check(f"{twin}: {name} at every step", float(ratio[worst]) if complete else math.nan, 1.0, detail))
    return checks


def beside(rows: pd.DataFrame) -> list[Check]:
    """That on the same predictions, at every step, twin and reference differ no more than one unit in the last place of the logits does."""
    checks = []
    parted = rows[rows["quantity"].str.startswith("beside/")]
    whose = parted["quantity"].str.rsplit("/", n=2, expand=True)
    parted = parted.assign(prefix=whose[0], who=whose[1], what=whose[2])
    for key, group in parted.groupby(["run", "prefix", "what"]):
        run, prefix, quantity = map(str, key)
        twin, nudged = (group[group["who"] == who]["value"].to_numpy(np.float64) for who in ("twin", "nudged"))
        where = " ".join([run, *prefix.split("/")[1:]])
        if quantity == "anchors":
            tipped, by_rounding = int((twin > 0).sum()), int((nudged > 0).sum())
            limit = max(math.ceil(TIPPED_STEPS * len(twin)), 2 * by_rounding)
            detail = f"steps, of {len(twin)}, in which an anchor has another holder; {by_rounding} with nudged logits"
            checks.append(Check(f"{where}: assignment", float(tipped), float(limit), detail))
        else:
            detail = f"largest relative distance of {len(twin)} steps; {nudged.max():.2g} with nudged logits"
            checks.append(Check(f"{where}: {quantity}", float(twin.max()), BESIDE * float(nudged.max()), detail))
    return checks


def scores(rows: pd.DataFrame, references: list[str], twins: list[str]) -> list[Check]:
    """That the final scores of twins are those of references, within the spread that another seed makes."""
    checks = []
    for name in SCORES:
        of_reference, of_twin = ([final(rows, run, name) for run in runs] for runs in (references, twins))
        mean, twin_mean = float(np.mean(of_reference)), float(np.mean(of_twin))
        spread = max(of_reference) - min(of_reference)
        detail = (
            f"distance of the means over seeds, {twin_mean:.3f} and the reference's {mean:.3f}; allowed, the reference's spread over seeds"
        )
        checks.append(Check(f"final {name}", abs(twin_mean - mean), spread, detail))
    return checks


def final(rows: pd.DataFrame, run: str, quantity: str) -> float:
    """A score after a run's last epoch."""
    chosen = rows[(rows["run"] == run) & (rows["quantity"] == quantity)].sort_values("epoch")
    return float(chosen["value"].iloc[-1]) if len(chosen) else math.nan
