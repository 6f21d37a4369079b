"""Margins and tolerances of pose: what rounding may do, it may do; what it may not, it may not."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from oracle.cases.build import build
from oracle.cases.case import Box, Case, Prediction, PredictionKind, Setting
from oracle.cases.tasks.flow import Flow
from oracle.contract.run import Outcome, run_assign, run_given
from oracle.definition.pose import ExactPose
from oracle.reference.pose import ReferencePose
from oracle.tolerance.held_anchors import Bounds
from oracle.tolerance.loss_and_gradients import OutcomeTolerance, outcome_tolerance
from oracle.tolerance.margins import margins_of
from oracle.tolerance.pose import PoseMargins
from oracle.tolerance.pose_terms import PoseTerms
from oracle.tolerance.precision import precision_of
from properties.divergences.keypoint_cases import SECOND, pose_case, with_predictions
from properties.divergences.small_cases import box
from twinloss import PoseSpec

SETTINGS = (
    Setting("float64"), Setting("float32"), Setting("float16"), Setting("bfloat16"), Setting("float32", autocast="bfloat16"),
)  # fmt: skip
KINDS: tuple[PredictionKind, ...] = ("random", "near", "exact", "saturated", "early", "late")
DOUBLE = Setting("float64")


def drawn(seed: int, generation: Any) -> Case:
    """A small batch of pose with keypoints in and about the boxes."""
    r = random.Random(seed)
    points = r.choice((1, 5, 17))
    spec = PoseSpec(
        num_classes=2, reg_max=r.choice((1, 4)), strides=(8, 16), keypoint_shape=(points, r.choice((2, 3))), generation=generation,
        flow=generation == 2,
    )  # fmt: skip
    boxes = [
        Box(r.randrange(2), r.randrange(2), r.uniform(8, 56), r.uniform(8, 56), r.uniform(16, 50), r.uniform(16, 50)) for _ in range(4)
    ]
    boxes.sort(key=lambda one: one.image)
    column = tuple(
        tuple(value for _ in range(points) for value in (b.cx + r.uniform(-1, 1) * b.w, b.cy + r.uniform(-1, 1) * b.h, r.choice((0, 1, 2))))
        for b in boxes
    )
    return Case(spec, (64, 64), 2, tuple(boxes), Prediction(r.choice(KINDS), seed), extras={"keypoints": column})


def answers(case: Case, setting: Setting) -> tuple[Outcome, Outcome, OutcomeTolerance]:
    """The definition's outcome, the reference's, and the tolerances, on the definition's assignment."""
    spec = case.spec
    assert isinstance(spec, PoseSpec)
    flows = [Flow(), Flow()] if spec.flow else [None, None]
    inputs, exact = build(case, setting), ExactPose(spec, flow=flows[0])
    held = run_assign(exact, inputs, setting)
    truth = run_given(exact, inputs, setting, held, terms=spec.terms, flow=flows[0])
    found = run_given(ReferencePose(spec, flow=flows[1]), inputs, setting, held, terms=spec.terms, flow=flows[1])
    classification = float(truth.loss[spec.terms.index("cls")])
    none = torch.zeros_like(held.weight)
    return truth, found, outcome_tolerance(exact, *inputs, held, none, classification, precision_of(setting, "logits"), PoseTerms())


def beyond(found: Tensor, expected: Tensor, bounds: Bounds) -> float:
    """The largest error ÷ tolerance of a gradient."""
    error = torch.maximum(expected + bounds.below - found, found - expected - bounds.above).clamp(min=0)
    return float((error / bounds.rounding).nan_to_num(0.0).max())


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
@pytest.mark.parametrize("generation", [1, 2])
def test_the_reference_keeps_to_every_tolerance(setting: Setting, generation: int) -> None:
    for seed in range(10):
        case = drawn(seed, generation)
        truth, found, tolerance = answers(case, setting)
        for name, value, right, allowed in zip(case.spec.terms, found.loss, truth.loss, tolerance.loss, strict=True):
            assert abs(value - right) <= allowed, (seed, name)
        for name, bounds in tolerance.further.items():
            gradient = found.gradients[name]
            if gradient.isfinite().all():
                assert beyond(gradient, truth.gradients[name], bounds) <= 1, (seed, name)


@pytest.mark.parametrize("generation", [1, 2])
def test_a_thousandth_is_beyond_the_tolerance_of_float32(generation: int) -> None:
    for seed in range(6):
        case = drawn(seed, generation)
        truth, _, tolerance = answers(case, Setting("float32"))
        for name in ("pose", "kobj", "likelihood"):
            if name in case.spec.terms:
                at = case.spec.terms.index(name)
                assert tolerance.loss[at] < 1e-3 * max(abs(float(truth.loss[at])), 0.1), (seed, name)


def test_anchors_without_box_have_no_gradient() -> None:
    truth, _, tolerance = answers(drawn(1, 2), Setting("float32"))
    bounds, held = tolerance.further["kpts"], truth.gradients["kpts"].abs().amax(1) > 0
    assert (bounds.rounding.amax(1)[~held] < 1e-4).all()
    assert (bounds.rounding == 0).any()


def margins(case: Case, setting: Setting = Setting("float32")) -> Any:
    assert isinstance(case.spec, PoseSpec)
    return margins_of(ExactPose(case.spec, flow=Flow()), *build(case, setting), precision_of(setting, "float32"), PoseMargins())


def test_a_side_within_rounding_of_the_gate_opens_its_level() -> None:
    numbers: dict[str, Any] = {"size": (128, 128), "strides": (8, 16), **SECOND}
    sure = margins(pose_case(box(0, 0, 96, 96), **numbers)).pairs
    assert (sure.cell < 256).any()  # 96 = 12 · 8, exactly
    assert sure.inside.all()
    near = margins(pose_case(Box(0, 0, 48.3, 48.3, 96.00001, 96.0), **numbers)).pairs
    assert not near.inside[near.cell < 256].any()
    assert near.inside[near.cell >= 256].all()
    beyond_it = margins(pose_case(box(0, 0, 97, 97), **numbers)).pairs
    assert not (beyond_it.cell < 256).any()


def test_boxes_are_twins_only_with_equal_keypoints() -> None:
    one, same, other = ((8.0, 8.0, 2.0),), ((8.0, 8.0, 1.0),), ((9.0, 8.0, 2.0),)
    hidden, place = ((9.0, 9.0, 0.0),), box(0, 0, 24, 24)
    case = pose_case(place, place, place, place, place, points=(one, same, other, hidden, hidden), **SECOND)
    assert margins(case).boxes.first_twin.tolist() == [0, 0, 2, 3, 3]
    first = pose_case(place, place, points=(one, other))
    assert margins(first).boxes.first_twin.tolist() == [0, 0]


def test_a_similarity_is_positive_however_small() -> None:
    case = pose_case(box(0, 0, 32, 32), points=(((0.0, 0.0, 2.0),),), sigmas=(0.001,), **SECOND)
    found = margins(with_predictions(case, 2.0), DOUBLE)
    assert (found.pairs.metric == 0).any()
    assert (found.ranked.metric_low > 0).all()
    nearest = found.ranked.metric.argmax()
    assert found.pairs.cell[nearest] == 0
    assert (found.ranked.metric_high[1:] < found.ranked.metric_low[nearest]).all()


def test_the_interval_holds_the_similarity() -> None:
    for seed in range(8):
        pairs = margins(drawn(seed, 2), Setting("bfloat16")).pairs
        assert (pairs.overlap_low <= pairs.overlap).all()
        assert (pairs.overlap <= pairs.overlap_high).all()
