"""Tolerances for two trainings that differ by rounding alone, measured on the reference, and the checks of the twin against them.

A training amplifies rounding: one unit in the last place of the logits grows to a hundredth of the loss within ten steps, and after about
thirty steps the losses differ by a tenth. The tolerances are therefore measured: trainings of the reference with nudged logits fix them
before the twin makes its first step.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

CURVES = ("loss", "gradient norm")
LATE = 0.25  # Share of a training over which its loss is averaged; single steps vary too much by then.

# Rounding grows up to tenfold a step, and one run may be a step ahead of another.
WHILE_GROWING, LOOKAHEAD = 4.0, 1
# Once it has grown, the maxima of two runs are maxima of many values of one distribution.
ONCE_GROWN = 2.0
# A sum over the network has some roundings of float32; smaller deviations are not compared.
FLOOR = 16 * float(np.finfo(np.float32).eps)
# On the same predictions rounding does not grow: sums have another order, and the largest of some hundred steps counts. In a rare step a
# unit in the last place lands on the other side of a kink, where the gradient jumps: it is left out.
BESIDE, ORDINARY = 4.0, 0.99
MOVED_STEPS = 0.01

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Check:
    """One check of the twin.

    Attributes:
        name: the compared quantity.
        value: the value found.
        limit: the largest allowed value, measured on the reference alone.
        detail: explanation of the two.
    """

    name: str
    value: float
    limit: float
    detail: str

    @property
    def passed(self) -> bool:
        """Whether the value is within the limit; NaN is not."""
        return self.value <= self.limit


def curve(rows: pd.DataFrame, run: str, quantity: str) -> Floats:
    """Returns the values of a quantity of a run at every step."""
    chosen = rows[(rows["run"] == run) & (rows["quantity"] == quantity) & rows["step"].notna()].sort_values("step")
    return chosen["value"].to_numpy(np.float64)


def deviation(found: Floats, expected: Floats) -> Floats:
    """Returns the relative deviation at every step that both have."""
    steps = min(len(found), len(expected))
    scale = np.maximum(np.abs(expected[:steps]), np.finfo(np.float64).tiny)
    apart: Floats = np.abs(found[:steps] - expected[:steps]) / scale
    return apart


def own_rounding(rows: pd.DataFrame, run: str, quantity: str) -> float:
    """Returns the reference's usual distance from its own answer in double precision, which nudged logits do not show."""
    found = curve(rows, run, f"beside/double/{quantity}")
    return max(float(np.quantile(found, ORDINARY)) if len(found) else 0.0, FLOOR)


def allowed_deviation(nudged: list[Floats], floor: float = FLOOR) -> Floats:
    """Returns the tolerance at every step, from the deviations of nudged runs and at least from ``floor``."""
    grown: Floats = np.maximum.accumulate(np.maximum(np.max(nudged, axis=0), floor))
    steps = len(grown)
    ahead = grown[np.minimum(np.arange(steps) + LOOKAHEAD, steps - 1)]
    tolerance: Floats = np.minimum(WHILE_GROWING * ahead, ONCE_GROWN * grown[-1])
    return tolerance


def repeatable(rows: pd.DataFrame, reference: str, repeat: str) -> Check:
    """Check that a training can be repeated to the bit on this machine; the other checks depend on it."""
    largest = max(float(deviation(curve(rows, repeat, name), curve(rows, reference, name)).max()) for name in CURVES)
    return Check(
        "the reference repeated, seed 0", largest, 0.0, "largest relative deviation of loss and gradient norm at a step; must be 0"
    )


def curves(rows: pd.DataFrame, tolerance: dict[str, Floats], reference: str, twin: str) -> list[Check]:
    """Check that a twin's curves are within the tolerance of the reference's at every step."""
    checks = []
    for name in CURVES:
        apart = deviation(curve(rows, twin, name), curve(rows, reference, name))
        ratio = apart / tolerance[name][: len(apart)]
        worst = int(ratio.argmax())
        detail = f"largest deviation ÷ tolerance, at step {worst}: {apart[worst]:.2g} of {tolerance[name][worst]:.2g}"
        complete = len(apart) == len(tolerance[name]) and bool(np.isfinite(apart).all())
        checks.append(Check(f"{twin}: {name} at every step", float(ratio[worst]) if complete else math.nan, 1.0, detail))
    return checks


def side_by_side(rows: pd.DataFrame) -> list[Check]:
    """Check that on the same predictions the twin differs from the reference at no step by more than rounding explains.

    The effect of rounding is measured in two ways: with logits nudged by one unit in the last place, and in double precision.
    """
    checks = []
    parted = rows[rows["quantity"].str.startswith("beside/")]
    parts = parted["quantity"].str.rsplit("/", n=2, expand=True)
    parted = parted.assign(prefix=parts[0], contender=parts[1], what=parts[2])
    for key, group in parted.groupby(["run", "prefix", "what"]):
        run, prefix, quantity = map(str, key)
        distances = {name: group[group["contender"] == name]["value"].to_numpy(np.float64) for name in ("twin", "nudged", "double")}
        where = " ".join([run, *prefix.split("/")[1:]])
        checks.append(_moved(where, distances) if quantity == "anchors" else _apart(f"{where}: {quantity}", distances))
    return checks


def _moved(where: str, anchors: Mapping[str, Floats]) -> Check:
    """Check that the twin's assignment differs in few steps, or in no more than twice as many as with nudged logits."""
    steps = len(anchors["twin"])
    moved, by_rounding = (int((anchors[name] > 0).sum()) for name in ("twin", "nudged"))
    limit = max(math.ceil(MOVED_STEPS * steps), 2 * by_rounding)
    detail = f"steps, of {steps}, in which an anchor has another holder; {by_rounding} with nudged logits"
    return Check(f"{where}: assignment", float(moved), float(limit), detail)


def _apart(name: str, distances: Mapping[str, Floats]) -> Check:
    """Check that rounding explains the twin's relative distance."""
    twin, nudged, double = (distances[name] for name in ("twin", "nudged", "double"))
    ordinary = max(float(np.quantile(nudged, ORDINARY)), float(np.quantile(double, ORDINARY)))
    limit = max(BESIDE * ordinary, FLOOR)
    jumps = int((nudged > limit).sum())
    largest, with_nudges = (float(np.sort(values)[-1 - jumps]) for values in (twin, nudged))
    detail = f"largest relative distance of {len(twin)} steps; {with_nudges:.2g} with nudged logits"
    detail += f", which jump in {jumps} more" if jumps else ""
    return Check(name, largest, limit, f"{detail}; {np.quantile(double, ORDINARY):.2g} in double precision")


def scores(rows: pd.DataFrame, references: list[str], twins: list[str]) -> list[Check]:
    """Check that late losses and final scores of twins equal the references', within the spread over seeds."""
    checks = []
    names = [name for name in dict.fromkeys(rows["quantity"]) if "mAP50" in name]
    measures = {f"final {name}": functools.partial(final, rows, quantity=name) for name in names}
    for name, measure in {"mean loss of the last quarter": functools.partial(late_loss, rows), **measures}.items():
        of_reference, of_twin = ([measure(run) for run in runs] for runs in (references, twins))
        mean, twin_mean = float(np.mean(of_reference)), float(np.mean(of_twin))
        spread = max(of_reference) - min(of_reference)
        detail = f"distance of the means over {len(twins)} seeds, {twin_mean:.3f} and the reference's {mean:.3f}; allowed: its spread"
        detail += "" if max(of_reference) else "; not informative, because the reference learnt nothing: train for longer"
        checks.append(Check(name, abs(twin_mean - mean), spread, detail))
    return checks


def late_loss(rows: pd.DataFrame, run: str) -> float:
    """Returns the mean loss of the last part of a run."""
    losses = curve(rows, run, "loss")
    return float(losses[-max(round(LATE * len(losses)), 1) :].mean()) if len(losses) else math.nan


def final(rows: pd.DataFrame, run: str, quantity: str) -> float:
    """Returns a score after a run's last epoch."""
    chosen = rows[(rows["run"] == run) & (rows["quantity"] == quantity)].sort_values("epoch")
    return float(chosen["value"].iloc[-1]) if len(chosen) else math.nan
