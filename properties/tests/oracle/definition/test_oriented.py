"""The oriented definition: against the reference in float64, against arithmetic done by hand, and in its own symmetries."""

from __future__ import annotations

import dataclasses
import math
import random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from oracle.cases.build import build
from oracle.cases.case import Box, Case, Inputs, Prediction, PredictionKind, Setting
from oracle.contract.run import Outcome, double_precision, run_given, run_loss
from oracle.definition.end_to_end import ExactEndToEnd
from oracle.definition.oriented import ExactOriented
from oracle.definition.oriented_formulas import (
    angle_term,
    angle_weight,
    bhattacharyya,
    border_distance,
    decoded_boxes,
    probiou,
    side_distances,
    spreads,
)
from oracle.reference.end_to_end import ReferenceEndToEnd
from oracle.reference.oriented import ReferenceOriented
from twinloss import OrientedSpec

FLOAT64 = Setting("float64")
KINDS: tuple[PredictionKind, ...] = ("random", "near", "untrained", "saturated", "late", "early", "exact", "zeros")
EPS = 1e-7


def spec_of(**numbers: Any) -> OrientedSpec:
    usual: dict[str, Any] = {"num_classes": 1, "reg_max": 4, "strides": (8,)}
    return OrientedSpec(**usual | numbers)


def one_box(x: float, y: float, w: float, h: float, angle: float, size: tuple[int, int] = (32, 32), **numbers: Any) -> Case:
    return Case(spec_of(**numbers), size, 1, (Box(0, 0, x, y, w, h),), Prediction("zeros"), extras={"angle": (angle,)})


def drawn(seed: int) -> Case:
    """A small random batch, with long boxes, tiny ones and copies among the others."""
    r = random.Random(seed)
    height, width, images, classes = 32 * r.randint(2, 4), 32 * r.randint(2, 4), r.randint(1, 3), r.randint(1, 3)
    numbers = {
        "num_classes": classes,
        "reg_max": r.choice((1, 4, 16)),
        "strides": r.choice(((8, 16, 32), (8,))),
        "topk": r.choice((10, 7, 1)),
    }
    weights = r.choice((None, tuple(r.uniform(0.2, 3) for _ in range(classes))))
    rows = []
    for image in range(images):
        for _ in range(r.randint(0, 7)):
            w, h = (r.uniform(0.02, 0.9) ** 1.5 * side for side in (width, height))
            h = w / r.choice((10, 30)) if r.random() < 0.15 else h
            angle = r.choice((r.uniform(-math.pi / 4, 3 * math.pi / 4), r.uniform(-6, 6)))
            box = Box(image, r.randrange(classes), r.uniform(0, width), r.uniform(0, height), w, h)
            rows += [(box, angle)] * (2 if r.random() < 0.1 else 1)
    spec = spec_of(**numbers, topk2=r.choice((None, None, 1)), class_weights=weights)
    extras = {"angle": tuple(angle for _, angle in rows)}
    prediction = Prediction(KINDS[seed % len(KINDS)], seed, r.choice((0.1, 1.0)))
    return Case(spec, (height, width), images, tuple(box for box, _ in rows), prediction, extras=extras)


def assert_same(found: Outcome, expected: Outcome) -> None:
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-9, atol=1e-9)
    assert found.items.keys() == expected.items.keys()
    assert found.missing == ()
    for name, gradient in expected.gradients.items():
        torch.testing.assert_close(found.gradients[name], gradient, rtol=1e-9, atol=1e-9)


def comparable(case: Case) -> bool:
    return case.num_anchors >= max(case.spec.topk, case.spec.topk2 or 0)


class TestAgainstReference:
    """In float64, with the reference's own ties, decisions are the same and numbers agree to 1e-9."""

    @pytest.mark.parametrize("seed", range(32))
    def test_the_loss_and_every_stage(self, seed: int) -> None:
        case = drawn(seed)
        if not comparable(case):
            pytest.skip("the reference raises with fewer anchors than K")
        inputs, exact, reference = build(case, FLOAT64), ExactOriented(case.spec, "reference"), ReferenceOriented(case.spec)
        assert_same(*(run_loss(criterion, inputs, FLOAT64, terms=case.spec.terms) for criterion in (exact, reference)))
        held, expected = exact.assign(*inputs), reference.last_assignment(inputs.batch)
        assert [t.tolist() for t in (held.image, held.anchor, held.box)] == [
            t.tolist() for t in (expected.image, expected.anchor, expected.box)
        ]
        torch.testing.assert_close(held.weight, expected.weight, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(exact.decode(inputs.preds), reference.decode(inputs.preds), rtol=1e-12, atol=1e-12)
        ours, theirs = exact.targets(*inputs), reference.targets(*inputs)
        assert ours.row.tolist() == theirs.row.tolist()
        torch.testing.assert_close(ours.corners, theirs.corners, rtol=0, atol=0)
        assert_same(*(run_given(criterion, inputs, FLOAT64, held, terms=case.spec.terms) for criterion in (exact, reference)))

    @pytest.mark.parametrize("updates", range(4))
    def test_end_to_end(self, updates: int) -> None:
        case = dataclasses.replace(drawn(3 + updates), spec=spec_of(reg_max=(1, 4)[updates % 2], num_classes=3))
        other = dataclasses.replace(case, prediction=Prediction("random", 99))
        first, second = build(case, FLOAT64), build(other, FLOAT64)
        ours = ExactEndToEnd(case.spec, generation=2, epochs=3, ties="reference")
        theirs = ReferenceEndToEnd(case.spec, generation=2, epochs=3)
        with double_precision():
            theirs.criterion()
        for _ in range(updates):
            ours.update()
            theirs.update()
        (found, items), (expected, logged) = (c({"one2many": first.preds, "one2one": second.preds}, first.batch) for c in (ours, theirs))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
        assert {name: float(value) for name, value in items.items()} == pytest.approx(
            {name: float(value) for name, value in logged.items()}
        )


def box(*numbers: float) -> Tensor:
    return torch.tensor([numbers], dtype=torch.float64)


BOXES = st.tuples(st.floats(-9, 9), st.floats(-9, 9), st.floats(0.3, 30), st.floats(0.3, 30), st.floats(-7, 7)).map(lambda b: box(*b))


class TestProbIoU:
    def test_equal_boxes_have_the_largest_value(self) -> None:
        one = box(3, 4, 20, 5, 0.7)
        assert float(probiou(one, one, 0.0, EPS)) == pytest.approx(0.99955279, abs=5e-9)
        assert 1 - float(probiou(one, one, 0.01, EPS)) == pytest.approx(4.472e-4, abs=5e-8)

    def test_a_square_beside_itself(self) -> None:
        # u = v = 1/3; P = Q = 2/3, M = 0, E = 4/9; β₁ = (2/3) / (16/9) = 3/8.
        distance = bhattacharyya(spreads(box(0, 0, 2, 2, 0), box(1, 0, 2, 2, 0.5), 0.0), 0.0)
        assert float(distance) == pytest.approx(3 / 8)

    @given(BOXES, BOXES, st.sampled_from((0.0, 0.01)))
    def test_the_sums_are_the_differences_of_the_specification(self, a: Tensor, b: Tensor, floor: float) -> None:
        def covariance(one: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            _, _, w, h, angle = one[0]
            u, v = w**2 / 12 + floor, h**2 / 12 + floor
            cosine, sine = angle.cos(), angle.sin()
            return u * cosine**2 + v * sine**2, u * sine**2 + v * cosine**2, (u - v) * cosine * sine

        (p1, q1, c1), (p2, q2, c2) = covariance(a), covariance(b)
        p, q, m, (dx, dy) = p1 + p2, q1 + q2, c1 + c2, (a - b)[0, :2]
        e = p * q - m**2
        apart = p * dy**2 + q * dx**2 - 2 * m * dx * dy
        found = [float(value) for value in spreads(a, b, floor)]
        assert found == pytest.approx([float(value) for value in (apart, e, p1 * q1 - c1**2, p2 * q2 - c2**2)], rel=1e-6, abs=1e-9)

    @given(BOXES, BOXES)
    def test_symmetries(self, a: Tensor, b: Tensor) -> None:
        value = float(probiou(a, b, 0.01, EPS))
        x, y, w, h, angle = a[0].tolist()
        same = (box(x, y, -w, h, angle), box(x, y, w, h, angle + math.pi), box(x, y, h, w, angle - math.pi / 2))
        assert [float(probiou(one, b, 0.01, EPS)) for one in same] == pytest.approx([value] * 3, rel=1e-6, abs=1e-7)
        assert float(probiou(b, a, 0.01, EPS)) == pytest.approx(value, rel=1e-9, abs=1e-9)

    def test_the_clamp_passes_no_gradient(self) -> None:
        for shift, expected in ((1e-4, 0.0), (5e-4, 1.04)):
            moved = box(100 * shift, 0, 100, 100, 0).requires_grad_()
            (gradient,) = torch.autograd.grad((1 - probiou(moved, box(0, 0, 100, 100, 0), 0.0, EPS)).sum(), moved)
            assert 100 * float(gradient[0, 0]) == pytest.approx(expected, abs=0.01)


class TestGeometry:
    @given(BOXES, st.floats(-9, 9), st.floats(-9, 9))
    def test_distances_in_the_box_s_frame_decode_to_the_box(self, one: Tensor, x: float, y: float) -> None:
        centre = torch.tensor([[x, y]], dtype=torch.float64)
        torch.testing.assert_close(decoded_boxes(side_distances(one, centre), one[:, 4], centre), one, rtol=1e-12, atol=1e-12)

    def test_an_unturned_box_decodes_as_an_upright_one(self) -> None:
        sides, centre = torch.tensor([[1.0, 2, 3, 5]]), torch.tensor([[10.0, 20]])
        assert decoded_boxes(sides, torch.zeros(1), centre).tolist() == [[11, 21.5, 4, 7, 0]]

    def test_the_border_belongs_to_the_box(self) -> None:
        inputs = build(one_box(28, 20, 16, 32, 0.0, size=(64, 64)), FLOAT64)
        border = ExactOriented(spec_of()).trace(*inputs)[0].border[0].reshape(8, 8)
        assert (border > 0).nonzero().tolist() == [[row, column] for row in range(5) for column in (2, 3, 4)]
        assert float(border_distance(box(28, 20, 16, 32, 0), torch.tensor([[20.0, 20]], dtype=torch.float64))) == 0

    def test_a_quarter_turn_exchanges_the_sides(self) -> None:
        centres = torch.rand(50, 2, dtype=torch.float64) * 40
        one, other = box(20, 20, 24, 10, 0.4), box(20, 20, 10, 24, 0.4 + math.pi / 2)
        torch.testing.assert_close(border_distance(one, centres), border_distance(other, centres), rtol=0, atol=1e-12)


class TestAngles:
    @pytest.mark.parametrize(("ratio", "weight"), [(1, 1.0), (2, 0.95), (4, 0.81), (10, 0.555)])
    def test_the_weight_falls_with_the_ratio(self, ratio: float, weight: float) -> None:
        assert float(angle_weight(box(0, 0, ratio, 1, 0), 3.0)) == pytest.approx(weight, abs=5e-3)
        assert float(angle_weight(box(0, 0, 1, ratio, 0), 3.0)) == pytest.approx(weight, abs=5e-3)

    @pytest.mark.parametrize(("turn", "term"), [(0, 0.0), (math.pi / 2, 0.0), (math.pi, 0.0), (math.pi / 4, 1.0), (math.pi / 8, 0.5)])
    def test_the_term_has_the_period_of_a_right_angle(self, turn: float, term: float) -> None:
        assert float(angle_term(torch.tensor([0.3 + turn], dtype=torch.float64), box(0, 0, 2, 2, 0.3), 3.0)) == pytest.approx(
            term, abs=1e-12
        )

    def test_the_gradient_comes_from_box_and_angle_term(self) -> None:
        case = dataclasses.replace(drawn(1), prediction=Prediction("near", 4, 0.3))
        inputs = build(case, FLOAT64)
        gradients = [
            run_loss(
                ExactOriented(case.spec), inputs, FLOAT64, [float(name == one) for name in case.spec.terms], case.spec.terms
            ).gradients["angle"]
            for one in case.spec.terms
        ]
        assert [bool(gradient.any()) for gradient in gradients] == [True, False, False, True]


class TestRows:
    @pytest.mark.parametrize(
        ("w", "h", "angle", "kept"),
        [(2, 2, 0.0, True), (1.999, 9, 0.0, False), (9, 1.999, 0.0, False), (0, 9, 0.0, False), (8, 8, -55.0, True), (8, 8, -60.0, False)],
    )
    def test_which_rows_count(self, w: float, h: float, angle: float, kept: bool) -> None:
        inputs = build(one_box(20, 20, w, h, angle), FLOAT64)
        assert len(ExactOriented(spec_of()).targets(*inputs).row) == int(kept)

    def test_a_removed_row_does_not_shift_the_others(self) -> None:
        rows = (Box(0, 0, 16, 16, 1, 1), Box(0, 0, 16, 16, 24, 24))
        case = Case(spec_of(), (32, 32), 1, rows, Prediction("zeros"), extras={"angle": (0.3, 0.3)})
        for criterion in (ExactOriented(case.spec), ReferenceOriented(case.spec)):
            assert set(criterion.assign(*build(case, FLOAT64)).box.tolist()) == {1}

    @pytest.mark.parametrize("columns", [4, 6])
    def test_rows_of_another_length_are_refused(self, columns: int) -> None:
        preds, batch = build(one_box(16, 16, 8, 8, 0.0), FLOAT64)
        with pytest.raises(ValueError, match=r"\(N, 5\)"):
            ExactOriented(spec_of())(preds, {**batch, "bboxes": torch.ones(1, columns)})

    def test_angles_of_another_shape_are_refused(self) -> None:
        preds, batch = build(one_box(16, 16, 8, 8, 0.0), FLOAT64)
        with pytest.raises(ValueError, match=r"angle should be \(1, 1, 16\)"):
            ExactOriented(spec_of())({**preds, "angle": preds["angle"].repeat(1, 2, 1)}, batch)


def test_four_writings_of_a_box_differ_in_the_distribution_term_alone() -> None:
    found = []
    for w, h, angle in ((48, 24, 0.4), (48, 24, 0.4 + math.pi), (24, 48, 0.4 + math.pi / 2), (24, 48, 0.4 - math.pi / 2)):
        case = dataclasses.replace(one_box(48, 48, w, h, angle, size=(96, 96), reg_max=16), prediction=Prediction("random", 7))
        found.append(run_loss(ExactOriented(case.spec), build(case, FLOAT64), FLOAT64, terms=case.spec.terms).loss)
    box_, cls, dfl, turn = torch.stack(found).unbind(1)
    for same in (box_, cls, turn):
        torch.testing.assert_close(same, same[:1].expand(4), rtol=1e-5, atol=1e-5)
    assert len({round(float(value), 4) for value in dfl}) == 4


def test_without_boxes_three_terms_and_their_gradients_are_zero() -> None:
    case = Case(spec_of(), (32, 32), 2, (), Prediction("random", 1))
    inputs: Inputs = build(case, FLOAT64)
    for criterion in (ExactOriented(case.spec), ReferenceOriented(case.spec)):
        found = run_loss(criterion, inputs, FLOAT64, terms=case.spec.terms)
        assert [float(term) > 0 for term in found.loss] == [False, True, False, False]
        assert not found.gradients["boxes"].any()
        assert not found.gradients["angle"].any()
