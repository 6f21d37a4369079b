"""How far apart two trainings may be that differ by rounding alone, measured on the reference, and whether the twin stays within.

A training amplifies rounding: one unit in the last place of the logits has become a hundredth of the loss within ten steps, and after some
thirty the losses of a step differ by a tenth. So nothing here is a constant of nature: the reference itself, its logits nudged, says how
much is normal, before the twin has made its first step.
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
SCORES = ("mAP50", "mAP50-95")
LATE = 0.25  # share of a training over which its loss is averaged, since single steps say little by then

# Rounding grows up to tenfold a step, and not on the same step in every run: whoever grows fast is a step ahead.
WHILE_GROWING, LOOKAHEAD = 4.0, 1
# Once it has grown, what remains is the largest of many values of one distribution.
ONCE_GROWN = 2.0
# Below some roundings of float32, as a sum over the net has them, nothing is told apart.
FLOOR = 16 * float(np.finfo(np.float32).eps)
# On the same predictions nothing grows: sums in another order, and the largest of some hundred steps. In a rare step a unit in the last
# place lands on the other side of a kink, where the gradient jumps: such a step says nothing about the others.
BESIDE, ORDINARY = 4.0, 0.99
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


def own_rounding(rows: pd.DataFrame, run: str, quantity: str) -> float:
    """How far the reference itself ordinarily is from its own answer in double precision, which no nudge of its logits shows."""
    found = curve(rows, run, f"beside/double/{quantity}")
    return max(float(np.quantile(found, ORDINARY)) if len(found) else 0.0, FLOOR)


def allowed_deviation(nudged: list[Floats], floor: float = FLOOR) -> Floats:
    """Tolerance at every step, from the deviations of nudged runs; it starts from ``floor``."""
    grown: Floats = np.maximum.accumulate(np.maximum(np.max(nudged, axis=0), floor))
    steps = len(grown)
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
    """That on the same predictions, at every step, the twin differs from the reference no more than rounding does.

    What rounding does is seen twice: with logits off by one unit in the last place, and against the reference in double precision.
    """
    checks = []
    parted = rows[rows["quantity"].str.startswith("beside/")]
    whose = parted["quantity"].str.rsplit("/", n=2, expand=True)
    parted = parted.assign(prefix=whose[0], who=whose[1], what=whose[2])
    for key, group in parted.groupby(["run", "prefix", "what"]):
        run, prefix, quantity = map(str, key)
        distances = {who: group[group["who"] == who]["value"].to_numpy(np.float64) for who in ("twin", "nudged", "double")}
        where = " ".join([run, *prefix.split("/")[1:]])
        checks.append(_tipped(where, distances) if quantity == "anchors" else _apart(f"{where}: {quantity}", distances))
    return checks


def _tipped(where: str, anchors: Mapping[str, Floats]) -> Check:
    """That the twin assigns anchors otherwise in few steps, or in no more than rounding makes."""
    steps = len(anchors["twin"])
    tipped, by_rounding = (int((anchors[who] > 0).sum()) for who in ("twin", "nudged"))
    limit = max(math.ceil(TIPPED_STEPS * steps), 2 * by_rounding)
    detail = f"steps, of {steps}, in which an anchor has another holder; {by_rounding} with nudged logits"
    return Check(f"{where}: assignment", float(tipped), float(limit), detail)


def _apart(name: str, distances: Mapping[str, Floats]) -> Check:
    """That the twin's relative distance is one that rounding makes."""
    twin, nudged, double = (distances[who] for who in ("twin", "nudged", "double"))
    ordinary = max(float(np.quantile(nudged, ORDINARY)), float(np.quantile(double, ORDINARY)))
    limit = max(BESIDE * ordinary, FLOOR)
    jumps = int((nudged > limit).sum())
    largest, with_nudges = (float(np.sort(values)[-1 - jumps]) for values in (twin, nudged))
    detail = f"largest relative distance of {len(twin)} steps; {with_nudges:.2g} with nudged logits"
    detail += f", which jump in {jumps} more" if jumps else ""
    return Check(name, largest, limit, f"{detail}; {np.quantile(double, ORDINARY):.2g} in double precision")


def scores(rows: pd.DataFrame, references: list[str], twins: list[str]) -> list[Check]:
    """That late losses and final scores of twins are those of references, within the spread that another seed makes."""
    checks = []
    measures = {f"final {name}": functools.partial(final, rows, quantity=name) for name in SCORES}
    for name, measure in {"mean loss of the last quarter": functools.partial(late_loss, rows), **measures}.items():
        of_reference, of_twin = ([measure(run) for run in runs] for runs in (references, twins))
        mean, twin_mean = float(np.mean(of_reference)), float(np.mean(of_twin))
        spread = max(of_reference) - min(of_reference)
        detail = f"distance of the means over {len(twins)} seeds, {twin_mean:.3f} and the reference's {mean:.3f}; allowed: its spread"
        detail += "" if max(of_reference) else "; says nothing, as the reference learnt nothing: train for longer"
        checks.append(Check(name, abs(twin_mean - mean), spread, detail))
    return checks


def late_loss(rows: pd.DataFrame, run: str) -> float:
    """The mean loss of the last part of a run."""
    losses = curve(rows, run, "loss")
    return float(losses[-max(round(LATE * len(losses)), 1) :].mean()) if len(losses) else math.nan


def final(rows: pd.DataFrame, run: str, quantity: str) -> float:
    """A score after a run's last epoch."""
    chosen = rows[(rows["run"] == run) & (rows["quantity"] == quantity)].sort_values("epoch")
    return float(chosen["value"].iloc[-1]) if len(chosen) else math.nan
