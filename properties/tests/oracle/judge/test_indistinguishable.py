"""Bounds on the terms over all assignments with the same gradients, and a judge that excuses nothing beyond them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracle.comparison.compare import compare
from oracle.comparison.trial import Trial
from oracle.contract.contender import Contender, Criterion, LossAndItems
from oracle.contract.verdict import Verdict
from oracle.judge.indistinguishable import NO_ALTERNATIVES, Alternatives, term_bounds
from properties.differential.saved_cases import SavedCase, load
from properties.selfcheck.sample_candidates import LossOnly, other_rounding, other_rounding_silent
from properties.tests.oracle.judge.helpers import REFERENCE, trial_of
from twinloss import LossSpec

TERMS = 3
ENTROPY = "5ee2b4e11890"
EIGHTHS = st.integers(0, 8).map(lambda n: n / 8)


@st.composite
def open_anchors(draw: st.DrawFn) -> list[Alternatives]:
    """A few anchors, each with one to three boxes and perhaps none; eighths, so that equal sums are equal."""
    answer = []
    for _ in range(draw(st.integers(1, 5))):
        weights = draw(st.lists(st.sampled_from([0.125, 0.5, 1.0]), min_size=1, max_size=3)) + [0.0] * draw(st.integers(0, 1))
        term_values = np.array([[draw(EIGHTHS) if weight else 0.0 for _ in range(TERMS)] for weight in weights])
        answer.append(Alternatives(np.array(weights), term_values, draw(st.integers(0, len(weights) - 1))))
    return answer


@given(open_anchors())
def test_every_choice_that_keeps_the_normaliser_is_within_bounds(anchors: list[Alternatives]) -> None:
    below, above = term_bounds(anchors)
    budget = sum(anchor.weight[anchor.chosen] for anchor in anchors)
    read = sum(anchor.term_values[anchor.chosen] for anchor in anchors)
    for way in itertools.product(*(range(len(anchor.weight)) for anchor in anchors)):
        if sum(anchor.weight[k] for anchor, k in zip(anchors, way, strict=True)) == budget:
            moved = sum(anchor.term_values[k] for anchor, k in zip(anchors, way, strict=True)) - read
            assert (-below - 1e-9 <= moved).all()
            assert (moved <= above + 1e-9).all()


@given(st.lists(EIGHTHS, min_size=1, max_size=6), st.data())
def test_the_bounds_are_reached_where_all_weights_are_equal(worths: list[float], data: st.DataObject) -> None:
    held = data.draw(st.integers(0, len(worths)))
    anchors = [
        Alternatives(np.array([1.0, 0.0]), np.array([[term_values] * TERMS, [0.0] * TERMS]), int(at >= held))
        for at, term_values in enumerate(worths)
    ]
    below, above = term_bounds(anchors)
    ranked = sorted(worths)
    assert below == pytest.approx(sum(worths[:held]) - sum(ranked[:held]))
    assert above == pytest.approx(sum(ranked[len(ranked) - held :]) - sum(worths[:held]))


def test_without_alternatives_there_is_no_deviation() -> None:
    assert term_bounds([]) is NO_ALTERNATIVES


@pytest.fixture(scope="module")
def entropy() -> SavedCase:
    """Some sixty anchors that are right to the last bit, of which twelve are held."""
    return load(ENTROPY)


def trial(saved: SavedCase, factory: Callable[[LossSpec], Criterion]) -> Trial:
    """A candidate on the saved batch."""
    return trial_of(saved.case, Contender("candidate", "", factory, arithmetic="float32"), saved.setting)


def test_the_bounds_of_an_inferred_assignment_hold_the_observed_terms(entropy: SavedCase) -> None:
    shown = trial(entropy, other_rounding)
    own = shown.loss(shown.own_assignment())
    assert max(quantity.worst_ratio for quantity in own.values()) <= 1
    inferred = trial(entropy, other_rounding_silent).inferred()
    assert any(one.bounds is not NO_ALTERNATIVES for one in inferred)


class Scaled(LossOnly):
    """One term has a wrong value and the right gradient."""

    def __init__(self, spec: LossSpec, term: int, factor: float) -> None:
        super().__init__(other_rounding(spec))
        self.scale = torch.ones(TERMS)
        self.scale[term] = factor

    def __call__(self, preds: Any, batch: Any) -> LossAndItems:
        """The other's answer, that term scaled."""
        loss, items = super().__call__(preds, batch)
        return loss + (loss * (self.scale - 1)).detach(), items


@pytest.mark.parametrize("term", range(TERMS))
@pytest.mark.parametrize("factor", [0.5, 1.5])
def test_a_term_beyond_the_bounds_differs(entropy: SavedCase, term: int, factor: float) -> None:
    wrong = Contender("wrong", "", lambda spec: Scaled(spec, term, factor), arithmetic="float32")
    assert compare(entropy.case, entropy.setting, [wrong], REFERENCE, stages=("loss",)).verdict is Verdict.DIFFER
