"""The definition of the pose losses: by hand on small batches, and equal to the reference in float64."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle.cases.build import build
from oracle.cases.case import Case, Inputs, Prediction, Setting
from oracle.cases.tasks.flow import Flow
from oracle.contract.run import run_assign, run_loss
from oracle.definition import keypoints
from oracle.definition.end_to_end import ExactEndToEnd
from oracle.definition.pose import ExactPose
from oracle.reference.criterion import declines
from oracle.reference.pose import ReferenceEndToEndPose, ReferencePose
from properties.divergences.keypoint_cases import LIKELIHOOD, ONE, SECOND, pose_case, with_predictions
from properties.divergences.small_cases import box
from properties.strategies import TINY
from properties.strategies.pose import pose_cases
from twinloss import PoseSpec

DOUBLE = Setting("float64")


def spec_of(case: Case) -> PoseSpec:
    assert isinstance(case.spec, PoseSpec)
    return case.spec


def terms(case: Case, **options: Any) -> dict[str, float]:
    """The terms of the definition by name, without gain and number of images."""
    spec = spec_of(case)
    loss = run_loss(ExactPose(spec, flow=Flow(), **options), build(case, DOUBLE), DOUBLE, terms=spec.terms).loss
    return {name: float(term) / gain / case.batch_size for name, term, gain in zip(spec.terms, loss, spec.term_gains, strict=True)}


@settings(max_examples=settings().max_examples // 2)
@given(case=pose_cases(TINY))
def test_float64_equals_the_reference(case: Case) -> None:
    spec, inputs = spec_of(case), build(case, DOUBLE)
    if declines(spec, inputs, DOUBLE):
        return
    ours, theirs = Flow(), Flow()
    exact = ExactPose(spec, "reference", flow=ours)
    reference = ReferencePose(spec, flow=theirs)
    truth = run_loss(exact, inputs, DOUBLE, terms=spec.terms, flow=ours if spec.flow else None)
    found = run_loss(reference, inputs, DOUBLE, terms=spec.terms, flow=theirs if spec.flow else None)
    held, expected = run_assign(exact, inputs, DOUBLE), run_assign(reference, inputs, DOUBLE)
    if not torch.equal(held.anchor, expected.anchor) or not torch.equal(held.box, expected.box):
        return  # a tie or a border within the rounding of float64; the differential run tells them from differences
    assert truth.missing == found.missing
    torch.testing.assert_close(found.loss, truth.loss, rtol=1e-10, atol=1e-10)
    for name, gradient in truth.gradients.items():
        scale = 1 + float(gradient.abs().max()) if gradient.numel() else 1.0
        if not _at_a_kink(case):
            torch.testing.assert_close(found.gradients[name], gradient, rtol=1e-10, atol=1e-10 * scale)


def _at_a_kink(case: Case) -> bool:
    """Whether predictions may coincide with the truth to within rounding, so that gradients jump."""
    return case.prediction.kind in ("exact", "zeros") or case.prediction.spread == 0


@settings(max_examples=settings().max_examples // 10)
@given(case=pose_cases(TINY), epochs=st.integers(1, 4), updates=st.integers(0, 5))
def test_end_to_end_equals_the_reference(case: Case, epochs: int, updates: int) -> None:
    spec = replace(spec_of(case), topk=10, topk2=None, alpha=0.5, beta=6.0)
    case = replace(case, spec=spec, prediction=Prediction("random", case.prediction.seed))
    if case.boxes and case.num_anchors < 10:
        return
    sets = {
        name: build(replace(case, prediction=replace(case.prediction, seed=k)), DOUBLE) for k, name in enumerate(("one2many", "one2one"))
    }
    preds, batch = {name: inputs.preds for name, inputs in sets.items()}, sets["one2many"].batch
    flow = {"flow": Flow()} if spec.flow else {}
    ours = ExactEndToEnd(spec, generation=2, epochs=epochs, ties="reference", **flow)
    theirs = ReferenceEndToEndPose(spec, epochs=epochs, **flow)
    theirs(preds, batch)
    for _ in range(updates):
        ours.update()
        theirs.update()
    found, expected = ours(preds, batch), theirs(preds, batch)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-9, atol=1e-9)
    assert found[1].keys() == expected[1].keys()


def test_the_smallest_case_with_weightless_members() -> None:
    # Section 5 of the specification: ten anchors are held, none has a weight.
    case = with_predictions(pose_case(box(0, 0, 64, 64), size=(64, 64)), 0.0)
    assert terms(case, ties="reference")["pose"] * 12 == pytest.approx(0.132, abs=5e-4)
    assert terms(case)["pose"] == 0
    assert len(run_assign(ExactPose(spec_of(case), "reference"), build(case, DOUBLE), DOUBLE)) == 10


def test_location_and_visibility_by_hand() -> None:
    # All anchors hold the box with K = 16, and are as likely: the mean over the four anchors inside a box of 16 px.
    case = with_predictions(pose_case(box(8, 8, 24, 24), topk=16), 1.0)
    costs, area = [], 4.0
    for x in (-0.5, 0.5):
        for y in (-0.5, 0.5):
            decoded = (x - 0.5, y - 0.5)  # raw numbers are 0: half a cell before the centre
            costs.append(1 - math.exp(-(decoded[0] ** 2 + decoded[1] ** 2) / (8 * area)))
    found = terms(case)
    assert found["pose"] == pytest.approx(sum(costs) / 4, rel=1e-8)
    assert found["kobj"] == pytest.approx(math.log(2), rel=1e-12)


def test_a_tie_in_similarity_needs_no_dtype() -> None:
    # A similarity of e^-5000 is 0 in float64, but the nearest anchors are picked all the same.
    case = pose_case(box(0, 0, 32, 32), points=(((0.0, 0.0, 2.0),),), topk=2, sigmas=(0.001,), **SECOND)
    held = run_assign(ExactPose(spec_of(case)), build(with_predictions(case, 2.0), DOUBLE), DOUBLE)
    assert held.anchor.tolist() == [0, 1]
    assert held.weight.tolist() == [0, 0]


def test_the_gate_refuses_levels_but_leaves_no_box_without_candidates() -> None:
    preds, batch = build(pose_case(box(0, 0, 128, 128), size=(128, 128), strides=(8, 16), **SECOND), DOUBLE)
    spec = PoseSpec(num_classes=1, reg_max=1, strides=(8, 16), keypoint_shape=(1, 3), generation=2)
    (trace,) = ExactPose(spec).trace(preds, batch)
    assert not trace.candidate[0, :256].any()  # 128 > 12 · 8
    assert trace.candidate[0, 256:].any()
    thin = pose_case(box(25, -296, 39, 424), size=(128, 128), strides=(8, 16, 32), **SECOND)  # 14 × 720 px, centred on 32
    (trace,) = ExactPose(spec_of(thin)).trace(*build(thin, DOUBLE))
    assert trace.candidate[0, :256].any()
    assert not trace.candidate[0, 256:].any()


@pytest.mark.parametrize(
    ("root", "stride", "fits"), [(16.0, 8, True), (15.99, 8, False), (96.0, 8, True), (96.1, 8, False), (5.0, 4, True)]
)
def test_both_borders_of_the_gate_belong_to_it(root: float, stride: int, fits: bool) -> None:
    strides = torch.tensor([4.0, 8.0, 64.0], dtype=torch.float64)
    extent = torch.tensor([root], dtype=torch.float64)
    found = keypoints.large_enough(extent, strides) & keypoints.small_enough(extent, strides)
    assert bool(found[0, strides.tolist().index(stride)]) == fits


def test_constants() -> None:
    assert float(keypoints.squared_constants(None, (17, 3), torch.float64)[0]) == pytest.approx(8 * 0.026**2, rel=1e-6)
    assert keypoints.squared_constants(None, (17, 2), torch.float64).tolist() == [8 / 17**2] * 17
    assert keypoints.squared_constants((0.5,), (1, 3), torch.float64).tolist() == [2.0]
    assert keypoints.likelihood_weights((17, 3)).sum() == pytest.approx(9 + 4 * 1.2 + 4 * 1.5, rel=1e-6)


def test_the_likelihood_is_silent_below_zero_and_floors_the_deviation() -> None:
    exact = replace(LIKELIHOOD, prediction=Prediction("exact", 2))
    assert terms(exact)["likelihood"] == 0
    low = with_predictions(pose_case(ONE, generation=2, flow=True), 1.0, sigma=-800.0)
    assert math.isfinite(terms(low)["likelihood"])


def _without(inputs: Inputs) -> Inputs:
    return Inputs(inputs.preds, {name: value for name, value in inputs.batch.items() if name != "keypoints"})


@pytest.mark.parametrize(
    ("key", "change", "said"),
    [
        ("keypoints", lambda points: points[:0], r"keypoints have the shape \(0, 1, 3\)"),
        ("keypoints", lambda points: points * float("nan"), "row 0 of the keypoints: a visibility must be"),
        ("kpts", lambda raw: raw[:, :2], r"kpts should be \(1, 3, 16\); it is \(1, 2, 16\)"),
        ("kpts_sigma", lambda raw: raw[..., 1:], r"kpts_sigma should be \(1, 2, 16\); it is \(1, 2, 15\)"),
    ],
)
def test_invalid_inputs_are_named(key: str, change: Any, said: str) -> None:
    inputs = build(LIKELIHOOD, DOUBLE)
    preds, batch = ({name: change(value.detach()) if name == key else value for name, value in part.items()} for part in inputs)
    with pytest.raises(ValueError, match=said):
        ExactPose(spec_of(LIKELIHOOD), flow=Flow())(preds, batch)


def test_missing_keypoints_matter_only_with_boxes() -> None:
    exact = ExactPose(spec_of(pose_case(**SECOND)))
    exact(*_without(build(pose_case(**SECOND), DOUBLE)))
    with pytest.raises(ValueError, match="1 boxes and no keypoints"):
        exact(*_without(build(pose_case(ONE, **SECOND), DOUBLE)))


def test_a_likelihood_needs_a_flow() -> None:
    with pytest.raises(ValueError, match="give the flow as flow="):
        ExactPose(spec_of(LIKELIHOOD))
