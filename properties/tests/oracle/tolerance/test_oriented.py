"""Margins and tolerances of oriented boxes hold the reference's roundings, and tell small faults from them."""

from __future__ import annotations

import dataclasses
import math
import random

import numpy as np
import pytest
import torch

from oracle.cases.build import build
from oracle.cases.case import Box, Case, Prediction, PredictionKind, Setting
from oracle.contract.run import run_given
from oracle.contract.verdict import Verdict
from oracle.definition.oriented_formulas import decoded_boxes, probiou
from oracle.judge.loss_and_gradients import outcome_errors
from oracle.judge.stages_before_assignment import judge_candidates, match_pairs, metric_errors
from oracle.judge.truth import DefinitionAnswers
from oracle.reference.oriented import ReferenceOriented
from oracle.tolerance.allowed_assignments import TieRules
from oracle.tolerance.precision import precision_of
from oracle.tolerance.probiou_rounding import BoxPair, Roundoffs, distance_interval, distance_slopes, slope_in_distance
from twinloss import OrientedSpec

SETTINGS = (Setting("float64"), Setting("float32"), Setting("bfloat16"), Setting("float32", autocast="bfloat16"))
KINDS: tuple[PredictionKind, ...] = ("random", "near", "exact", "late", "saturated", "zeros")
SINGLE = Roundoffs(2.0**-24, 2.0**-24)
SPEC = OrientedSpec(num_classes=1, reg_max=1, strides=(8,))
RULES = TieRules(ties="reference")


def drawn(seed: int) -> Case:
    """A small batch of boxes of many shapes."""
    r = random.Random(seed)
    spec = OrientedSpec(num_classes=2, reg_max=r.choice((1, 4, 16)), strides=r.choice(((8,), (8, 16))))
    rows = [Box(n // 4, r.randrange(2), r.uniform(8, 88), r.uniform(8, 56), r.uniform(4, 60), r.uniform(3, 40)) for n in range(8)]
    rows.append(Box(1, 0, 40, 30, 90, 3))
    angles = tuple(r.choice((0.0, math.pi / 2, r.uniform(-math.pi / 4, 3 * math.pi / 4))) for _ in rows)
    prediction = Prediction(KINDS[seed % len(KINDS)], seed, 0.2 if KINDS[seed % len(KINDS)] == "near" else 1.0)
    return Case(spec, (64, 96), 2, tuple(rows), prediction, extras={"angle": angles})


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_the_reference_stays_within_every_tolerance(setting: Setting) -> None:
    for seed in range(6):
        case = drawn(seed)
        definition, precision, reference = DefinitionAnswers(case, setting), precision_of(setting, "logits"), ReferenceOriented(case.spec)
        margins, inputs = definition.margins(precision), build(case, setting)
        found = reference.metrics(*inputs)
        matched = match_pairs(found, margins)
        assert judge_candidates(found, matched, margins, definition.layout).verdict is not Verdict.DIFFER
        ratios = {error.quantity: error.worst_ratio for error in metric_errors(found, matched, margins, definition.layout, precision)}
        held = definition.decided(precision, RULES).held
        expected = definition.expected(held, definition.weights(held, precision, RULES), precision, given=True)
        outcome = run_given(reference, inputs, setting, expected.assignment, terms=case.spec.terms)
        if outcome.loss.isfinite().all():
            ratios |= {name: error.worst_ratio for name, error in outcome_errors(outcome, expected, definition.layout).items()}
        assert max(ratios.values()) < 1, (seed, ratios)


@pytest.mark.parametrize("share", [1e-4, 1e-3])
def test_a_slightly_wrong_number_exceeds_its_tolerance(share: float) -> None:
    case, setting = dataclasses.replace(drawn(5), prediction=Prediction("early", 3)), Setting("float32")
    definition, precision = DefinitionAnswers(case, setting), precision_of(setting, "float32")
    held = definition.decided(precision, RULES).held
    expected = definition.expected(held, definition.weights(held, precision, RULES), precision, given=True)
    truth = expected.truth
    gradients = {name: gradient * (1 + share) for name, gradient in truth.gradients.items()}
    wrong = dataclasses.replace(truth, loss=truth.loss * (1 + share), gradients=gradients)
    errors = outcome_errors(wrong, expected, definition.layout)
    assert {name: error.worst_ratio > 1 for name, error in errors.items() if name != "items"} == {
        "loss": True, "gradient of boxes": True, "gradient of scores": True, "gradient of angle": True,
    }  # fmt: skip
    assert all(element.ratio > 1 for element in errors["loss"].elements)


class TestBorders:
    def margins(self, *boxes: tuple[float, float, float, float, float]) -> tuple[np.ndarray, np.ndarray]:
        rows, angles = tuple(Box(0, 0, *box[:4]) for box in boxes), tuple(box[4] for box in boxes)
        case = Case(SPEC, (64, 64), 1, rows, Prediction("zeros"), extras={"angle": angles})
        pairs = DefinitionAnswers(case, Setting("float32")).margins(precision_of(Setting("float32"), "float32")).pairs
        return pairs.border, pairs.border_tolerance

    def test_a_border_of_an_upright_box_of_round_numbers_is_decided(self) -> None:
        border, tolerance = self.margins((28, 20, 16, 32, 0.0))
        assert len(border) == 15
        assert (border > tolerance).all()

    def test_a_border_of_a_turned_box_is_open(self) -> None:
        border, tolerance = self.margins((28, 20, 16, 32, math.pi))
        assert ((np.abs(border) < tolerance).sum(), len(border)) == (12, 15)

    @pytest.mark.parametrize(("width", "is_open"), [(64, False), (40, True)])
    def test_a_side_of_two_pixels_is_open_where_its_share_is_rounded(self, width: int, is_open: bool) -> None:
        case = Case(SPEC, (64, width), 1, (Box(0, 0, 20, 20, 2, 9),), Prediction("zeros"))
        boxes = DefinitionAnswers(case, Setting("float32")).margins(precision_of(Setting("float32"), "float32")).boxes
        assert (boxes.valid.tolist(), boxes.validity_open.tolist()) == ([True], [is_open])


class TestProbIoUInterval:
    def pair(self, w: float, h: float, shift: float = 0.0, angle: float = 0.3) -> BoxPair:
        truth = torch.tensor([[3.0, 2, w, h, angle]], dtype=torch.float64)
        moved = truth + torch.tensor([[shift, 0, 0, 0, 0]], dtype=torch.float64)
        return BoxPair(moved, torch.zeros_like(moved), truth, torch.zeros_like(truth))

    def test_the_interval_grows_with_the_square_of_the_aspect(self) -> None:
        found = [distance_interval(self.pair(length, 1.0, 0.05), 0.0, 1e-7, SINGLE) for length in (1.0, 10.0, 100.0)]
        one, ten, hundred = (float(interval.high - interval.value) for interval in found)
        assert 5 < ten / one < 100
        assert 50 < hundred / ten < 130

    def test_an_unturned_box_has_no_cancellation(self) -> None:
        turned, upright = (distance_interval(self.pair(40, 1, 0.05, angle), 0.0, 1e-7, SINGLE) for angle in (0.3, 0.0))
        assert float(upright.high - upright.low) < float(turned.high - turned.low) / 50

    def test_a_hopeless_box_may_have_any_overlap(self) -> None:
        found = distance_interval(self.pair(1e5, 1.0, 0.05), 0.0, 1e-7, SINGLE)
        assert (float(found.low), float(found.high)) == (-math.inf, math.inf)

    def test_the_slopes_are_those_of_the_definition(self) -> None:
        numbers = torch.tensor([[4.0, 3.0, 5.0, 2.5, 0.4], [2, 2, 2, 2, -1.0]], dtype=torch.float64)
        centres = torch.tensor([[10.0, 4], [3, 3]], dtype=torch.float64)
        truth = torch.tensor([[10.6, 4.2, 8, 5, 0.9], [3.5, 3, 5, 4, -0.7]], dtype=torch.float64)
        leaf = numbers.clone().requires_grad_()
        boxes = decoded_boxes(leaf[:, :4], leaf[:, 4], centres)
        (expected,) = torch.autograd.grad(-probiou(boxes, truth, 0.01, 1e-7).sum(), leaf)
        pair = BoxPair(boxes.detach(), torch.zeros_like(boxes), truth, torch.zeros_like(truth))
        slopes = distance_slopes(numbers, centres, pair, 0.01, 1e-7, SINGLE)
        root = slope_in_distance(distance_interval(pair, 0.01, 1e-7, SINGLE), 1e-7, SINGLE)
        torch.testing.assert_close(slopes.value * root.value[:, None], expected, rtol=1e-9, atol=1e-12)
        assert (slopes.tolerance < 1e-5 * (1 + slopes.value.abs())).all()
