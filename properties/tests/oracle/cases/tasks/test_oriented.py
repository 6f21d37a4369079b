"""Predictions of oriented cases: what each recipe promises of angles and decoded boxes."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from oracle.cases.build import build
from oracle.cases.case import Box, Case, Prediction, PredictionKind, Setting
from oracle.cases.logits import inline_text
from oracle.cases.tasks.oriented import ANGLE_ERRORS, OrientedTask
from oracle.definition.oriented import ExactOriented
from twinloss import OrientedSpec

FLOAT64 = Setting("float64")
ROWS = (Box(0, 1, 40, 40, 48, 20), Box(0, 0, 90, 80, 30, 30), Box(1, 1, 64, 64, 90, 16), Box(1, 0, 20, 20, 1, 9))
ANGLES = (0.4, -0.5, 2.0, 0.1)
KINDS: tuple[PredictionKind, ...] = ("random", "near", "exact", "saturated", "untrained", "early", "middle", "late", "zeros")


def case(kind: PredictionKind, reg_max: int = 1, spread: float = 1.0) -> Case:
    spec = OrientedSpec(num_classes=2, reg_max=reg_max, strides=(8, 16))
    return Case(spec, (128, 128), 2, ROWS, Prediction(kind, 3, spread), extras={"angle": ANGLES})


def overlaps(one: Case) -> torch.Tensor:
    traces = ExactOriented(one.spec).trace(*build(one, FLOAT64))
    return torch.cat([trace.overlap[trace.candidate] for trace in traces])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reg_max", [1, 16])
def test_every_kind_gives_finite_predictions_with_the_same_bits(kind: PredictionKind, reg_max: int) -> None:
    first, again = (OrientedTask().predictions(case(kind, reg_max)) for _ in range(2))
    shapes = {"boxes": (2, 4 * reg_max, 320), "scores": (2, 2, 320), "angle": (2, 1, 320)}
    assert {name: array.shape for name, array in first.items()} == shapes
    assert {array.dtype.name for array in first.values()} == {"float32"}
    assert all(np.isfinite(array).all() and array.tobytes() == again[name].tobytes() for name, array in first.items())


def test_targets_hold_the_angle_and_leave_it_alone() -> None:
    boxes = build(case("zeros")).batch["bboxes"]
    assert boxes.shape == (4, 5)
    assert boxes[:, 4].tolist() == [np.float32(angle) for angle in ANGLES]


@pytest.mark.parametrize("reg_max", [1, 16])
def test_exact_predictions_are_perfect(reg_max: int) -> None:
    # The last row is too small to be kept, and no anchor predicts it.
    best = 1 - math.sqrt(1 - math.exp(-1e-7) + 1e-7)
    found = overlaps(case("exact", reg_max))
    assert float((found > best - 1e-9).double().mean()) > 0.4


def test_predictions_turned_by_right_angles_are_the_same_rectangle() -> None:
    one = case("near", spread=0.0)
    angle = OrientedTask().predictions(one)["angle"]
    assert float((overlaps(one) > 0.9995).double().mean()) > 0.4
    turns = np.round((angle[0, 0][:, None] - np.array(ANGLES[:2])) / (math.pi / 2), 3)
    assert {0.0, 1.0, 2.0, 3.0} <= set(turns.reshape(-1).tolist())


def test_later_stages_are_nearer() -> None:
    means = [float(overlaps(case(kind)).topk(10).values.mean()) for kind in ("early", "middle", "late")]
    assert means == sorted(means)
    assert ANGLE_ERRORS["early"] > ANGLE_ERRORS["middle"] > ANGLE_ERRORS["late"]


def test_angles_of_free_recipes() -> None:
    older, newer = (OrientedTask().predictions(case("saturated", reg_max))["angle"] for reg_max in (16, 1))
    assert set(older.reshape(-1).tolist()) == {float(np.float32(-math.pi / 4)), float(np.float32(3 * math.pi / 4))}
    assert np.abs(newer).min() >= 30
    assert np.abs(OrientedTask().predictions(case("untrained", 16))["angle"] - math.pi / 4).max() < 0.5
    assert not OrientedTask().predictions(case("zeros"))["angle"].any()


def test_a_case_carries_its_predictions() -> None:
    near = case("near")
    inline = inline_text(**OrientedTask().predictions(near))
    carried = Case.from_json(dataclasses.replace(near, prediction=Prediction("inline", inline=inline)).to_json())
    for name, array in OrientedTask().predictions(near).items():
        assert OrientedTask().predictions(carried)[name].tobytes() == array.tobytes()
