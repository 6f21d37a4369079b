"""What the loss of oriented boxes promises: native as torch, digits in half precision, symmetries, and an answer to every bad input."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from oracle.cases.build import build
from oracle.contract.run import run_loss
from oracle.reference.oriented import ReferenceOriented
from properties.tests.impl.oriented_inputs import LOGITS, SPEC, STRIDES, UPSTREAM, Batch, Preds, answer, as_dtype, predictions, targets
from properties.tests.oracle.definition.test_oriented import FLOAT64, assert_same, comparable, drawn
from twinloss import Assignment, EndToEndLoss, OrientedLoss, OrientedSpec
from twinloss.backends.registry import BackendName

SPECS = {
    "usual": SPEC,
    "no distribution": replace(SPEC, reg_max=1),
    "few bins": replace(SPEC, reg_max=5),
    "second cut": replace(SPEC, topk=7, topk2=1),
    "more kept than anchors": replace(SPEC, topk=5000),
    "other exponents": replace(SPEC, alpha=1.0, beta=4.0),
    "class weights": replace(SPEC, class_weights=(0.5, 2.0, 0.0)),
    "other numbers": replace(SPEC, gains=(2.0, 1.0, 0.5, 4.0), angle_scale=1.0, term_floor=0.0, probiou_eps=1e-5),
    "older lengthening": replace(SPEC, lengthen="first"),
}
backends = pytest.mark.parametrize("backend", ["torch", "native"])


def assert_near(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...], tolerance: float) -> None:
    for ours, theirs in zip(found, wanted, strict=True):
        scale = max(1e-3, float(theirs.abs().max()))
        torch.testing.assert_close(ours.to(theirs.dtype), theirs, rtol=tolerance, atol=tolerance * scale)


def same(one: Assignment, other: Assignment) -> bool:
    return all(torch.equal(getattr(one, column), getattr(other, column)) for column in ("image", "anchor", "box"))


@pytest.mark.parametrize("seed", range(100, 132))
def test_the_reference_in_float64(seed: int) -> None:
    case = drawn(seed)
    if not comparable(case):
        pytest.skip("the reference raises with fewer anchors than K")
    inputs = build(case, FLOAT64)
    contenders = (OrientedLoss(case.spec, ties="reference"), ReferenceOriented(case.spec))
    assert_same(*(run_loss(contender, inputs, FLOAT64, terms=case.spec.terms) for contender in contenders))


@pytest.mark.parametrize("conflicts", ["overlap", "pickers"])
@pytest.mark.parametrize("name", SPECS)
def test_native_as_torch(name: str, conflicts: Any) -> None:
    spec = SPECS[name]
    preds, batch = predictions(spec), targets(30)
    ours, theirs = (OrientedLoss(spec, backend=backend, conflicts=conflicts) for backend in ("native", "torch"))
    held, wanted = ours.assign(preds, batch), theirs.assign(preds, batch)
    assert len(held) > 10
    assert same(held, wanted)
    torch.testing.assert_close(held.weight, wanted.weight, rtol=1e-4, atol=1e-6)
    assert_near(answer(ours, preds, batch, wanted), answer(theirs, preds, batch, wanted), 2e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("bins", [1, 16])
@backends
def test_arithmetic_is_as_good_as_float32(backend: BackendName, bins: int, dtype: torch.dtype) -> None:
    spec = replace(SPEC, reg_max=bins)
    preds, batch = predictions(spec, dtype=dtype), targets(30)
    exact, ours = OrientedLoss(spec, backend="torch"), OrientedLoss(spec, backend=backend)
    doubled = as_dtype(preds, torch.float64)
    assert same(ours.assign(preds, batch), exact.assign(doubled, batch))
    found, wanted = answer(ours, preds, batch), answer(exact, doubled, batch)
    assert_near(found[:1], wanted[:1], 1e-5)
    assert [gradient.dtype for gradient in found[1:]] == [dtype] * 3
    assert_near(found[1:], wanted[1:], {torch.float32: 1e-4, torch.float16: 1e-3, torch.bfloat16: 8e-3}[dtype])


# Section 8a: where the reference in half precision finds a stranger, NaN, or perfection. Sides and shift in cells.
LONG_BOXES = {
    "8 x 0.25": (torch.bfloat16, (8, 0.25), 0.3, 0.0),
    "15 x 0.5": (torch.bfloat16, (15, 0.5), 0.3, 0.0),
    "20 x 0.25": (torch.float16, (20, 0.25), 0.3, 0.0),
    "40 x 0.5 at 45 degrees, float16": (torch.float16, (40, 0.5), math.pi / 4, 0.0),
    "40 x 0.5 at 45 degrees, bfloat16": (torch.bfloat16, (40, 0.5), math.pi / 4, 0.0),
    "60 x 60, shifted by 3": (torch.float16, (60, 60), 0.3, 3.0),
}


@pytest.mark.parametrize("name", LONG_BOXES)
@backends
def test_long_and_large_boxes_in_half_precision(name: str, backend: BackendName) -> None:
    dtype, sides, angle, shift = LONG_BOXES[name]
    size, spec = 640, replace(SPEC, num_classes=1, reg_max=1, gains=(7.5, 0.5, 0.0, 0.0))
    preds = predictions(spec, 1, size)
    longer = 1.0 if shift else 1.03
    for side, length in zip(range(4), (*sides, *sides), strict=True):
        preds["boxes"][:, side] = length / 2 * longer + (shift if side == 2 else -shift if side == 0 else 0)
    preds["angle"][:] = angle
    preds = as_dtype(preds, dtype)
    anchor = 40 * 80 + 40  # the cell (40, 40) of the finest level, whose centre is the box's
    box = torch.tensor([[40.5 * 8 / size, 40.5 * 8 / size, sides[0] * 8 / size, sides[1] * 8 / size, angle]])
    batch = {"batch_idx": torch.zeros(1), "cls": torch.zeros(1, 1), "bboxes": box}
    none = torch.tensor([0])
    held = Assignment(image=none, anchor=torch.tensor([anchor]), box=none, weight=torch.ones(1))
    found = answer(OrientedLoss(spec, backend=backend), preds, batch, held)
    wanted = answer(OrientedLoss(spec, backend="torch"), as_dtype(preds, torch.float64), batch, held)
    assert all(part.isfinite().all() for part in found)
    assert_near(found[:1], wanted[:1], 2e-4)
    loss = float(found[0][0]) / spec.gains[0]
    assert loss == pytest.approx(0.0612, abs=5e-4) if shift else 0.01 < loss < 0.1  # a good prediction, but no perfect one
    assert_near(found[1:2], wanted[1:2], 1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["usual", "no distribution"])
def test_the_same_bits_on_any_number_of_threads(name: str, dtype: torch.dtype) -> None:
    spec, before = SPECS[name], torch.get_num_threads()
    preds, batch, answers = predictions(spec, dtype=dtype), targets(30), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            answers.append(answer(OrientedLoss(spec, backend="native"), preds, batch))
    finally:
        torch.set_num_threads(before)
    for other in answers[1:]:
        assert all(torch.equal(a, b) for a, b in zip(answers[0], other, strict=True))


def double(spec: OrientedSpec, seed: int = 0) -> tuple[OrientedLoss, Preds, Batch]:
    preds = as_dtype(predictions(spec, seed=seed), torch.float64)
    return OrientedLoss(spec), preds, as_dtype(targets(20, seed=seed), torch.float64)


@pytest.mark.parametrize("name", ["usual", "no distribution", "second cut"])
def test_image_and_boxes_turned_by_a_right_angle(name: str) -> None:
    criterion, preds, batch = double(SPECS[name])
    # The cell in row y and column x of an n x n grid comes to lie in row x and column n − 1 − y.
    order, offset = [], 0
    for stride in STRIDES:
        n = 96 // stride
        cells = offset + torch.arange(n * n).view(n, n)
        order.append(cells.flip(0).T.reshape(-1))
        offset += n * n
    source = torch.cat(order)
    turned = {key: preds[key][..., source] for key in LOGITS} | {"feats": preds["feats"]}
    turned["angle"] = turned["angle"] + math.pi / 2
    x, y, w, h, angle = batch["bboxes"].unbind(1)
    moved = {**batch, "bboxes": torch.stack([1 - y, x, w, h, angle + math.pi / 2], dim=1)}
    found, wanted = answer(criterion, turned, moved), answer(criterion, preds, batch)
    assert_near(found, (wanted[0], *(gradient[..., source] for gradient in wanted[1:])), 1e-9)


def test_exchange_of_images() -> None:
    criterion, preds, batch = double(SPEC)
    swapped = {key: preds[key].flip(0) for key in LOGITS} | {"feats": preds["feats"]}
    found, wanted = answer(criterion, swapped, {**batch, "batch_idx": 1 - batch["batch_idx"]}), answer(criterion, preds, batch)
    assert_near(found, (wanted[0], *(gradient.flip(0) for gradient in wanted[1:])), 1e-12)


@pytest.mark.parametrize("name", ["usual", "no distribution"])
def test_writings_of_one_rectangle(name: str) -> None:
    # Section 9: the same candidates, overlaps, box and angle terms; other distribution or distance terms, as the sides change places.
    criterion, preds, batch = double(SPECS[name])
    held, (wanted, *_) = criterion.assign(preds, batch), answer(criterion, preds, batch)
    x, y, w, h, angle = batch["bboxes"].unbind(1)
    for other in ((x, y, w, h, angle + math.pi), (x, y, h, w, angle + math.pi / 2), (x, y, h, w, angle - math.pi / 2)):
        rewritten = {**batch, "bboxes": torch.stack(other, dim=1)}
        assert same(criterion.assign(preds, rewritten), held)
        found, *_ = answer(criterion, preds, rewritten)
        torch.testing.assert_close(found[[0, 1, 3]], wanted[[0, 1, 3]], rtol=1e-9, atol=1e-9)
        assert (found[2] - wanted[2]).abs() > 1e-3 * wanted[2]


def test_half_a_turn_of_a_prediction_moves_its_centre() -> None:
    criterion, preds, batch = double(SPEC)
    turned = {**preds, "angle": preds["angle"] + math.pi}
    assert (criterion(turned, batch)[0] - criterion(preds, batch)[0]).abs()[0] > 1e-2
    torch.testing.assert_close(criterion.decode(turned)[..., 2:4], criterion.decode(preds)[..., 2:4])


def test_a_square_without_an_angle_gradient_from_its_box() -> None:
    # l = r and t = b: none through the centre; a square: none through the covariance; so the angle term's alone is left.
    spec = replace(SPEC, num_classes=1, reg_max=1, gains=(7.5, 0.5, 1.5, 0.0))
    preds = predictions(spec, 1)
    preds["boxes"][:] = 3.0
    batch = {"batch_idx": torch.zeros(1), "cls": torch.zeros(1, 1), "bboxes": torch.tensor([[0.5, 0.5, 0.4, 0.3, 0.4]])}
    for backend in ("torch", "native"):
        _, _, _, to_angle = answer(OrientedLoss(spec, backend=backend), preds, batch)
        assert to_angle.abs().max() < 1e-6


@pytest.mark.parametrize("bins", [1, 16])
def test_gradients_are_those_of_finite_differences(bins: int) -> None:
    spec = replace(SPEC, reg_max=bins)
    criterion, preds, batch = double(spec)
    held = criterion.assign(preds, batch)
    _, *gradients = answer(criterion, preds, batch, held)
    draw, step = torch.Generator().manual_seed(0), 1e-6
    way = {key: torch.randn(preds[key].shape, generator=draw, dtype=torch.float64) for key in LOGITS}

    def loss(at: float) -> float:
        moved = {key: preds[key] + at * way[key] for key in LOGITS} | {"feats": preds["feats"]}
        return float((criterion.loss_given(moved, batch, held)[0] * UPSTREAM).sum())

    slope = sum(float((gradient * way[key]).sum()) for key, gradient in zip(LOGITS, gradients, strict=True))
    assert (loss(step) - loss(-step)) / (2 * step) == pytest.approx(slope, rel=1e-6)


@backends
def test_nothing_held(backend: BackendName) -> None:
    preds, none = predictions(SPEC), {"batch_idx": torch.zeros(0), "cls": torch.zeros(0, 1), "bboxes": torch.zeros(0, 5)}
    tiny = {"batch_idx": torch.zeros(1), "cls": torch.zeros(1, 1), "bboxes": torch.tensor([[0.5, 0.5, 0.01, 0.3, 0.1]])}
    preds["angle"][0, 0, 5] = torch.nan  # which nothing reads
    preds["boxes"][0, 3, 7] = torch.inf
    for batch in (none, tiny):
        loss, to_boxes, _, to_angle = answer(OrientedLoss(SPEC, backend=backend), preds, batch)
        assert loss[[0, 2, 3]].tolist() == [0, 0, 0]
        assert loss[1] > 0
        assert (to_boxes == 0).all()
        assert (to_angle == 0).all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("key", ["angle", "boxes"])
@backends
def test_a_prediction_that_is_no_number(backend: BackendName, key: str, value: float) -> None:
    spec = replace(SPEC, reg_max=1)
    preds, batch, criterion = predictions(spec), targets(5), OrientedLoss(spec, backend=backend)
    candidates = criterion.metrics(preds, batch)
    image_of = batch["batch_idx"].long()[candidates.row]
    free = torch.ones(2, preds["boxes"].shape[-1], dtype=torch.bool)
    free[image_of, candidates.anchor] = False
    image, anchor = (int(index) for index in free.nonzero()[0])
    clean = answer(criterion, preds, batch)
    preds[key][image, 0, anchor] = value
    elsewhere = answer(criterion, preds, batch)
    assert torch.equal(elsewhere[0], clean[0])
    assert all(part.isfinite().all() for part in elsewhere)
    preds = predictions(spec)
    preds[key][image_of[0], 0, candidates.anchor[0]] = value
    assert criterion(preds, batch)[0].isnan().all()


def test_minus_infinity_is_a_bin_of_probability_zero() -> None:
    preds, batch = predictions(SPEC), targets(12)
    preds["boxes"][:, 3] = -math.inf
    for backend in ("torch", "native"):
        loss, *_ = answer(OrientedLoss(SPEC, backend=backend), preds, batch)
        assert loss[[0, 1, 3]].isfinite().all()


BAD = {
    "four columns": ({"bboxes": torch.rand(12, 4)}, {}, r"shape \(12, 4\); expected \(N, 5\)"),
    "as many numbers as five columns have": ({"bboxes": torch.rand(15, 4)}, {}, r"shape \(15, 4\); expected \(N, 5\)"),
    "NaN in an angle": ({"bboxes": torch.tensor([[0.5, 0.5, 0.2, 0.2, math.nan]] * 12)}, {}, "row 0"),
    "infinity in an angle": ({"bboxes": torch.tensor([[0.5, 0.5, 0.2, 0.2, math.inf]] * 12)}, {}, "row 0"),
    "a negative side": ({"bboxes": torch.tensor([[0.5, 0.5, 0.2, -0.2, 0.1]] * 12)}, {}, "row 0"),
    "an image that is not there": ({"batch_idx": torch.full((12,), 2.0)}, {}, "row 0"),
    "the image before the first": ({"batch_idx": torch.full((12,), -1.0)}, {}, "row 0"),
    "half an image": ({"batch_idx": torch.full((12,), 0.5)}, {}, "row 0"),
    "a class that is not there": ({"cls": torch.full((12, 1), 3.0)}, {}, "row 0"),
    "angles of two channels": ({}, {"angle": torch.zeros(2, 2, 189)}, r"\(2, 2, 189\); expected \(2, 1, 189\)"),
    "angles of no channel": ({}, {"angle": torch.zeros(2, 0, 189)}, r"\(2, 0, 189\); expected \(2, 1, 189\)"),
    "angles in another dtype": ({}, {"angle": torch.zeros(2, 1, 189, dtype=torch.float64)}, "float32 .*float64"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    batch, preds, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        OrientedLoss(SPEC)(predictions(SPEC) | preds, targets() | batch)


def test_bad_input_of_an_empty_batch_and_a_missing_angle() -> None:
    preds, none = predictions(SPEC), {"batch_idx": torch.zeros(0), "cls": torch.zeros(0, 1), "bboxes": torch.zeros(0, 4)}
    with pytest.raises(ValueError, match=r"shape \(0, 4\); expected \(N, 5\)"):
        OrientedLoss(SPEC)(preds, none)
    del preds["angle"]
    with pytest.raises(ValueError, match="angle"):
        OrientedLoss(SPEC)(preds, targets())


def test_angles_of_more_than_a_turn_are_taken_unless_validated() -> None:
    preds, batch = predictions(SPEC), targets()
    wanted, *_ = answer(OrientedLoss(SPEC), preds, batch)
    batch["bboxes"][:, 4] += 40 * math.pi
    found, *_ = answer(OrientedLoss(SPEC), preds, batch)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="row 0 has the angle"):
        OrientedLoss(SPEC, validate=True)(preds, batch)


def test_targets_in_any_order_and_dtype_and_unchanged() -> None:
    preds, batch = predictions(SPEC), targets(30)
    criterion = OrientedLoss(SPEC)
    wanted, *_ = answer(criterion, preds, batch)
    before = {key: value.clone() for key, value in batch.items()}
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    shuffled = {key: value[order] for key, value in batch.items()}
    torch.testing.assert_close(answer(criterion, preds, shuffled)[0], wanted)
    torch.testing.assert_close(answer(criterion, preds, as_dtype(batch, torch.float64))[0], wanted)
    assert all(torch.equal(batch[key], before[key]) for key in batch)


def test_the_older_layout() -> None:
    preds, batch = predictions(SPEC), targets()
    maps: list[Tensor] = []
    start = 0
    for stride in STRIDES:
        n = 96 // stride
        cells = torch.cat([preds["boxes"], preds["scores"]], dim=1)[..., start : start + n * n]
        maps.append(cells.reshape(2, -1, n, n))
        start += n * n
    older: Any = (maps, preds["angle"])
    found, _ = OrientedLoss(SPEC)(older, batch)
    torch.testing.assert_close(found, OrientedLoss(SPEC)(preds, batch)[0])


@pytest.mark.parametrize(
    ("release", "lengthen", "floor"),
    [("8.4.0", "never", 0.0), ("8.4.60", "first", 0.0), ("8.4.128", "second", 0.01), ("9.0.0", "second", 0.01)],
)
def test_definitions_of_older_releases(release: str, lengthen: str, floor: float) -> None:
    spec = OrientedSpec.for_release(release, num_classes=3)
    assert isinstance(spec, OrientedSpec)
    assert (spec.lengthen, spec.term_floor) == (lengthen, floor)


def test_a_definition_without_an_angle_term() -> None:
    spec = OrientedSpec.for_release("8.3.253", num_classes=3)
    preds, batch = predictions(spec), targets()
    loss, items = OrientedLoss(spec)(preds, batch)
    assert list(items) == ["box_loss", "cls_loss", "dfl_loss"]
    assert loss.shape == (3,)
    with pytest.raises(ValueError, match="the kernels compute the angle term and turned targets"):
        OrientedLoss(spec, backend="native")(preds, batch)


@backends
def test_two_predictions_of_one_head(backend: BackendName) -> None:
    spec, batch = replace(SPEC, reg_max=1), targets()
    both = {name: predictions(spec, seed=seed) for seed, name in enumerate(("one2many", "one2one"))}
    criterion = EndToEndLoss(spec, epochs=10, backend=backend)
    criterion.update()
    loss, items = criterion(both, batch)
    many, _ = OrientedLoss(spec, backend=backend)(both["one2many"], batch)
    one, logged = OrientedLoss(replace(spec, topk=7, topk2=1), backend=backend)(both["one2one"], batch)
    share = (1 - 1 / 9) * 0.7 + 0.1
    torch.testing.assert_close(loss, share * many + (1 - share) * one)
    assert items == logged
    assert list(items) == ["box_loss", "cls_loss", "l1_loss", "angle_loss"]
