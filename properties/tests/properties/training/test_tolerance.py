"""Tolerances measured on nudged runs, and the checks of the twin against them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from properties.training import tolerance


@pytest.mark.parametrize(("largest", "holds"), [([3e-6, 3e-6], True), ([1e-2, 3e-6], True), ([1e-2, 1e-2], False)])
def test_a_jump_of_the_nudged_allows_one_of_the_twin_and_no_more(largest: list[float], holds: bool) -> None:
    values = {"nudged": [1e-6] * 199 + [0.08], "double": [1e-7] * 200, "twin": [1e-7] * 198 + largest}
    rows = pd.concat(
        pd.DataFrame({"run": "shadow", "step": range(200), "quantity": f"beside/{who}/gradient", "value": distances})
        for who, distances in values.items()
    )
    (check,) = tolerance.side_by_side(rows)
    assert check.limit == pytest.approx(4e-6)
    assert check.passed is holds


def test_allows_for_the_rounding_that_no_nudge_shows() -> None:
    rows = pd.DataFrame({"run": "shadow", "step": range(200), "quantity": "beside/double/loss", "value": [2e-5] * 199 + [0.5]})
    floor = tolerance.own_rounding(rows, "shadow", "loss")
    assert floor == pytest.approx(2e-5, rel=0.01)
    assert tolerance.allowed_deviation([np.zeros(3)], floor).tolist() == pytest.approx([2 * floor] * 3)


def test_follows_the_growth_of_rounding() -> None:
    grown = np.geomspace(1e-7, 1e-1, 7)
    allowed = tolerance.allowed_deviation([np.append(grown, np.full(20, 0.1)), np.full(27, 1e-7)])
    assert (allowed[:7] <= 41 * np.maximum(grown, tolerance.FLOOR)).all(), "tight while it is tight"
    assert allowed[-1] == pytest.approx(0.2)
    assert (np.diff(allowed) >= 0).all()


@pytest.mark.parametrize(("apart", "holds"), [(1.5, True), (3.0, False), (float("nan"), False)])
def test_curves(apart: float, holds: bool) -> None:
    steps = np.arange(30)
    curves = {"reference": 10 - steps / 10, "nudged": (10 - steps / 10) * 1.001, "twin": (10 - steps / 10) * (1 + 0.001 * apart)}
    rows = pd.concat(
        pd.DataFrame({"run": run, "step": steps, "quantity": quantity, "value": values})
        for run, values in curves.items()
        for quantity in tolerance.CURVES
    )
    expected = tolerance.curve(rows, "reference", "loss")
    allowed = tolerance.allowed_deviation([tolerance.deviation(tolerance.curve(rows, "nudged", "loss"), expected)])
    checks = tolerance.curves(rows, dict.fromkeys(tolerance.CURVES, allowed), "reference", "twin")
    assert [check.passed for check in checks] == [holds, holds]


def test_a_training_that_stopped_early_fails() -> None:
    rows = pd.concat(
        pd.DataFrame({"run": run, "step": range(count), "quantity": quantity, "value": 1.0})
        for run, count in (("reference", 5), ("twin", 4))
        for quantity in tolerance.CURVES
    )
    checks = tolerance.curves(rows, dict.fromkeys(tolerance.CURVES, np.ones(5)), "reference", "twin")
    assert not any(check.passed for check in checks)


@pytest.mark.parametrize(("twin", "holds"), [(0.53, True), (0.4, False)])
def test_scores(twin: float, holds: bool) -> None:
    runs = {"a": 0.5, "b": 0.56, "c": twin, "d": twin + 0.01}
    quantities = ("loss", "mAP50", "mAP50-95")
    rows = pd.DataFrame(
        [{"run": run, "step": 0, "epoch": 0, "quantity": name, "value": value} for run, value in runs.items() for name in quantities]
    )
    checks = tolerance.scores(rows, ["a", "b"], ["c", "d"])
    assert [check.passed for check in checks] == [holds] * 3
