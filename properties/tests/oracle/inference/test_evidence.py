"""The evidence of gradients: what the negative log-likelihood of an observation is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from oracle.inference.evidence import PairEvidence, WeightInterval, pair_evidence
from properties.tests.oracle.judge.helpers import TWIN, ordinary, trial_of


@pytest.fixture(scope="module")
def observed() -> tuple[PairEvidence, WeightInterval]:
    """Evidence of the twin's gradients at the anchors that it assigns, and its soft targets."""
    trial = trial_of(ordinary(2), TWIN)
    held, allowed, arithmetic = trial.own_assignment(), trial.allowed, trial.arithmetic
    pair = allowed.margins.lookup(held.cell, held.box)
    evidence = pair_evidence(trial.outcome().on_host(), allowed, pair, trial.definition, arithmetic)
    return evidence, WeightInterval(held.weight, held.weight, held.weight)


@pytest.mark.parametrize("times", [1.0, 3.0, 8.0])
def test_a_score_counts_half_the_square_of_its_misfit(observed: tuple[PairEvidence, WeightInterval], times: float) -> None:
    evidence, expected = observed
    rate = evidence.rate
    assert rate is not None
    right = rate * evidence.score_gradient * (1 / (1 + np.exp(-evidence.logit)) - expected.value)
    _, tolerance = evidence._tolerances(expected.value, rate)
    found = [dataclasses.replace(evidence, observed_score=right + far * tolerance)._nll(expected.value, rate) for far in (0.0, times)]
    np.testing.assert_allclose(found[1] - found[0], times**2 / 2, rtol=1e-6)


def test_the_bins_of_a_side_count_as_one_observation(observed: tuple[PairEvidence, WeightInterval]) -> None:
    evidence, expected = observed
    rate = evidence.rate
    assert rate is not None
    tolerance, _ = evidence._tolerances(expected.value, rate)
    right = rate * expected.value[:, None] * evidence.box_gradient
    found = [dataclasses.replace(evidence, observed_boxes=right + far * tolerance)._nll(expected.value, rate) for far in (0.0, 3.0)]
    np.testing.assert_allclose(found[1] - found[0], 4 * 3.0**2 / 2, rtol=1e-6)
