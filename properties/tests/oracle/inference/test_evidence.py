"""How the gradients of a contender that shows no assignment are weighed: who may hold an anchor, and who is likeliest."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from oracle.inference.assignment import _likeliest, _Option, _plausible
from oracle.inference.evidence import Clues, Expected, clues_of
from properties.tests.oracle.judge.helpers import TWIN, ordinary, trial_of


def _option(box: int, expected: float = 1.0, fitted: float = 1.0, surprise: float = 0.0, off: float = 0.0) -> _Option:
    return _Option(box, expected, fitted, surprise, off)


@pytest.mark.parametrize(
    ("options", "own", "chosen"),
    [
        ([], 3, 3),
        ([_option(1), _option(2)], 2, 2),
        ([_option(1, expected=0.5), _option(2, expected=1.5)], 7, 1),
        ([_option(1, surprise=0.0), _option(2, surprise=29.0)], 2, 2),
        ([_option(1, surprise=0.0), _option(2, surprise=31.0)], 2, 1),
        # No weight expected explains it. Of those that some weight explains, the one whose weight is least off.
        ([_option(1, expected=50, fitted=1.9, off=0.3), _option(2, expected=50, fitted=1.0, off=0.8)], 2, 1),
        ([_option(1, expected=50, fitted=2.1, off=0.3), _option(2, expected=50, fitted=1.0, off=0.8)], 1, 2),
        # None is explained: as many times the roundings of the best one.
        ([_option(1, expected=50, fitted=19.0, off=0.3), _option(2, expected=50, fitted=10.0, off=0.8)], 2, 1),
        ([_option(1, expected=50, fitted=21.0, off=0.3), _option(2, expected=50, fitted=10.0, off=0.8)], 1, 2),
    ],
)
def test_the_likeliest_is_who_explains_best(options: list[_Option], own: int, chosen: int) -> None:
    assert _likeliest(options, own) == chosen


def test_what_fits_by_chance_alone_is_not_plausible() -> None:
    options = [_option(1, surprise=-40.0), _option(2, surprise=-11.0), _option(3, surprise=-9.0), _option(4, expected=2.1, surprise=-40.0)]
    assert [option.box for option in _plausible(options)] == [1, 2]


@pytest.fixture(scope="module")
def seen() -> tuple[Clues, Expected]:
    """What the twin's gradients show at the anchors that it holds, and the weights that it gave them."""
    trial = trial_of(ordinary(2), TWIN)
    held, allowed, arithmetic = trial.holdings(), trial.allowed, trial.arithmetic
    pair = allowed.lookup(held.cell, held.box)
    clues = clues_of(trial.outcome().on_host(), allowed, pair, trial.definition, arithmetic)
    return clues, Expected(held.weight, held.weight, held.weight)


@pytest.mark.parametrize("times", [1.0, 3.0, 8.0])
def test_a_score_that_is_off_surprises_by_half_its_square(seen: tuple[Clues, Expected], times: float) -> None:
    clues, expected = seen
    rate = clues.rate
    assert rate is not None
    right = rate * clues.push * (1 / (1 + np.exp(-clues.logit)) - expected.value)
    _, slack = clues._slack(expected.value, rate)
    found = [dataclasses.replace(clues, seen_score=right + far * slack)._surprise(expected.value, rate) for far in (0.0, times)]
    np.testing.assert_allclose(found[1] - found[0], times**2 / 2, rtol=1e-6)


def test_boxes_that_are_off_surprise_once_a_side(seen: tuple[Clues, Expected]) -> None:
    clues, expected = seen
    rate = clues.rate
    assert rate is not None
    slack, _ = clues._slack(expected.value, rate)
    right = rate * expected.value[:, None] * clues.pull
    found = [dataclasses.replace(clues, seen=right + far * slack)._surprise(expected.value, rate) for far in (0.0, 3.0)]
    np.testing.assert_allclose(found[1] - found[0], 4 * 3.0**2 / 2, rtol=1e-6)
