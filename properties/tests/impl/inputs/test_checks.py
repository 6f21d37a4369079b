"""Bad input, row by row of spec section 10: what the twin does, and that the reference still does what the row says of it."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from oracle.cases.build import build
from oracle.cases.case import Box, Case, DtypeName, Inputs, Prediction, Setting
from oracle.contract.run import run_given, run_loss
from oracle.definition.criterion import ExactCriterion
from oracle.reference.criterion import ReferenceCriterion
from twinloss import DetectionLoss, LossSpec

SPEC = LossSpec(num_classes=3)
# Image 1 has no box. Row 2 and row 3 contest anchors.
BOXES = (
    Box(0, 0, 20, 20, 24, 24),
    Box(0, 2, 44, 40, 30, 20),
    Box(2, 1, 32, 32, 40, 40),
    Box(2, 1, 36, 30, 30, 40),
    Box(2, 0, 12, 52, 16, 16),
)
CASE = Case(SPEC, (64, 64), 3, BOXES, Prediction("near", seed=1, spread=0.3))
ROWS = range(len(BOXES))
DTYPES: tuple[DtypeName, ...] = ("float32", "float64", "float16", "bfloat16")
NOT_FINITE = (math.nan, math.inf, -math.inf)


def changed(key: str, row: int | tuple[int, int], value: float) -> Inputs:
    """The case with one value of its targets replaced."""
    preds, batch = build(CASE)
    batch[key][row] = value
    return Inputs(preds, batch)


def loss_of(inputs: Inputs, spec: LossSpec = SPEC, **options: Any) -> Tensor:
    loss, _ = DetectionLoss(spec, **options)(*inputs)
    return loss.detach()


def reference_loss(inputs: Inputs, spec: LossSpec = SPEC) -> Tensor:
    loss, _ = ReferenceCriterion(spec)(*inputs)
    return loss.detach()


def same(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(found.double(), expected.double(), rtol=tolerance, atol=tolerance, equal_nan=True)


def refuses(inputs: Inputs, row: int, value: float) -> None:
    """The message names the row and the value, whatever the criterion's other options."""
    shown = "nan" if math.isnan(value) else str(value)
    for options in ({}, {"ties": "reference"}, {"conflicts": "pickers"}, {"validate": True}):
        with pytest.raises(ValueError, match=rf"row {row}\b") as caught:
            loss_of(inputs, **options)
        assert shown in str(caught.value)


# Row 1: batch_idx not sorted.


@settings(max_examples=settings().max_examples // 4 + 1)
@given(st.permutations(ROWS))
def test_unsorted_rows_give_the_loss_of_the_sorted_batch(order: list[int]) -> None:
    """Rows of one image keep their order, since it decides between equals; rows of different images may arrive in any."""
    order = sorted_within_images(order)
    preds, batch = build(CASE, Setting(dtype="float64"))
    shuffled = {key: tensor[order] for key, tensor in batch.items()}
    expected = run_loss(DetectionLoss(SPEC), Inputs(preds, batch), Setting(dtype="float64"))
    found = run_loss(DetectionLoss(SPEC), Inputs(preds, shuffled), Setting(dtype="float64"))
    same(found.loss, expected.loss, 1e-12)
    same(found.gradients["boxes"], expected.gradients["boxes"], 1e-12)
    same(found.gradients["scores"], expected.gradients["scores"], 1e-12)


def sorted_within_images(order: list[int]) -> list[int]:
    """The order in which images alternate as in ``order``, and the rows of each image are ascending."""
    left = {image: [row for row in ROWS if BOXES[row].image == image] for image in {box.image for box in BOXES}}
    return [left[BOXES[row].image].pop(0) for row in order]


def test_reference_needs_sorted_rows() -> None:
    preds, batch = build(CASE)
    expected, raised, misplaced = reference_loss(Inputs(preds, batch)), 0, 0
    for order in itertools.permutations(ROWS):
        if list(order) != sorted_within_images(list(order)):
            continue
        try:
            loss = reference_loss(Inputs(preds, {key: tensor[list(order)] for key, tensor in batch.items()}))
        except IndexError:
            raised += 1
        else:
            misplaced += not torch.allclose(loss, expected, rtol=1e-5)
    assert raised > misplaced > 0


# Rows 2 and 3: batch_idx out of range, negative, fractional, NaN.


@pytest.mark.parametrize("value", [3.0, 100.0, -1.0, 0.5, 1.0000001, math.nan, math.inf])
@pytest.mark.parametrize("row", [0, 2, 4])
def test_image_index_that_is_none(row: int, value: float) -> None:
    inputs = changed("batch_idx", row, value)
    refuses(inputs, row, float(inputs.batch["batch_idx"][row]))


def test_reference_on_image_index_that_is_none() -> None:
    with pytest.raises(RuntimeError):
        reference_loss(changed("batch_idx", 4, 3.0))
    with pytest.raises(RuntimeError):
        reference_loss(changed("batch_idx", 4, math.nan))
    # Fractions are cut off, and −1 counts from the end: neither is told.
    clean = reference_loss(build(CASE))
    same(reference_loss(changed("batch_idx", 4, 2.5)), clean)
    negative = reference_loss(changed("batch_idx", 4, -1.0))
    assert negative.isfinite().all()
    assert not torch.allclose(negative, clean, rtol=1e-2)


# Rows 4 and 5: class out of range, negative, fractional, NaN.


@pytest.mark.parametrize("value", [3.0, 80.0, -1.0, -4.0, 1.5, math.nan, -math.inf])
@pytest.mark.parametrize("row", [0, 3])
def test_class_that_is_none(row: int, value: float) -> None:
    refuses(changed("cls", row, value), row, value)


def test_reference_on_class_that_is_none() -> None:
    for value in (3.0, math.nan, -4.0):
        with pytest.raises(IndexError):
            reference_loss(changed("cls", 0, value))
    same(reference_loss(changed("cls", 0, 0.9)), reference_loss(build(CASE)))
    # −1 reads the metric of the last class and puts the target at class 0: a loss, and a wrong one.
    assert reference_loss(changed("cls", 0, -1.0)).isfinite().all()


# Rows 6 and 7: coordinates that are not finite, sizes that are negative.


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize("column", range(4))
def test_coordinate_that_is_not_finite(column: int, value: float) -> None:
    refuses(changed("bboxes", (3, column), value), 3, value)


@pytest.mark.parametrize("column", [2, 3])
def test_negative_size(column: int) -> None:
    refuses(changed("bboxes", (1, column), -0.25), 1, -0.25)


@pytest.mark.parametrize(("column", "value"), [(0, math.nan), (1, math.nan), (2, math.nan), (3, math.nan), (0, -math.inf)])
def test_reference_drops_a_box_that_is_not_finite(column: int, value: float) -> None:
    without = dataclasses.replace(CASE, boxes=BOXES[:4])
    preds, _ = build(CASE)
    same(reference_loss(changed("bboxes", (4, column), value)), reference_loss(Inputs(preds, build(without).batch)))


def test_reference_ignores_a_box_of_negative_size() -> None:
    without = dataclasses.replace(CASE, boxes=BOXES[:4])
    preds, _ = build(CASE)
    same(reference_loss(changed("bboxes", (4, 2), -0.25)), reference_loss(Inputs(preds, build(without).batch)))


# Row 8: zero-area boxes, and boxes outside of the image.


@pytest.mark.parametrize(
    "box", [(40, 40, 0, 30), (40, 40, 0, 0), (90, 40, 20, 20), (-10, 8, 30, 30), (-4, 30, 30, 30), (64, 64, 8, 8)], ids=str
)
def test_degenerate_and_outside_boxes_as_the_reference(box: tuple[float, ...]) -> None:
    """Kept when cx + cy > 0, else dropped. In float64, so that rounding excuses nothing."""
    setting = Setting(dtype="float64")
    case = dataclasses.replace(CASE, boxes=(*BOXES, Box(2, 2, *box)))
    inputs = build(case, setting)
    expected = run_loss(ReferenceCriterion(SPEC), inputs, setting)
    found = run_loss(DetectionLoss(SPEC, ties="reference"), inputs, setting)
    same(found.loss, expected.loss, 1e-10)
    same(found.gradients["boxes"], expected.gradients["boxes"], 1e-10)
    same(found.gradients["scores"], expected.gradients["scores"], 1e-10)
    valid = len(BOXES) in DetectionLoss(SPEC).targets(*inputs).row.tolist()
    assert valid == (box[0] + box[1] > 0)


# Row 9: targets in other dtypes.


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("logits", DTYPES)
def test_targets_in_other_dtypes_are_converted(dtype: torch.dtype, logits: DtypeName) -> None:
    setting = Setting(dtype=logits)
    preds, batch = build(CASE, setting)
    other = {key: tensor.to(dtype) for key, tensor in batch.items()}
    # Half precision rounds the coordinates, so the expected loss is that of the rounded ones.
    plain = {key: tensor.float() for key, tensor in other.items()}
    found = run_loss(DetectionLoss(SPEC), Inputs(preds, other), setting)
    expected = run_loss(DetectionLoss(SPEC), Inputs(preds, plain), setting)
    assert torch.equal(found.loss, expected.loss)
    assert torch.equal(found.gradients["boxes"], expected.gradients["boxes"])


def test_float64_targets_are_kept_with_float64_logits() -> None:
    setting = Setting(dtype="float64")
    preds, batch = build(CASE, setting)
    moved = batch | {"bboxes": batch["bboxes"] + 1e-12}
    before, after = (run_loss(DetectionLoss(SPEC), Inputs(preds, b), setting).loss for b in (batch, moved))
    assert not torch.equal(before, after)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_whole_numbers_serve_as_image_index_and_class(dtype: torch.dtype) -> None:
    preds, batch = build(CASE)
    whole = batch | {key: batch[key].to(dtype) for key in ("batch_idx", "cls")}
    assert torch.equal(loss_of(Inputs(preds, whole)), loss_of(Inputs(preds, batch)))
    assert torch.equal(loss_of(Inputs(preds, whole | {"cls": whole["cls"].reshape(-1)})), loss_of(Inputs(preds, batch)))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8])
def test_a_class_in_a_dtype_that_does_not_hold_the_number_of_classes(dtype: torch.dtype) -> None:
    case = replace(CASE, spec=replace(CASE.spec, num_classes=300))
    preds, batch = build(case)
    assert torch.equal(loss_of(Inputs(preds, batch | {"cls": batch["cls"].to(dtype)}), case.spec), loss_of(Inputs(preds, batch), case.spec))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_reference_needs_float32_targets(dtype: torch.dtype) -> None:
    preds, batch = build(CASE)
    with pytest.raises(RuntimeError):
        reference_loss(Inputs(preds, {key: tensor.to(dtype) for key, tensor in batch.items()}))


# Row 10: logits that are not finite.

OUTSIDE, INSIDE = 0, 28  # In image 2: an anchor of no box, and one that boxes 2 and 3 contest, both of the finest level.


def poisoned(name: str, where: tuple[int, int, int], value: float, dtype: DtypeName = "float32") -> Inputs:
    """The case with one logit (image, channel, anchor) replaced."""
    inputs = build(CASE, Setting(dtype=dtype))
    with torch.no_grad():
        inputs.preds[name][where] = value
    return inputs


def gradients(inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    loss, _ = DetectionLoss(SPEC)(*inputs)
    boxes, scores = torch.autograd.grad(loss.sum(), [inputs.preds["boxes"], inputs.preds["scores"]])
    return loss.detach(), boxes, scores


def test_the_anchors_are_what_they_are_called() -> None:
    pairs = DetectionLoss(SPEC).metrics(*build(CASE))
    assert {2, 3} <= set(pairs.row[pairs.anchor == INSIDE].tolist())
    assert OUTSIDE not in pairs.anchor[pairs.row >= 2].tolist()


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_in_what_a_candidate_is_judged_by_makes_all_terms_nan(dtype: DtypeName) -> None:
    own_class = BOXES[2].label
    assert loss_of(poisoned("scores", (2, own_class, INSIDE), math.nan, dtype)).isnan().all()
    assert loss_of(poisoned("boxes", (2, 5, INSIDE), math.nan, dtype)).isnan().all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("where", [(2, 2, INSIDE), (2, 0, OUTSIDE), (1, 0, 3)])
def test_nan_in_any_other_score_makes_the_classification_nan_alone(where: tuple[int, int, int], dtype: DtypeName) -> None:
    clean, found = loss_of(build(CASE, Setting(dtype=dtype))), loss_of(poisoned("scores", where, math.nan, dtype))
    assert found[1].isnan()
    assert torch.equal(found[[0, 2]], clean[[0, 2]])


@pytest.mark.parametrize("value", NOT_FINITE)
def test_box_logits_that_nothing_reads_change_nothing(value: float) -> None:
    clean, _, clean_scores = gradients(build(CASE))
    loss, boxes, scores = gradients(poisoned("boxes", (2, 5, OUTSIDE), value))
    assert torch.equal(loss, clean)
    assert torch.equal(scores, clean_scores)
    assert boxes.isfinite().all()
    assert (boxes[2, :, OUTSIDE] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_masked_class_contributes_its_limit(dtype: DtypeName) -> None:
    """Scores of −inf are how classes are masked: no probability, no loss, no gradient."""
    setting = Setting(dtype=dtype)
    case = dataclasses.replace(CASE, boxes=tuple(dataclasses.replace(box, label=0) for box in BOXES))
    masked, limit = build(case, setting), build(case, setting)
    with torch.no_grad():
        masked.preds["scores"][:, 2] = -math.inf
        limit.preds["scores"][:, 2] = -1e4
    (loss, boxes, scores), (expected, expected_boxes, expected_scores) = gradients(masked), gradients(limit)
    assert torch.equal(loss, expected)
    assert torch.equal(boxes, expected_boxes)
    assert torch.equal(scores, expected_scores)
    assert loss.isfinite().all()
    assert (scores[:, 2] == 0).all()


def test_a_masked_class_at_a_candidate_takes_its_chance_away() -> None:
    masked, limit = (poisoned("scores", (2, BOXES[2].label, INSIDE), value) for value in (-math.inf, -1e4))
    assert torch.equal(loss_of(masked), loss_of(limit))
    assert (2, INSIDE) in held(build(CASE))
    assert (2, INSIDE) not in held(masked)


def held(inputs: Inputs) -> set[tuple[int, int]]:
    """Image and anchor of what is held."""
    assignment = DetectionLoss(SPEC).assign(*inputs)
    return set(zip(assignment.image.tolist(), assignment.anchor.tolist(), strict=True))


def test_an_infinite_score_makes_the_classification_infinite() -> None:
    found = loss_of(poisoned("scores", (2, 0, OUTSIDE), math.inf))
    assert found[1] == math.inf
    assert found[[0, 2]].isfinite().all()


@settings(max_examples=settings().max_examples // 2 + 1)
@given(
    name=st.sampled_from(["boxes", "scores"]),
    image=st.integers(0, 2),
    channel=st.integers(0, 63),
    anchor=st.integers(0, CASE.num_anchors - 1),
    value=st.sampled_from(NOT_FINITE),
    dtype=st.sampled_from(DTYPES),
    ties=st.sampled_from(["stable", "reference"]),
)
def test_no_logit_raises(name: str, image: int, channel: int, anchor: int, value: float, dtype: DtypeName, ties: Any) -> None:
    channels = SPEC.num_classes if name == "scores" else 4 * SPEC.reg_max
    inputs = poisoned(name, (image, channel % channels, anchor), value, dtype)
    loss, items = DetectionLoss(SPEC, ties=ties)(*inputs)
    loss.sum().backward()
    assert loss.shape == (3,)
    assert len(items) == 3


def test_reference_on_logits_that_are_not_finite() -> None:
    own_class = BOXES[2].label
    assert reference_loss(poisoned("scores", (2, own_class, INSIDE), math.nan)).isnan().all()
    assert reference_loss(poisoned("boxes", (2, 5, INSIDE), math.nan)).isnan().all()
    assert reference_loss(poisoned("scores", (2, 0, OUTSIDE), math.nan)).isnan().tolist() == [False, True, False]
    assert reference_loss(poisoned("scores", (2, 0, OUTSIDE), -math.inf)).isnan().tolist() == [False, True, False]
    assert reference_loss(poisoned("scores", (2, 0, OUTSIDE), math.inf))[1] == math.inf
    inputs = poisoned("boxes", (2, 5, OUTSIDE), math.nan)
    loss, _ = ReferenceCriterion(SPEC)(*inputs)
    same(loss.detach(), reference_loss(build(CASE)))
    (gradient,) = torch.autograd.grad(loss.sum(), inputs.preds["boxes"])
    assert gradient.isnan().any()


# Row 11: fewer anchors than K.

FEW = dataclasses.replace(CASE, spec=LossSpec(num_classes=3, strides=(32,)))


def test_fewer_anchors_than_k_works() -> None:
    assert FEW.num_anchors < FEW.spec.topk
    setting = Setting(dtype="float64")
    inputs = build(FEW, setting)
    all_of_them = dataclasses.replace(FEW.spec, topk=FEW.num_anchors)
    for ties in ("stable", "reference"):
        found = run_loss(DetectionLoss(FEW.spec, ties=ties), inputs, setting)
        as_many = run_loss(DetectionLoss(all_of_them, ties=ties), inputs, setting)
        assert torch.equal(found.loss, as_many.loss)
        exact = run_loss(ExactCriterion(FEW.spec), inputs, setting)
        same(found.loss, exact.loss, 1e-10)
        same(found.gradients["boxes"], exact.gradients["boxes"], 1e-10)


def test_reference_needs_k_anchors() -> None:
    with pytest.raises(RuntimeError):
        reference_loss(build(FEW), FEW.spec)
    empty = dataclasses.replace(FEW, boxes=())
    assert reference_loss(build(empty), FEW.spec).isfinite().all()


# Row 12: logits, maps and targets that disagree.

ANCHORS, CHANNELS = CASE.num_anchors, 4 * SPEC.reg_max
DISAGREEMENTS: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], tuple[str, ...]]] = {
    "one anchor less": (lambda p: {"boxes": p["boxes"][:, :, 1:]}, (str(ANCHORS - 1), str(ANCHORS))),
    "scores of another image size": (lambda p: {"scores": p["scores"][:, :, :64]}, ("64", str(ANCHORS))),
    "another reg_max": (lambda p: {"boxes": p["boxes"][:, :32]}, ("32", str(CHANNELS))),
    "another number of classes": (lambda p: {"scores": p["scores"][:, :2]}, ("2", "3")),
    "one image less": (lambda p: {"scores": p["scores"][:2]}, ("3", "2")),
    "channels last": (lambda p: {"boxes": p["boxes"].transpose(1, 2)}, (str(CHANNELS), str(ANCHORS))),
    "no batch dimension": (lambda p: {"boxes": p["boxes"][0]}, (str((CHANNELS, ANCHORS)), "(B,")),
    "two dtypes": (lambda p: {"scores": p["scores"].half()}, ("float32", "float16")),
    "two devices": (lambda p: {"scores": p["scores"].detach().to("meta")}, ("cpu", "meta")),
    "whole numbers": (lambda p: {"boxes": p["boxes"].long(), "scores": p["scores"].long()}, ("int64", "float32")),
    "one level less": (lambda p: {"feats": p["feats"][:2]}, ("2", "3")),
    "one level more": (lambda p: {"feats": [*p["feats"], p["feats"][-1]]}, ("4", "3")),
    "maps of another image": (lambda p: {"feats": [torch.zeros(1, 1, 4, 8), *p["feats"][1:]]}, ("52", str(ANCHORS))),
}


@pytest.mark.parametrize("name", DISAGREEMENTS)
def test_logits_that_disagree(name: str) -> None:
    change, shown = DISAGREEMENTS[name]
    preds, batch = build(CASE)
    with pytest.raises(ValueError, match=r"preds|feats|maps") as caught:
        loss_of(Inputs(preds | change(preds), batch))
    assert all(part in str(caught.value) for part in shown), str(caught.value)


def test_reference_accepts_two_dtypes() -> None:
    preds, batch = build(CASE)
    found = reference_loss(Inputs(preds | {"scores": preds["scores"].double()}, batch))
    same(found, reference_loss(build(CASE)), 1e-4)


@pytest.mark.parametrize("key", ["batch_idx", "cls", "bboxes"])
def test_targets_that_disagree_in_their_rows(key: str) -> None:
    preds, batch = build(CASE)
    with pytest.raises(ValueError, match=key) as caught:
        loss_of(Inputs(preds, batch | {key: batch[key][:4]}))
    assert "4" in str(caught.value)
    assert "5" in str(caught.value)


def test_targets_of_another_shape() -> None:
    preds, batch = build(CASE)
    with pytest.raises(ValueError, match=r"bboxes.*\(5, 5\)"):
        loss_of(Inputs(preds, batch | {"bboxes": torch.zeros(5, 5)}))


def test_an_assignment_made_elsewhere_meets_the_same_checks() -> None:
    inputs = changed("cls", 0, 7.0)
    assignment = DetectionLoss(SPEC).assign(*build(CASE))
    with pytest.raises(ValueError, match="row 0"):
        run_given(DetectionLoss(SPEC), inputs, Setting(), assignment)
