"""The native backend: the results of torch, the same bits on any number of threads, and a reason and a remedy in each refusal."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from torch import Tensor

from oracle.cases.build import build
from oracle.cases.case import Box, Case, Inputs, Prediction, Setting
from properties.strategies import cases
from twinloss import Assignment, DetectionLoss, LossSpec
from twinloss.backends.native import availability
from twinloss.backends.registry import BackendName

SPEC = LossSpec(num_classes=7)
BOXES = (
    Box(1, 2, 60.0, 48.0, 33.0, 47.0),
    Box(0, 6, 48, 40, 20, 40),
    Box(0, 6, 48, 40, 20, 40),
    Box(0, 3, 100, 70, 9, 7),
    Box(2, 0, 64, 48, 120, 90),
    Box(2, 1, 60, 50, 100, 70),
)
CASE = Case(SPEC, (96, 128), 3, BOXES, Prediction("near", spread=0.5))
UPSTREAM = torch.tensor([1.0, 0.25, -3.0])

Answer = tuple[Tensor, Tensor, Tensor]


def answer(criterion: DetectionLoss, inputs: Inputs, assignment: Assignment | None = None) -> Answer:
    """Loss, and gradients of a weighted sum of it; the leaves' own gradients stay as they are."""
    boxes, scores = (inputs.preds[name].detach().requires_grad_() for name in ("boxes", "scores"))
    preds = {**inputs.preds, "boxes": boxes, "scores": scores}
    loss, _ = criterion(preds, inputs.batch) if assignment is None else criterion.loss_given(preds, inputs.batch, assignment)
    to_boxes, to_scores = torch.autograd.grad((loss * UPSTREAM).sum(), (boxes, scores))
    return loss.detach(), to_boxes, to_scores


def native(spec: LossSpec = SPEC, **options: Any) -> DetectionLoss:
    return DetectionLoss(spec, backend="native", **options)


def same_bits(one: Answer, other: Answer) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def assert_near(found: Answer, wanted: Answer, tolerance: float = 2e-5) -> None:
    for a, b in zip(found, wanted, strict=True):
        scale = max(1e-3, float(b.abs().max())) if b.numel() else 1.0
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * scale)


SPECS = {
    "usual": SPEC,
    "no distribution": dataclasses.replace(SPEC, reg_max=1),
    "few bins": dataclasses.replace(SPEC, reg_max=5),
    "many bins": dataclasses.replace(SPEC, reg_max=33),
    "second cut": dataclasses.replace(SPEC, topk=7, topk2=1),
    "more kept than anchors": dataclasses.replace(SPEC, topk=5000),
    "other exponents": dataclasses.replace(SPEC, alpha=1.0, beta=4.0),
    "class weights": dataclasses.replace(SPEC, class_weights=(0.5, 2.0, 1.0, 3.0, 0.0, 1.0, 1.5)),
    "oldest": dataclasses.replace(SPEC, lengthen="never", anchor_weights="sum"),
    "no distance term": dataclasses.replace(SPEC, reg_max=1, distance_term=False),
    "single level": dataclasses.replace(SPEC, strides=(16,)),
}


@pytest.mark.parametrize("conflicts", ["overlap", "pickers"])
@pytest.mark.parametrize("name", SPECS)
def test_as_on_torch(name: str, conflicts: Any) -> None:
    case = dataclasses.replace(CASE, spec=SPECS[name])
    inputs = build(case)
    ours, theirs = (DetectionLoss(case.spec, backend=backend, conflicts=conflicts) for backend in ("native", "torch"))
    held, wanted = ours.assign(*inputs), theirs.assign(*inputs)
    assert len(held) > 0
    for column in ("image", "anchor", "box"):
        assert torch.equal(getattr(held, column), getattr(wanted, column))
    torch.testing.assert_close(held.weight, wanted.weight, rtol=1e-4, atol=1e-6)
    # With the same weights, the terms must agree far more closely than metrics to the sixth power do.
    assert_near(answer(ours, inputs, wanted), answer(theirs, inputs, wanted))


@given(cases())
def test_terms_as_on_torch_for_any_batch(case: Case) -> None:
    inputs = build(case, Setting("float32"))
    ours, theirs = (DetectionLoss(case.spec, backend=backend) for backend in ("native", "torch"))
    held = theirs.assign(*inputs)
    loss, wanted = (criterion.loss_given(*inputs, held)[0] for criterion in (ours, theirs))
    torch.testing.assert_close(loss, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", range(20))
def test_gradients_at_kinks_are_those_on_torch(seed: int) -> None:
    # Corners of predictions and ground truth on half cells: equal ones, sides that touch, distances that are right, boxes without width.
    draw, spec, anchors = torch.Generator().manual_seed(seed), LossSpec(num_classes=1, reg_max=1, strides=(8,)), 16
    sides = torch.randint(-1, 6, (1, 4, anchors), generator=draw) / 2.0
    low, size = (torch.randint(least, 5, (anchors, 2), generator=draw) / 8.0 for least in (0, 1))
    batch = {"batch_idx": torch.zeros(anchors), "cls": torch.zeros(anchors, 1), "bboxes": torch.cat([low + size / 2, size], 1)}
    each = torch.arange(anchors)
    held = Assignment(torch.zeros_like(each), each, each, torch.ones(anchors))

    def gradient(backend: BackendName, term: int) -> Tensor:
        boxes = sides.clone().requires_grad_()
        preds = {"boxes": boxes, "scores": torch.zeros(1, 1, anchors), "feats": [torch.empty(1, 5, 4, 4)]}
        DetectionLoss(spec, backend=backend).loss_given(preds, batch, held)[0][term].backward()
        assert boxes.grad is not None
        return boxes.grad

    for term in (0, 2):
        torch.testing.assert_close(gradient("native", term), gradient("torch", term), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_same_bits_on_any_number_of_threads(dtype: Any) -> None:
    inputs, before, answers = build(CASE, Setting(dtype)), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            answers.append(answer(native(), inputs))
    finally:
        torch.set_num_threads(before)
    assert same_bits(answers[0], answers[1])
    assert same_bits(answers[0], answers[2])
    assert answers[0][1].dtype == getattr(torch, dtype)


def test_slices_of_one_map_are_read_where_they_lie() -> None:
    plain = build(CASE)
    whole = torch.cat([plain.preds["boxes"].detach(), plain.preds["scores"].detach()], dim=1)
    boxes, scores = whole.split([4 * SPEC.reg_max, SPEC.num_classes], dim=1)
    assert not scores.is_contiguous()
    assert same_bits(answer(native(), Inputs({**plain.preds, "boxes": boxes, "scores": scores}, plain.batch)), answer(native(), plain))


def test_what_is_saved_for_backward_may_come_back_laid_out_otherwise() -> None:
    plain = build(CASE)
    whole = torch.cat([plain.preds["boxes"].detach(), plain.preds["scores"].detach()], dim=1)
    boxes, scores = whole.split([4 * SPEC.reg_max, SPEC.num_classes], dim=1)
    sliced = Inputs({**plain.preds, "boxes": boxes, "scores": scores}, plain.batch)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor.contiguous(), lambda tensor: tensor):
        assert same_bits(answer(native(), sliced), answer(native(), plain))


@pytest.mark.parametrize("value", [0.0, 1e-3, 1.0, 5.0, 17.0, 30.0, 80.0, 87.2, 87.4, 95.0, 150.0, 1e4, 3e30])
def test_softplus_and_its_gradient_at_any_size(value: float) -> None:
    for logit in (value, -value):
        inputs = build(dataclasses.replace(CASE, boxes=()))
        scores = torch.full_like(inputs.preds["scores"], logit)
        loss, _, gradient = answer(native(), Inputs({**inputs.preds, "scores": scores}, inputs.batch))
        x = float(scores[0, 0, 0])
        wanted = (max(x, 0) + math.log1p(math.exp(-abs(x)))) * scores.numel() * SPEC.gains[1] * len(scores)
        assert float(loss[1]) == pytest.approx(wanted, rel=1e-6, abs=1e-30)
        sigmoid = torch.tensor(x, dtype=torch.float64).sigmoid() * SPEC.gains[1] * len(scores) * UPSTREAM[1]
        torch.testing.assert_close(gradient.double(), sigmoid.expand(gradient.shape), rtol=1e-6, atol=1e-35)


@pytest.mark.parametrize(("where", "terms"), [("boxes", [0, 1, 2]), ("own score", [0, 1, 2]), ("other score", [1])])
def test_a_nan_shows_in_the_terms_that_read_it(where: str, terms: list[int]) -> None:
    inputs = build(CASE)
    held = native().assign(*inputs)
    image, anchor, box = int(held.image[0]), int(held.anchor[0]), int(held.box[0])
    label = int(inputs.batch["cls"].reshape(-1)[box])
    with torch.no_grad():
        if where == "boxes":
            inputs.preds["boxes"][image, 3, anchor] = torch.nan
        else:
            inputs.preds["scores"][image, label if where == "own score" else (label + 1) % SPEC.num_classes, anchor] = torch.nan
    if where == "other score":  # unless another box of that class could have the anchor
        assert all(int(c) != (label + 1) % SPEC.num_classes for c in inputs.batch["cls"].reshape(-1)[inputs.batch["batch_idx"] == image])
    loss, _ = native()(*inputs)
    assert [term for term in range(3) if loss[term].isnan()] == terms


def test_infinite_scores() -> None:
    inputs = build(CASE)
    with torch.no_grad():
        inputs.preds["scores"][:, 4] = -torch.inf  # a masked class
    masked, _ = native()(*inputs)
    few = DetectionLoss(SPEC, backend="torch")(*inputs)[0]
    torch.testing.assert_close(masked, few, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        inputs.preds["scores"][0, 4, 0] = torch.inf
    assert native()(*inputs)[0].isinf().tolist() == [False, True, False]


def test_backward_twice_and_of_one_leaf_alone() -> None:
    inputs = build(CASE)
    boxes, scores = inputs.preds["boxes"].detach().requires_grad_(), inputs.preds["scores"].detach()
    loss, _ = native()({**inputs.preds, "boxes": boxes, "scores": scores}, inputs.batch)
    first = torch.autograd.grad(loss.sum(), boxes, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(loss.sum(), boxes)[0])
    with torch.no_grad():
        assert not native()({**inputs.preds, "boxes": boxes}, inputs.batch)[0].requires_grad


def test_logits_changed_before_backward_are_an_error() -> None:
    inputs = build(CASE)
    logits = inputs.preds["scores"].detach().requires_grad_() * 1
    loss, _ = native()({**inputs.preds, "scores": logits}, inputs.batch)
    logits.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.sum().backward()


def test_a_given_assignment_is_checked() -> None:
    inputs = build(CASE)
    held = native().assign(*inputs)
    for column, value in (("anchor", 10**6), ("image", -1), ("box", 99), ("anchor", int(held.anchor[0]))):
        wrong = getattr(held, column).clone()
        wrong[1] = value
        with pytest.raises(ValueError, match=r"assignment entry 1 is image"):
            native().loss_given(*inputs, dataclasses.replace(held, **{column: wrong}))


def test_an_assignment_to_a_row_whose_class_does_not_exist_is_no_crash_even_unchecked() -> None:
    inputs = build(CASE)
    held = native().assign(*inputs)
    labels = inputs.batch["cls"].clone()
    labels[int(held.box[0])] = 10**6
    with pytest.raises(ValueError, match=r"assignment entry 0 is image .* of a class that exists"):
        native(validate=False).loss_given(inputs.preds, {**inputs.batch, "cls": labels}, held)


def relaid(name: str) -> Inputs:
    inputs = build(CASE)
    return Inputs({**inputs.preds, name: inputs.preds[name].detach().transpose(1, 2).contiguous().transpose(1, 2)}, inputs.batch)


REFUSED: dict[str, tuple[Callable[[], Inputs], dict[str, Any], str]] = {
    "float64": (lambda: build(CASE, Setting("float64")), {}, "float64"),
    "reference's ties": (lambda: build(CASE), {"ties": "reference"}, "ties='reference'"),
    "anchors apart": (lambda: relaid("scores"), {}, "elements apart"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_cannot_serve_is_refused_in_plain_words_or_left_to_torch(name: str) -> None:
    make, options, words = REFUSED[name]
    inputs = make()
    with pytest.raises(ValueError, match=rf"backend='native' cannot serve this call: .*{words}.*use backend='torch'"):
        native(**options)(*inputs)
    assert same_bits(*(answer(DetectionLoss(SPEC, backend=backend, **options), inputs) for backend in ("auto", "torch")))


def test_a_tensor_without_memory_is_left_to_torch() -> None:
    scores = torch.empty(2, SPEC.num_classes, 84, device="meta")
    assert "on meta" in str(availability.why_not(scores, scores, SPEC, "stable", {}))
