"""Predictions and targets of pose cases, and the flow."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

import numpy as np
import pytest
import torch

from oracle.cases.build import build
from oracle.cases.case import Box, Case, Prediction, PredictionKind, Setting
from oracle.cases.tasks.flow import Flow
from oracle.cases.tasks.pose import PoseTask, anchors_of, shares
from oracle.definition.keypoints import decoded_keypoints
from twinloss import PoseSpec

KINDS: tuple[PredictionKind, ...] = tuple(kind for kind in get_args(PredictionKind) if kind != "inline")
SPEC = PoseSpec(num_classes=2, reg_max=1, strides=(8, 16), keypoint_shape=(3, 3), generation=2, flow=True)
POINTS = (10.0, 12.0, 2.0, 30.0, 20.0, 1.0, 70.0, -5.0, 0.0)
CASE = Case(SPEC, (64, 96), 1, (Box(0, 1, 24, 20, 40, 32),), extras={"keypoints": (POINTS,)})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("generation", [1, 2])
def test_every_kind_has_finite_predictions_with_the_same_bits_on_every_call(kind: PredictionKind, generation: Literal[1, 2]) -> None:
    case = replace(CASE, spec=replace(SPEC, generation=generation, flow=generation == 2), prediction=Prediction(kind, 3))
    found, again = PoseTask().predictions(case), PoseTask().predictions(case)
    assert set(found) == {"boxes", "scores", "kpts", *(["kpts_sigma"] if generation == 2 else [])}
    assert found["kpts"].shape == (1, 9, case.num_anchors)
    for name, array in found.items():
        assert array.dtype == np.float32
        assert np.isfinite(array).all()
        assert (array == again[name]).all()


@pytest.mark.parametrize("generation", [1, 2])
def test_exact_predictions_decode_to_the_targets(generation: Literal[1, 2]) -> None:
    case = replace(CASE, spec=replace(SPEC, generation=generation, flow=False), prediction=Prediction("exact", 1))
    preds, _ = build(case, Setting("float64"))
    centres, strides = (torch.from_numpy(part).double() for part in anchors_of(case))
    raw = preds["kpts"].detach().transpose(1, 2).unflatten(2, (3, 3))[0]
    found = decoded_keypoints(raw, centres, generation) * strides[:, None, None]
    target = torch.tensor(POINTS, dtype=torch.float64).view(3, 3)
    inside = ((centres * strides[:, None] - torch.tensor([24.0, 20.0])).abs() < torch.tensor([20.0, 16.0])).all(1)
    assert (found[inside] - target[:, :2]).abs().max() < 1e-4
    assert (raw[inside][..., 2].sign() == torch.tensor([1.0, 1.0, -1.0])).all()


def test_raw_deviations_lie_at_both_ends() -> None:
    raw = PoseTask().predictions(replace(CASE, prediction=Prediction("saturated", 0)))["kpts_sigma"]
    assert raw.min() < -88 < 30 < raw.max()
    assert (np.abs(raw + 9.7) < 0.2).any()


def test_evaluation_has_no_deviations() -> None:
    assert "kpts_sigma" not in build(replace(CASE, options={"evaluation": 1.0})).preds


def test_targets_keep_two_or_three_numbers() -> None:
    _, batch = build(CASE)
    assert batch["keypoints"].shape == (1, 3, 3)
    torch.testing.assert_close(batch["keypoints"][0, 1], torch.tensor([30 / 96, 20 / 64, 1.0]))
    two = replace(CASE, extras={"keypoints": ((10.0, 12.0, 30.0, 20.0, 70.0, -5.0),)})
    assert build(two).batch["keypoints"].shape == (1, 3, 2)
    assert build(replace(CASE, boxes=(), extras={})).batch["keypoints"].shape == (0, 3, 3)


def test_keypoints_without_a_column_lie_in_their_box() -> None:
    found = shares(replace(CASE, extras={}))[0] * np.array([96, 64, 1])
    assert (np.abs(found[:, :2] - [24, 20]) <= [10, 8]).all()
    assert (found[:, 2] == 2).all()


def test_the_flow_is_a_density_and_far_from_the_identity() -> None:
    flow, steps = Flow(), torch.linspace(-20, 20, 401, dtype=torch.float64)
    with torch.no_grad():
        density = flow.log_prob(torch.cartesian_prod(steps, steps)).exp()
        near = torch.tensor([[0.5, -0.5]], dtype=torch.float64)
        normal = -near.square().sum() / 2 - float(np.log(2 * np.pi))
        assert float(density.sum() * 0.1**2) == pytest.approx(1, abs=1e-4)
        assert abs(float(flow.log_prob(near)) - float(normal)) > 0.1


def test_the_flow_computes_in_the_dtype_of_its_argument_and_keeps_its_parameters() -> None:
    flow = Flow()
    before = {name: parameter.detach().clone() for name, parameter in flow.named_parameters()}
    flow.log_prob(torch.ones(2, 2)).sum().backward()
    assert flow.log_prob(torch.ones(2, 2)).dtype == torch.float32
    for name, parameter in flow.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float64
