"""The judge at kinks: any number in the interval has no error, and the ratio measures rounding alone."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor

from oracle.cases.case import Box, Case, Prediction, Setting
from oracle.cases.logits import inline_text
from oracle.cases.noise import Noise
from oracle.comparison.compare import compare
from oracle.comparison.registry import load_candidate, shipped
from oracle.comparison.rows import Run, rows_of
from oracle.contract.contender import Contender
from oracle.contract.run import make_criterion, run_given, with_gradient
from oracle.contract.verdict import Verdict
from oracle.definition.formulas import ciou, corners_of
from oracle.judge.loss_and_gradients import Expected, outcome_errors
from oracle.judge.truth import DefinitionAnswers
from oracle.judge.worst_elements import QuantityError, WorstElement, judge_quantity
from oracle.tolerance.allowed_assignments import TieRules
from oracle.tolerance.assignment import IndexedAssignment, Weights
from oracle.tolerance.held_anchors import BoxPart, HeldAnchors, box_part, held_anchors
from oracle.tolerance.kinks import Facts, in_order, overlap_extent, possible_facts, slopes
from oracle.tolerance.precision import precision_of
from properties.strategies.kinks import kinked_cases
from properties.tests.oracle.judge.helpers import FLOAT32, FLOAT64, REFERENCE, TWIN, ordinary, silent, trial_of
from twinloss import Assignment, LossSpec

SETTINGS = tuple(Setting(dtype) for dtype in ("float32", "float64", "bfloat16", "float16"))
SHIPPED = shipped()
RIGHT = (
    SHIPPED["reference"],
    SHIPPED["twin"],
    SHIPPED["twin-torch"],
    load_candidate("properties.selfcheck.sample_candidates:other_rounding"),
)
STAGES = ("assign", "loss_given", "loss")
BOUNDED = settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))


def everywhere(case: Case, setting: Setting, contender: Contender) -> dict[str, QuantityError] | None:
    """Returns a contender's errors where every possible candidate is held, which reaches kinks that no real assignment reaches."""
    definition = DefinitionAnswers(case, setting)
    if contender.declines and contender.declines(case.spec, definition.inputs, setting):
        return None
    arithmetic = precision_of(setting, contender.arithmetic)
    margins = definition.margins(arithmetic)
    cell, first = np.unique(margins.pairs.cell, return_index=True)
    box = margins.pairs.box[first]
    held = IndexedAssignment(cell, box, margins.boxes.row[box], np.ones(len(cell)))
    expected = definition.expected(held, Weights(held.weight, np.zeros(len(cell))), arithmetic, given=True)
    criterion = make_criterion(contender, case.spec, setting)
    outcome = run_given(criterion, definition.inputs, setting, expected.assignment)  # type: ignore[arg-type]
    return outcome_errors(outcome.on_host(), expected, definition.layout)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_a_correct_contender_agrees_at_kinks(setting: Setting) -> None:
    @BOUNDED
    @given(kinked_cases())
    def agrees(case: Case) -> None:
        comparison = compare(case, setting, RIGHT, REFERENCE, STAGES)
        assert comparison.verdict is not Verdict.DIFFER, comparison.report()

    agrees()


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_a_correct_contender_agrees_at_kinks_that_no_assignment_reaches(setting: Setting) -> None:
    @BOUNDED
    @given(kinked_cases())
    def agrees(case: Case) -> None:
        own = everywhere(case, setting, REFERENCE)
        for contender in RIGHT:
            for name, found in (everywhere(case, setting, contender) or {}).items():
                same = own is not None and contender.arithmetic == REFERENCE.arithmetic
                judgement = judge_quantity("loss_given", found, own[name] if own is not None and same else None)
                assert judgement.verdict is not Verdict.DIFFER, (contender.name, judgement.finding)

    agrees()


def test_the_slopes_are_the_definitions() -> None:
    noise = Noise(0)
    a, b = (torch.from_numpy(noise.uniform(2000, 4)).double() * 3 for _ in range(2))
    a[:, 2:] += a[:, :2]
    b[:, 2:] += b[:, :2]
    a = torch.where(torch.from_numpy(noise.uniform(2000, 4)) < 0.3, b, a).requires_grad_()
    (by_corner,) = torch.autograd.grad(ciou(a, b, 1e-7).sum(), a)
    outwards = torch.tensor([-1.0, -1.0, 1.0, 1.0])
    beyond = (a.detach() - b) * outwards
    within = torch.where(beyond < 0, 1.0, torch.where(beyond == 0, 0.5, 0.0)).double()
    overlapping = (overlap_extent(a.detach(), b) > 0).double().repeat(1, 2)
    found = slopes(a.detach(), b, 1e-7).given(Facts(within, overlapping))
    torch.testing.assert_close(found, by_corner * outwards, rtol=1e-12, atol=1e-12)


def test_a_fact_is_open_only_where_rounding_hides_it() -> None:
    a, tolerance = torch.tensor([[0.0, 0, 4, 4]], dtype=torch.float64), torch.full((1, 4), 1e-3, dtype=torch.float64)

    def known(b: list[float]) -> list[tuple[list[float], list[float]]]:
        facts = possible_facts(a, tolerance, torch.tensor([b], dtype=torch.float64), tolerance)
        return [(fact.within[0].tolist(), fact.overlapping[0].tolist()) for fact in facts]

    assert known([1, -1, 5, 3]) == [([0, 1, 1, 0], [1, 1, 1, 1])]
    assert known([0.0015, -1, 5, 3]) == [([end, 1, 1, 0], [1, 1, 1, 1]) for end in (0, 1)]
    assert known([4.001, -1, 5, 3]) == [([0, 1, 1, 0], [end, 1, end, 1]) for end in (0, 1)]
    assert known([4.003, -1, 5, 3]) == [([0, 1, 1, 0], [0, 1, 0, 1])]


@pytest.mark.parametrize(
    ("dtype", "claim"), [("float32", "float32"), ("bfloat16", "float32"), ("bfloat16", "logits"), ("float16", "logits")]
)
def test_what_rounding_of_the_corners_leads_to_is_within_the_bounds(dtype: str, claim: str) -> None:
    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
    @given(kinked_cases())
    def holds(case: Case) -> None:
        held, eps, rounding = _held(case, Setting(dtype), claim)  # type: ignore[arg-type]
        part = box_part(held, eps, rounding)
        # A box of few roundings is moved in some ways only: what lies in between may be a little farther, in half precision alone.
        assert _used(held, part, eps) < (1.1 if claim == "float32" else 30)

    holds()


def _held(case: Case, setting: Setting, claim: str) -> tuple[HeldAnchors, float, float]:
    arithmetic, definition = precision_of(setting, claim), DefinitionAnswers(case, setting)
    margins = definition.margins(arithmetic)
    image, anchor = np.divmod(margins.pairs.cell, margins.anchors)
    parts = (image, anchor, margins.boxes.row[margins.pairs.box], np.ones(len(image)))
    every = Assignment(*(torch.from_numpy(part) for part in parts))
    held = held_anchors(definition.exact(TieRules()), *definition.inputs, every, arithmetic)
    return held, case.spec.ciou_eps, max(arithmetic.corner, arithmetic.evaluation)


def _used(held: HeldAnchors, part: BoxPart, eps: float) -> float:
    """Returns the largest distance of slopes from the interval, in roundings, over programs with randomly rounded corners."""
    errors = torch.cat([held.predicted_tolerance, held.corner_tolerance], 1)
    shifts = (torch.from_numpy(Noise(7).uniform(24, *errors.shape)).double() * 2 - 1) * errors
    at = corners_of(held.sides, held.centres)
    moved, truth = in_order(at, shifts[..., :4]).requires_grad_(), in_order(held.corners, shifts[..., 4:])
    outwards = torch.tensor([-1.0, -1.0, 1.0, 1.0])
    slope, own = (torch.autograd.grad(ciou(a, b, eps).sum(), a)[0] * outwards for a, b in ((moved, truth), _leaf(at, held.corners)))
    beyond = torch.maximum(own + part.lowest - slope, slope - own - part.highest).clamp(min=0)
    return float((beyond / part.slope_tolerance).nan_to_num(0).max()) if beyond.numel() else 0.0


def _leaf(at: Tensor, corners: Tensor) -> tuple[Tensor, Tensor]:
    return at.detach().clone().requires_grad_(), corners


def kink(sides: tuple[float, float, float, float]) -> Case:
    """Returns a box of 24 px and the distances, in cells, that anchor 27 predicts; the true ones are 1 to the left, 2 to the right."""
    distances = np.full((1, 4, 64), 1.0, np.float32)
    distances[0, :, 27] = sides
    box = Box(0, 0, 32.0, 28.0, 24.0, 24.0)
    scores = np.full((1, 1, 64), -2.0, np.float32)
    spec = LossSpec(num_classes=1, reg_max=1, strides=(8,), topk=1)
    return Case(spec, (64, 64), 1, (box,), Prediction("inline", inline=inline_text(distances, scores)))


def worst_at(expected: Expected, case: Case, channel: int, value: float) -> WorstElement:
    """Returns the worst element of the box gradient after one number of the held anchor is replaced."""
    grad = expected.truth.gradients["boxes"].clone()
    grad[0, channel, 27] = value
    outcome = with_gradient(expected.truth, "boxes", grad)
    return outcome_errors(outcome, expected, DefinitionAnswers(case, FLOAT32).layout)["gradient of boxes"].elements[0]


def test_a_number_at_a_kink_is_judged_by_its_distance_from_the_interval() -> None:
    case = kink((1.0, 1.6, 1.6, 1.6))
    expected = trial_of(case).standard(given=True)
    truth, bounds = float(expected.truth.gradients["boxes"][0, 0, 27]), expected.tolerance.boxes
    rounding, below, above = (float(bound[0, 0]) for bound in bounds)
    assert min(-below, above) > 1e4 * rounding > 0
    for end, outwards in ((below, -1), (above, 1)):
        for share in (0.0, 0.4, 1.0):
            worst = worst_at(expected, case, 0, truth + share * end)
            assert worst.ratio == pytest.approx(0, abs=1e-6)
            assert worst.kinks == 1
            assert worst.reach == pytest.approx(share)
        for roundings in (0.5, 3.0):
            worst = worst_at(expected, case, 0, truth + end + outwards * roundings * rounding)
            assert worst.ratio == pytest.approx(roundings, rel=1e-5)
            assert worst.reach == pytest.approx(1)


@pytest.mark.parametrize(("offset", "open_"), [(0.0, True), (1e-7, True), (-1e-7, True), (1e-3, False), (-1e-3, False)])
def test_a_kink_allows_its_one_sided_values_and_nothing_beyond(offset: float, open_: bool) -> None:
    trial = trial_of(kink((1.0 + offset, 1.6, 1.6, 1.6)))
    expected, layout = trial.standard(given=True), trial.definition.layout
    held = expected.assignment
    assert held.anchor.tolist() == [27]
    sides = [trial_of(kink((1.0 + shift, 1.6, 1.6, 1.6))).standard(given=True).truth.gradients["boxes"] for shift in (-1e-5, 1e-5)]
    jump = (sides[1] - sides[0])[0, 0, 27].abs()
    assert jump > 0.1
    truth = expected.truth.gradients["boxes"][0, 0, 27]

    def ratio_at(value: Tensor) -> float:
        grad = expected.truth.gradients["boxes"].clone()
        grad[0, 0, 27] = value
        return outcome_errors(with_gradient(expected.truth, "boxes", grad), expected, layout)["gradient of boxes"].worst_ratio

    for side in (grad[0, 0, 27] for grad in sides):
        own = bool((side - truth).abs() < jump / 4)
        assert (ratio_at(side) <= 1.001) == open_ or own
        assert open_ or own or ratio_at(side) > 100
    assert ratio_at(truth + 1.5 * jump) > 1
    assert ratio_at(truth - 1.5 * jump) > 1


@pytest.mark.parametrize("offset", [0.0, 1e-7])
def test_the_two_programs_pass_at_a_kink(offset: float) -> None:
    for setting in (FLOAT32, FLOAT64):
        comparison = compare(kink((1.0 + offset, 1.6, 1.6, 1.6)), setting, [REFERENCE, TWIN, silent(TWIN)], REFERENCE)
        assert comparison.verdict is not Verdict.DIFFER, comparison.report()


def test_a_prediction_that_is_right_may_be_rounded_on_top_of_a_kinks_end() -> None:
    """Its own slope is zero, which is no measure of the weight's or the normaliser's rounding."""
    case = kink((1.0, 1.5, 2.0, 1.5))
    expected = trial_of(case).standard()
    bounds = expected.tolerance.boxes
    weight, tolerance = float(expected.assignment.weight[0]), _tolerance_of(case)
    assert tolerance > 8 * 2.0**-24 * weight
    ends = bounds.above[0] * (1 + tolerance / weight)
    assert (expected.truth.gradients["boxes"][0, :, 27].abs() < 1e-3 * ends).all()
    elements = [
        worst_at(expected, case, channel, float(expected.truth.gradients["boxes"][0, channel, 27] + ends[channel])) for channel in range(4)
    ]
    assert all(worst.ratio < 1 for worst in elements)
    assert all(worst_at(expected, case, channel, 1.001 * float(ends[channel])).ratio > 1 for channel in range(4))


def _tolerance_of(case: Case) -> float:
    trial = trial_of(case)
    return float(trial.definition.weights(trial.decided.held, trial.arithmetic, trial.rules).tolerance[0])


def test_a_finding_at_a_kink_names_the_interval() -> None:
    case = kink((1.0, 1.6, 1.6, 1.6))
    expected = trial_of(case).standard(given=True)
    finding = judge_quantity("loss", QuantityError("gradient of boxes", (worst_at(expected, case, 0, 9.0),)), None).finding
    assert finding is not None
    assert ", at a kink: from " in finding.exact


def test_what_the_dtype_cannot_hold_is_infinite_in_every_program() -> None:
    case, setting = kink((1.0, 1.6, 1.6, 1.6)), Setting("float16")
    trial = trial_of(case, TWIN, setting)
    expected, layout = trial.standard(given=True), trial.definition.layout

    def worst_ratio_of(truth: float, value: float) -> float:
        grads = [expected.truth.gradients["boxes"].clone() for _ in range(2)]
        for grad, number in zip(grads, (truth, value), strict=True):
            grad[0, 1, 27] = number
        right, found = (with_gradient(expected.truth, "boxes", grad) for grad in grads)
        return outcome_errors(found, dataclasses.replace(expected, truth=right), layout)["gradient of boxes"].worst_ratio

    assert worst_ratio_of(-1e6, -math.inf) == worst_ratio_of(1e6, math.inf) == 0
    assert worst_ratio_of(-1e6, math.inf) > 1
    assert worst_ratio_of(6e4, math.inf) > 1
    assert worst_ratio_of(1e6, math.nan) == math.inf
    assert worst_ratio_of(1e6, 5.0) > 1


def test_kinks_are_counted_in_rows() -> None:
    rows = rows_of(compare(kink((1.0, 1.6, 1.6, 1.6)), FLOAT32, [TWIN], REFERENCE), Run("test", "0"))
    counted = {(row.stage, row.quantity): (row.kinks, row.kink_reach) for row in rows}
    assert counted["loss", "gradient of boxes"][0] == counted["loss_given", "gradient of boxes"][0] == 1
    assert 0 <= counted["loss", "gradient of boxes"][1] <= 1
    assert counted["loss", "loss"][0] == 0
    assert math.isnan(counted["loss", "loss"][1])
    assert sum(row.kinks for row in rows_of(compare(ordinary(), FLOAT32, [TWIN], REFERENCE), Run("test", "0"))) == 0
