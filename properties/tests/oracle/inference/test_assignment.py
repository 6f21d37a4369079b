"""An assignment is inferred from gradients: plausible hypotheses, the chosen one, and the example of the module's docstring."""

from __future__ import annotations

import dataclasses

import pytest

from oracle.cases.case import Box
from oracle.contract.contender import Contender
from oracle.inference.assignment import AssignmentInference, _Hypothesis, _likeliest, _plausible
from oracle.inference.evidence import pair_evidence, weight_intervals
from properties.selfcheck.sample_candidates import other_rounding_silent
from properties.tests.oracle.judge.helpers import ONE_LEVEL, drawn, trial_of


def hypothesis(box: int, expected: float = 1.0, fitted: float = 1.0, nll: float = 0.0, deviation: float = 0.0) -> _Hypothesis:
    return _Hypothesis(box, expected, fitted, nll, deviation)


def unexpected(fitted: float) -> list[_Hypothesis]:
    """Two hypotheses that fit with no expected weight: the second fits better, the first's weight deviates less."""
    best = 1.0 if fitted < 5 else 10.0
    return [hypothesis(1, expected=50, fitted=fitted, deviation=0.3), hypothesis(2, expected=50, fitted=best, deviation=0.8)]


@pytest.mark.parametrize(
    ("hypotheses", "own", "chosen"),
    [
        ([], 3, 3),
        ([hypothesis(1), hypothesis(2)], 2, 2),
        ([hypothesis(1, expected=0.5), hypothesis(2, expected=1.5)], 7, 1),
        ([hypothesis(1, nll=0.0), hypothesis(2, nll=29.0)], 2, 2),
        ([hypothesis(1, nll=0.0), hypothesis(2, nll=31.0)], 2, 1),
        # Of those that fit with some weight, the one whose weight deviates least.
        (unexpected(1.9), 2, 1),
        (unexpected(2.1), 1, 2),
        # None fits: up to twice the misfit of the best one.
        (unexpected(19.0), 2, 1),
        (unexpected(21.0), 1, 2),
    ],
)
def test_the_hypothesis_that_explains_the_gradients_best_is_chosen(hypotheses: list[_Hypothesis], own: int, chosen: int) -> None:
    assert _likeliest(hypotheses, own) == chosen


def test_a_hypothesis_that_fits_through_a_wide_tolerance_alone_is_not_plausible() -> None:
    hypotheses = [hypothesis(1, nll=-40.0), hypothesis(2, nll=-11.0), hypothesis(3, nll=-9.0), hypothesis(4, expected=2.1, nll=-40.0)]
    assert [one.box for one in _plausible(hypotheses)] == [1, 2]


def test_the_worked_example() -> None:
    boxes = [Box(0, 0, 12.0, 16.0 - 0.3, 24.0, 8.0), Box(0, 1, 12.0, 16.0 + 0.3, 24.0, 8.0)]
    spec = dataclasses.replace(ONE_LEVEL, strides=(32,), topk=1)
    case = drawn(boxes, {0: (0.125, 0.125, 0.625, 0.125)}, {(0, 0): 2.0, (1, 0): 2.0}, spec)
    trial = trial_of(case, Contender("silent", "", other_rounding_silent, arithmetic="float32"))
    outcome, allowed, exact = trial.outcome().on_host(), trial.allowed, trial.decided.held
    evidence = pair_evidence(outcome, allowed, allowed.pair.nonzero()[0], trial.definition, trial.arithmetic)
    assert evidence.observed_boxes[0] == pytest.approx([-1.81, 1.31, 0.64, -1.48], abs=5e-3)
    assert evidence.observed_score == pytest.approx([0.440, 0.335], abs=5e-4)
    assert evidence.box_gradient[0] == pytest.approx([-8.56, -6.99, 3.05, 6.19], abs=5e-3)
    assert evidence.box_gradient[1] == pytest.approx([-8.56, 6.19, 3.05, -6.99], abs=5e-3)
    expected = weight_intervals(allowed, evidence.pair, exact.holder(len(allowed.may_be_unassigned)), spec)
    assert expected.value == pytest.approx([0.2113, 0.2113], abs=5e-5)
    assert evidence.rate is not None
    far, near = evidence.misfit(expected, evidence.rate).expected
    assert near < 1
    assert 1e5 < far < 1e7
    (inferred,) = AssignmentInference(outcome, allowed, exact, trial.definition, trial.arithmetic).assignments()
    assert inferred.assignment.box.tolist() == [1]
