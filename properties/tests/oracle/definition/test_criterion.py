"""The float64 definition against arithmetic done by hand, against the reference run in float64, and against its own refusals."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch import Tensor

from oracle.cases.build import build
from oracle.cases.case import Box, Case, Inputs, Prediction, PredictionKind, Setting
from oracle.contract.contender import OffersStages
from oracle.contract.run import run_given, run_loss
from oracle.definition.criterion import UNASSIGNED, ExactCriterion
from oracle.definition.formulas import border_distance, ciou, distance_term, distances, distribution_term, lengthened
from twinloss import LossSpec

FLOAT64 = Setting(dtype="float64")
KINDS: tuple[PredictionKind, ...] = ("random", "untrained", "early")
STRIDES = ((8, 16, 32), (8,), (4, 8, 16, 32), (16, 32))


def random_case(seed: int) -> Case:
    """A small batch whose predictions coincide with no box, so that the definition has no kink there."""
    rng = random.Random(seed)
    classes, strides, topk = rng.randint(1, 6), rng.choice(STRIDES), rng.randint(1, 13)
    spec = LossSpec(
        num_classes=classes,
        reg_max=rng.choice((16, 16, 4, 1)),
        strides=strides,
        topk=topk,
        topk2=rng.choice((None, None, 1, topk, 15)),
        class_weights=rng.choice((None, tuple(rng.uniform(0.2, 3) for _ in range(classes)))),
        alpha=rng.choice((0.5, 1.0)),
        beta=rng.choice((6.0, 2.5)),
    )
    height, width, images = 64 * rng.randint(1, 2), 64 * rng.randint(1, 3), rng.randint(1, 3)
    crowd = rng.choice((1.0, 0.25))  # Boxes in one corner contest anchors, and the first anchors of the image are among them.
    boxes = [
        Box(
            image=rng.randrange(images),
            label=rng.randrange(classes),
            cx=rng.uniform(0, width * crowd),
            cy=rng.uniform(0, height * crowd),
            w=rng.uniform(0.05, 0.8) ** 2 * width,
            h=rng.uniform(0.05, 0.8) ** 2 * height,
        )
        for _ in range(rng.randint(0, 20))
    ]
    boxes.sort(key=lambda box: box.image)
    prediction = Prediction(kind=rng.choice(KINDS), seed=seed)
    return Case(spec=spec, image_size=(height, width), batch_size=images, boxes=tuple(boxes), prediction=prediction)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.fixture(scope="module")
def reference_module():  # type: ignore[no-untyped-def]
    return pytest.importorskip("oracle.reference.criterion")


class TestAgainstReference:
    """In float64, with the reference's own ties, nothing is left open: decisions are the same, numbers agree to 1e-10."""

    @pytest.mark.parametrize("seed", range(80))
    def test_whole_loss(self, seed: int, reference_module) -> None:  # type: ignore[no-untyped-def]
        case = random_case(seed)
        inputs = build(case, FLOAT64)
        if reason := reference_module.declines(case.spec, inputs, FLOAT64):
            pytest.skip(reason)
        reference, exact = reference_module.ReferenceCriterion(case.spec), ExactCriterion(case.spec, ties="reference")
        theirs, ours = run_loss(reference, inputs, FLOAT64), run_loss(exact, inputs, FLOAT64)
        close(ours.loss, theirs.loss)
        close(ours.gradients["boxes"], theirs.gradients["boxes"])
        close(ours.gradients["scores"], theirs.gradients["scores"])
        assert ours.items.keys() == theirs.items.keys()
        close(torch.tensor(list(ours.items.values())), torch.tensor(list(theirs.items.values())))
        held, expected = exact.assign(*inputs), reference.last_assignment(inputs.batch)
        for name in ("image", "anchor", "box"):
            assert torch.equal(getattr(held, name), getattr(expected, name)), name
        close(held.weight, expected.weight)

    @pytest.mark.parametrize("seed", range(0, 80, 8))
    def test_stages(self, seed: int, reference_module) -> None:  # type: ignore[no-untyped-def]
        case = random_case(seed)
        inputs = build(case, FLOAT64)
        reference, exact = reference_module.ReferenceCriterion(case.spec), ExactCriterion(case.spec)
        assert isinstance(reference, OffersStages)
        assert isinstance(exact, OffersStages)
        for found, expected in zip(exact.anchors(inputs.preds), reference.anchors(inputs.preds), strict=True):
            close(found, expected)
        close(exact.decode(inputs.preds), reference.decode(inputs.preds))
        for found, expected in zip(exact.targets(*inputs), reference.targets(*inputs), strict=True):
            close(found, expected)
        for found, expected in zip(exact.metrics(*inputs), reference.metrics(*inputs), strict=True):
            close(found, expected)
        # On an assignment that is not the reference's own, the terms agree as well.
        given = ExactCriterion(LossSpec(num_classes=case.spec.num_classes, strides=case.spec.strides, reg_max=case.spec.reg_max, topk=3))
        assignment = given.assign(*inputs)
        ours, theirs = (run_given(c, inputs, FLOAT64, assignment) for c in (exact, reference))
        close(ours.loss, theirs.loss)
        close(ours.gradients["boxes"], theirs.gradients["boxes"])
        close(ours.gradients["scores"], theirs.gradients["scores"])

    def test_the_batches_reach_what_they_should(self) -> None:
        details = [d for seed in range(80) for d in ExactCriterion(random_case(seed).spec).trace(*build(random_case(seed), FLOAT64))]
        assert sum(bool((d.picked.sum(0) > 1).any()) for d in details) > 20, "contested anchors"
        assert sum(bool((d.before_cut != d.holder).any()) for d in details) > 20, "anchors that the second cut takes"
        cases = [random_case(seed) for seed in range(80)]
        answers = [[ExactCriterion(c.spec, ties=ties).assign(*build(c, FLOAT64)) for c in cases] for ties in ("stable", "reference")]
        differ = sum(not (len(a) == len(b) and torch.equal(a.box, b.box)) for a, b in zip(*answers, strict=True))
        assert differ > 0, "batches whose answer depends on which zeros are picked"


class TestByHand:
    """Numbers worked out below with pencil and paper, epsilons left out: they change the eighth digit."""

    SPEC = LossSpec(num_classes=2, reg_max=4, strides=(8,), topk=3, gains=(1.0, 1.0, 1.0))
    # Bin probabilities 1/8, 3/8, 3/8, 1/8: every anchor predicts a distance of 1.5 cells on each side, a square of 24 px about itself.
    BINS = (0.0, math.log(3), math.log(3), 0.0)

    def inputs(self, boxes: list[list[float]]) -> Inputs:
        """Four by four cells of 8 px; logit 1 for class 1, -2 for class 0, everywhere."""
        scores = torch.tensor([-2.0, 1.0], dtype=torch.float64)[None, :, None].expand(1, 2, 16)
        logits = torch.tensor(self.BINS * 4, dtype=torch.float64)[None, :, None].expand(1, 16, 16)
        rows = torch.tensor(boxes, dtype=torch.float64).reshape(-1, 6)
        batch = {"batch_idx": rows[:, 0], "cls": rows[:, 1:2], "bboxes": rows[:, 2:] / 32}
        preds = {"boxes": logits.clone().requires_grad_(), "scores": scores.clone().requires_grad_(), "feats": [torch.zeros(1, 1, 4, 4)]}
        return Inputs(preds, batch)

    def test_one_box(self) -> None:
        # A box of 20 x 24 px about (20, 12), the centre of anchor 6. Its left and right neighbours are 5 and 7.
        v = 4 / math.pi**2 * (math.atan(20 / 24) - math.atan(1)) ** 2
        shape = {o: v / (1 - o + v) * v for o in (480 / 576, 336 / 720)}
        middle = 480 / 576 - shape[480 / 576]
        # Shifted by 8 px: intersection 14 x 24, union 480 + 576 - 336, enclosing box 30 x 24.
        side = 336 / 720 - 64 / (30**2 + 24**2) - shape[336 / 720]
        p = 1 / (1 + math.exp(-1))
        metric = {5: p**0.5 * side**6, 6: p**0.5 * middle**6, 7: p**0.5 * side**6}
        weight = {anchor: m * middle / metric[6] for anchor, m in metric.items()}
        assert sum(weight.values()) < 1  # So the normaliser is 1.
        box = weight[6] * (1 - middle) + 2 * weight[5] * (1 - side)
        softplus = {x: math.log1p(math.exp(x)) for x in (1, -2)}
        classification = 16 * (softplus[1] + softplus[-2]) - sum(weight.values())
        inner, outer = math.log(8 / 3), math.log(8)
        # Anchor 6: all four distances, 1.25 and 1.5, lie between the two inner bins. Anchor 5: left 0.25, right 2.25; 7 mirrors it.
        sideways = ((0.75 * outer + 0.25 * inner) + (0.75 * inner + 0.25 * outer) + 2 * inner) / 4
        distribution = weight[6] * inner + 2 * weight[5] * sideways

        inputs = self.inputs([[0, 1, 20, 12, 20, 24]])
        assignment = ExactCriterion(self.SPEC).assign(*inputs)
        assert assignment.anchor.tolist() == [5, 6, 7]
        assert assignment.box.tolist() == [0, 0, 0]
        assert assignment.weight.tolist() == pytest.approx([weight[5], weight[6], weight[7]], rel=1e-6)
        loss, items = ExactCriterion(self.SPEC)(*inputs)
        assert loss.tolist() == pytest.approx([box, classification, distribution], rel=1e-6)
        assert {name: float(value) for name, value in items.items()} == pytest.approx(
            {"box_loss": box, "cls_loss": classification, "dfl_loss": distribution}, rel=1e-6
        )
        (gradient,) = torch.autograd.grad(loss.sum(), inputs.preds["scores"])
        assert float(gradient[0, 1, 6]) == pytest.approx(p - weight[6], rel=1e-6)
        assert float(gradient[0, 0, 6]) == pytest.approx(1 / (1 + math.exp(2)), rel=1e-6)

    def test_class_weights_are_not_rounded(self) -> None:
        weights = (0.1, 0.7)  # Neither is a float32.
        spec = LossSpec(num_classes=2, reg_max=4, strides=(8,), gains=(1.0, 1.0, 1.0), class_weights=weights)
        expected = 16 * (weights[0] * math.log1p(math.exp(-2)) + weights[1] * math.log1p(math.e))
        assert ExactCriterion(spec)(*self.inputs([]))[0].tolist() == pytest.approx([0, expected, 0], rel=1e-12)

    def test_without_boxes(self) -> None:
        inputs = self.inputs([])
        outcome = run_loss(ExactCriterion(self.SPEC), inputs, FLOAT64)
        assert outcome.loss.tolist() == pytest.approx([0, 16 * (math.log1p(math.e) + math.log1p(math.exp(-2))), 0])
        assert outcome.missing == ()
        assert not outcome.gradients["boxes"].any()

    def test_a_short_side_is_lengthened_for_the_inside_test_alone(self) -> None:
        # 1 x 1 px beside the centre (20, 12) of anchor 6: lengthened to 8 px it holds that centre; its overlap is that of 1 x 1.
        detail = ExactCriterion(self.SPEC).trace(*self.inputs([[0, 1, 18, 12, 1, 1]]))[0]
        assert detail.candidate.nonzero().tolist() == [[0, 6]]
        assert float(detail.border[0, 6]) == pytest.approx(2, abs=1e-6)
        expected = 1 / 576 - 4 / (24**2 + 24**2)
        assert float(detail.overlap[0, 6]) == pytest.approx(max(expected, 0), abs=1e-6)

    def test_a_centre_on_the_border_is_outside(self) -> None:
        detail = ExactCriterion(self.SPEC).trace(*self.inputs([[0, 1, 20, 12, 16, 16]]))[0]
        assert detail.candidate.nonzero().tolist() == [[0, 6]]  # 5 and 7, 2 and 10 lie on the border.

    def test_conflict_goes_to_the_largest_overlap_even_of_a_box_that_did_not_pick(self) -> None:
        picked = torch.tensor([[True, False, False, True], [True, False, True, True], [False, False, False, False]])
        overlap = torch.tensor([[0.2, 0.9, 0.0, 0.0], [0.3, 0.8, 0.1, 0.0], [0.4, 0.1, 0.5, 0.0]])
        by_rule = {rule: ExactCriterion(self.SPEC, conflicts=rule)._settle_conflicts(picked, overlap) for rule in ("overlap", "pickers")}
        assert by_rule["overlap"].tolist() == [2, UNASSIGNED, 1, 0]
        assert by_rule["pickers"].tolist() == [1, UNASSIGNED, 1, 0]

    def test_second_cut_and_soft_targets(self) -> None:
        exact = ExactCriterion(LossSpec(num_classes=1, topk=3, topk2=2))
        metric = torch.tensor([[0.5, 0.25, 0.125, 0.9], [0.0, 0.0, 0.0, 0.3]], dtype=torch.float64)
        overlap = torch.tensor([[0.6, 0.8, 0.7, 0.9], [0.0, 0.0, 0.0, 0.4]], dtype=torch.float64)
        holder = exact._second_cut(torch.tensor([0, 0, 0, 1]), metric)
        assert holder.tolist() == [0, 0, UNASSIGNED, 1]
        # The largest overlap and metric among what is held: 0.8 and 0.5, although anchor 3 would offer 0.9.
        assert exact._soft_targets(holder, metric, overlap).tolist() == pytest.approx([0.8, 0.4, 0, 0.4])


def plain_ciou(a: list[float], b: list[float], frozen: float | None = None) -> tuple[float, float]:
    """CIoU and its trade-off factor as Zheng 2019 has them, in plain floats, without epsilons; ``frozen`` keeps the factor constant."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a, b
    shared = max(0.0, min(ax2, bx2) - max(ax1, bx1)) * max(0.0, min(ay2, by2) - max(ay1, by1))
    area_a, area_b = (ax2 - ax1) * (ay2 - ay1), (bx2 - bx1) * (by2 - by1)
    iou = shared / (area_a + area_b - shared)
    diagonal = (max(ax2, bx2) - min(ax1, bx1)) ** 2 + (max(ay2, by2) - min(ay1, by1)) ** 2
    offset = math.dist(((ax1 + ax2) / 2, (ay1 + ay2) / 2), ((bx1 + bx2) / 2, (by1 + by2) / 2)) ** 2
    v = 4 / math.pi**2 * (math.atan((bx2 - bx1) / (by2 - by1)) - math.atan((ax2 - ax1) / (ay2 - ay1))) ** 2
    factor = v / (1 - iou + v) if frozen is None else frozen
    return iou - offset / diagonal - factor * v, factor


class TestFormulas:
    PAIRS = (
        ([0.0, 0.0, 4.0, 3.0], [1.0, 0.5, 6.0, 2.5]),
        ([-2.0, 1.0, 9.0, 5.0], [0.0, 2.0, 3.0, 3.0]),
        ([0.0, 0.0, 2.0, 2.0], [5.0, 5.0, 6.0, 9.0]),
        ([1.0, 2.0, 3.5, 9.0], [0.5, 2.5, 4.0, 7.0]),
    )

    @pytest.mark.parametrize(("a", "b"), PAIRS)
    def test_ciou(self, a: list[float], b: list[float]) -> None:
        box = torch.tensor([a], dtype=torch.float64, requires_grad=True)
        value = ciou(box, torch.tensor([b], dtype=torch.float64), 1e-7)
        expected, factor = plain_ciou(a, b)
        assert value.item() == pytest.approx(expected, abs=1e-6)
        (gradient,) = torch.autograd.grad(value.sum(), box)
        step = 1e-5
        for side in range(4):
            up, down = ([x + sign * step * (i == side) for i, x in enumerate(a)] for sign in (1, -1))
            slope = (plain_ciou(up, b, factor)[0] - plain_ciou(down, b, factor)[0]) / (2 * step)
            assert float(gradient[0, side]) == pytest.approx(slope, abs=1e-6)

    def test_ciou_splits_the_gradient_between_equal_coordinates(self) -> None:
        def left_gradient(shift: float) -> float:
            box = torch.tensor([[shift, 0.0, 3.0, 3.0]], dtype=torch.float64, requires_grad=True)
            (gradient,) = torch.autograd.grad(ciou(box, torch.tensor([[0.0, 0.0, 3.0, 3.0]], dtype=torch.float64), 1e-7).sum(), box)
            return float(gradient[0, 0])

        assert left_gradient(0.0) == pytest.approx((left_gradient(-1e-9) + left_gradient(1e-9)) / 2, abs=1e-6)
        assert left_gradient(1e-9) < -0.3 < 0.3 < left_gradient(-1e-9)

    @pytest.mark.parametrize(
        ("distance", "bins"),
        [
            (0.0, {0: 1.0}),
            (1.0, {1: 1.0}),
            (1.25, {1: 0.75, 2: 0.25}),
            (-3.0, {0: 1.0}),
            (2.99, {2: 0.01, 3: 0.99}),
            (3.0, {2: 0.01, 3: 0.99}),
            (50.0, {2: 0.01, 3: 0.99}),
        ],
    )
    def test_distribution_term(self, distance: float, bins: dict[int, float]) -> None:
        logits = torch.tensor([0.3, -1.0, 2.0, 0.7] * 4, dtype=torch.float64)[None]
        total = sum(math.exp(x) for x in (0.3, -1.0, 2.0, 0.7))
        expected = -sum(w * math.log(math.exp((0.3, -1.0, 2.0, 0.7)[bin_]) / total) for bin_, w in bins.items())
        spec = LossSpec(num_classes=1, reg_max=4)
        assert float(distribution_term(logits, torch.full((1, 4), distance, dtype=torch.float64), spec)) == pytest.approx(expected)

    def test_distance_term(self) -> None:
        predicted, target = torch.tensor([[1.0, 2.0, 3.0, 4.0]]).double(), torch.tensor([[2.0, 2.5, 1.0, 40.0]]).double()
        # One cell is 8 px of an image 160 px wide and 80 px high: (1 + 2) / 20 in width, (0.5 + 36) / 10 in height.
        found = distance_term(predicted, target, torch.tensor([8.0]).double(), (80, 160))
        assert float(found) == pytest.approx((3 / 20 + 36.5 / 10) / 4)

    def test_distances_are_expectations(self) -> None:
        logits = torch.tensor([0.0, math.log(3), -math.inf, 0.0] * 4, dtype=torch.float64)
        assert distances(logits, 4).tolist() == pytest.approx([(3 + 3) / 5] * 4)
        assert distances(logits[:4], 1) is not None

    def test_border_distance(self) -> None:
        boxes = torch.tensor([[0.0, 0.0, 10.0, 40.0]]).double()
        centres = torch.tensor([[1.0, 20.0], [5.0, 39.0], [-2.0, 20.0], [13.5, 20.0]]).double()
        assert border_distance(lengthened(boxes, 16), centres).tolist() == [[4.0, 1.0, 1.0, -0.5]]

    @pytest.mark.parametrize("reg_max", [1, 4])
    def test_gradients_are_the_slopes(self, reg_max: int) -> None:
        spec = LossSpec(num_classes=2, reg_max=reg_max, strides=(8, 16), class_weights=(0.5, 2.0), gains=(0.0, 1.0, 1.0))
        case = Case(spec, (32, 32), 2, (Box(0, 1, 15.3, 14.1, 20, 11), Box(1, 0, 9.7, 12.2, 13, 22)), Prediction("random", 5, 1.0))
        exact, inputs = ExactCriterion(spec), build(case, FLOAT64)
        given = exact.assign(*inputs)
        assert len(given.anchor) > 0

        def loss(boxes: Tensor, scores: Tensor) -> Tensor:
            return exact.loss_given({**inputs.preds, "boxes": boxes, "scores": scores}, inputs.batch, given)[0]

        assert torch.autograd.gradcheck(loss, (inputs.preds["boxes"], inputs.preds["scores"]))


class TestInput:
    """Spec section 10, the twin's column."""

    SPEC = LossSpec(num_classes=3)
    GOOD = ((0.0, 1.0, 0.5, 0.5, 0.4, 0.4), (0.0, 2.0, 0.3, 0.3, 0.2, 0.2), (1.0, 0.0, 0.6, 0.6, 0.5, 0.3))

    def inputs(self, rows: tuple[tuple[float, ...], ...], spec: LossSpec = SPEC) -> Inputs:
        inputs = build(Case(spec, (64, 64), 2, (), Prediction("random", 3)), FLOAT64)
        table = torch.tensor(rows, dtype=torch.float64)
        return Inputs(inputs.preds, {"batch_idx": table[:, 0], "cls": table[:, 1:2], "bboxes": table[:, 2:]})

    @pytest.mark.parametrize(
        ("column", "value"),
        [(0, 2), (0, -1), (0, 0.5), (0, math.nan), (1, 3), (1, -1), (1, 1.7), (1, math.nan), (2, math.nan), (4, math.inf), (4, -0.1)],
    )
    def test_a_row_without_meaning_is_named(self, column: int, value: float) -> None:
        bad = list(self.GOOD[1])
        bad[column] = value
        with pytest.raises(ValueError, match="row 1 of the targets"):
            ExactCriterion(self.SPEC)(*self.inputs((self.GOOD[0], tuple(bad), self.GOOD[2])))

    def test_logits_that_contradict_each_other_are_named(self) -> None:
        inputs = self.inputs(self.GOOD)
        with pytest.raises(ValueError, match=r"scores \(2, 3, 83\) should be"):
            ExactCriterion(self.SPEC)({**inputs.preds, "scores": inputs.preds["scores"][..., 1:]}, inputs.batch)

    def test_unsorted_batches_mean_the_same(self) -> None:
        exact = ExactCriterion(self.SPEC)
        shuffled = self.inputs((self.GOOD[2], self.GOOD[0], self.GOOD[1]))
        close(exact(*shuffled)[0], exact(*self.inputs(self.GOOD))[0])
        order = torch.tensor([2, 0, 1])
        assert torch.equal(order[exact.assign(*shuffled).box], exact.assign(*self.inputs(self.GOOD)).box)
        assert exact.targets(*shuffled).row.tolist() == [1, 2, 0]

    def test_fewer_anchors_than_topk(self) -> None:
        spec = LossSpec(num_classes=3, strides=(32,), reg_max=2, topk=10)
        inputs = self.inputs(((0.0, 1.0, 0.5, 0.5, 0.9, 0.9), (1.0, 0.0, 0.5, 0.5, 0.9, 0.9)), spec)
        assert ExactCriterion(spec).assign(*inputs).anchor.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
        close(ExactCriterion(spec)(*inputs)[0], ExactCriterion(spec, "reference")(*inputs)[0])

    def test_masked_classes_contribute_nothing(self) -> None:
        inputs = self.inputs(self.GOOD[:1])
        plain = run_loss(ExactCriterion(self.SPEC), inputs, FLOAT64)
        masked = inputs.preds["scores"].detach().clone()
        masked[:, 0] = -math.inf
        outcome = run_loss(ExactCriterion(self.SPEC), Inputs({**inputs.preds, "scores": masked}, inputs.batch), FLOAT64)
        removed = torch.nn.functional.softplus(inputs.preds["scores"].detach()[:, 0]).sum() * self.SPEC.gains[1] * 2
        assert float(outcome.loss[1]) == pytest.approx(float(plain.loss[1] - removed))
        assert not outcome.gradients["scores"][:, 0].any()
        close(outcome.gradients["scores"][:, 1:], plain.gradients["scores"][:, 1:])

    def test_nan_shows_where_it_is_read(self) -> None:
        inputs = self.inputs(self.GOOD[:1])
        detail = ExactCriterion(self.SPEC).trace(*inputs)[0]
        inside, outside = int(detail.candidate[0].nonzero()[0]), int((~detail.candidate[0]).nonzero()[0])

        def finite_terms(name: str, channel: int, anchor: int) -> list[bool]:
            spoilt = inputs.preds[name].detach().clone()
            spoilt[0, channel, anchor] = math.nan
            outcome = run_loss(ExactCriterion(self.SPEC), Inputs({**inputs.preds, name: spoilt}, inputs.batch), FLOAT64)
            return outcome.loss.isfinite().tolist()

        assert finite_terms("scores", 1, inside) == [False, False, False]
        assert finite_terms("scores", 0, inside) == [True, False, True]
        assert finite_terms("boxes", 5, inside) == [False, False, False]
        assert finite_terms("boxes", 5, outside) == [True, True, True]

    def test_targets_of_other_dtypes_are_rounded_to_float32(self) -> None:
        inputs = self.inputs(self.GOOD)
        narrow = {name: tensor.to(torch.float16) for name, tensor in inputs.batch.items()}
        exact = ExactCriterion(self.SPEC)
        close(exact(inputs.preds, narrow)[0], exact(inputs.preds, {name: t.double() for name, t in narrow.items()})[0])
        logits = {**inputs.preds, "boxes": inputs.preds["boxes"].detach().float()}
        rounded = {**inputs.batch, "bboxes": inputs.batch["bboxes"].float().double()}
        assert torch.equal(exact(logits, inputs.batch)[0], exact(logits, rounded)[0])
