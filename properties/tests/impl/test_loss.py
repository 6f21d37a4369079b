"""What the twin alone promises: memory layouts, dtypes that come back, older predictions, terms by themselves."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from oracle.cases.build import build
from oracle.cases.case import Box, Case, DtypeName, Inputs, Prediction, Setting
from oracle.definition.criterion import ExactCriterion
from twinloss import (
    Assignment,
    DetectionLoss,
    LossSpec,
    box_term,
    ciou,
    clamped_target,
    classification_term,
    decode_boxes,
    distribution_term,
    distributions,
    make_anchors,
    predictions_from_maps,
)

SPEC = LossSpec(num_classes=7)
BOXES = (
    Box(0, 3, 40, 44, 50, 30),
    Box(0, 6, 48, 40, 20, 40),
    Box(0, 3, 100, 70, 9, 7),
    Box(2, 0, 64, 48, 120, 90),
)
CASE = Case(SPEC, (96, 128), 3, BOXES, Prediction("near", spread=0.5))


def step(criterion: DetectionLoss, inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and gradients; the leaves' own are not touched."""
    boxes, scores = (inputs.preds[name].detach().requires_grad_() for name in ("boxes", "scores"))
    loss, _ = criterion({**inputs.preds, "boxes": boxes, "scores": scores}, inputs.batch)
    to_boxes, to_scores = torch.autograd.grad(loss.sum(), (boxes, scores))
    return loss.detach(), to_boxes, to_scores


def anchors_first(logits: Tensor) -> Tensor:
    return logits.transpose(1, 2).contiguous().transpose(1, 2)


def strided(logits: Tensor) -> Tensor:
    return torch.stack([logits, torch.full_like(logits, torch.nan)], dim=-1)[..., 0]


def expanded(logits: Tensor) -> Tensor:
    return logits[:1].expand_as(logits)


@pytest.mark.parametrize("relaid", [anchors_first, strided, expanded])
def test_layout_in_memory_changes_nothing(relaid: object) -> None:
    assert callable(relaid)
    plain = build(CASE)
    other = {name: relaid(plain.preds[name].detach()) for name in ("boxes", "scores")}
    assert not other["boxes"].is_contiguous()
    same = {name: logits.contiguous() for name, logits in other.items()}
    criterion = DetectionLoss(SPEC, backend="torch")
    found = step(criterion, Inputs(plain.preds | other, plain.batch))
    wanted = step(criterion, Inputs(plain.preds | same, plain.batch))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(criterion.decode(plain.preds | other), criterion.decode(plain.preds | same))


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_dtypes_of_what_comes_back(dtype: DtypeName) -> None:
    inputs = build(CASE, Setting(dtype))
    loss, items = DetectionLoss(SPEC)(*inputs)
    loss.sum().backward()
    working = torch.float64 if dtype == "float64" else torch.float32
    assert (loss.dtype, loss.shape, loss.requires_grad) == (working, (3,), True)
    assert list(items) == ["box_loss", "cls_loss", "dfl_loss"]
    assert all(not item.requires_grad and item.ndim == 0 for item in items.values())
    assert inputs.preds["boxes"].grad.dtype == inputs.preds["scores"].grad.dtype == getattr(torch, dtype)


def test_targets_of_float32_beside_float64_logits_are_float32() -> None:
    """Sides run through anchors' centres: in float64 the same shares of the image give other corners, and other candidates (section 3)."""
    spec = LossSpec(num_classes=1, reg_max=1)
    for seed in range(20):
        draw = torch.Generator().manual_seed(seed)
        x, y = ((torch.randint(0, 5, (2,), generator=draw) + 0.5) * 8).tolist()
        width, height = (8 * torch.randint(3, 6, (2,), generator=draw)).tolist()
        preds = {
            "boxes": torch.rand(1, 4, 189, generator=draw, dtype=torch.float64) * 3,
            "scores": torch.randn(1, 1, 189, generator=draw, dtype=torch.float64),
            "feats": [torch.empty(1, 1, side, side) for side in (12, 6, 3)],
        }
        box = torch.tensor([[(x + width / 2) / 96, (y + height / 2) / 96, width / 96, height / 96]])
        batch = {"batch_idx": torch.zeros(1), "cls": torch.zeros(1, 1), "bboxes": box}
        found, exact = DetectionLoss(spec)(preds, batch)[0], ExactCriterion(spec)(preds, batch)[0]
        torch.testing.assert_close(found, exact, rtol=1e-10, atol=1e-12)


def test_threads_change_no_decision() -> None:
    inputs = build(CASE)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append((DetectionLoss(SPEC).assign(*inputs), step(DetectionLoss(SPEC), inputs)))
    finally:
        torch.set_num_threads(before)
    (one, numbers), (two, others) = found
    assert torch.equal(one.anchor, two.anchor)
    assert torch.equal(one.box, two.box)
    for a, b in zip(numbers, others, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


def test_older_layout_gives_the_same_loss() -> None:
    inputs = build(CASE)
    flat = torch.cat([inputs.preds["boxes"], inputs.preds["scores"]], dim=1).detach()
    sizes = [rows * columns for rows, columns in CASE.grids]
    maps = [part.unflatten(2, grid) for part, grid in zip(flat.split(sizes, dim=2), CASE.grids, strict=True)]
    loss, _ = DetectionLoss(SPEC)(*inputs)
    older, _ = DetectionLoss(SPEC)(maps, inputs.batch)
    assert torch.equal(loss, older)


def test_older_layout_of_another_head_is_refused() -> None:
    with pytest.raises(ValueError, match=r"level 1 .* expected \(B, 71, H, W\)"):
        predictions_from_maps([torch.zeros(1, 71, 4, 4), torch.zeros(1, 70, 2, 2)], num_classes=7, reg_max=16)


@pytest.mark.parametrize("cotangent", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (2.0, -3.0, 0.5)])
def test_every_term_has_its_own_gradient(cotangent: tuple[float, float, float]) -> None:
    inputs = build(CASE, Setting("float64"))
    weights = torch.tensor(cotangent, dtype=torch.float64)
    gradients = []
    for criterion in (DetectionLoss(SPEC), ExactCriterion(SPEC)):
        leaves = {name: inputs.preds[name].detach().requires_grad_() for name in ("boxes", "scores")}
        loss, _ = criterion(inputs.preds | leaves, inputs.batch)
        gradients.append(torch.autograd.grad((loss * weights).sum(), tuple(leaves.values())))
    for ours, exact in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, exact, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("backend", ["torch", "native"])
def test_a_box_that_touches_has_the_gradient_of_one_that_is_apart(backend: Literal["torch", "native"]) -> None:
    # One anchor at (0.5, 0.5) whose box ends where the ground truth begins, which only a given assignment holds against each other.
    spec = LossSpec(num_classes=1, reg_max=1, strides=(8,), gains=(1.0, 1.0, 0.0))

    def slope(right: float) -> Tensor:
        boxes = torch.tensor([[[0.5], [0.5], [right], [3.5]]]).requires_grad_()
        preds = {"boxes": boxes.repeat(1, 1, 16), "scores": torch.zeros(1, 1, 16), "feats": [torch.empty(1, 5, 4, 4)]}
        batch = {"batch_idx": torch.zeros(1), "cls": torch.zeros(1, 1), "bboxes": torch.tensor([[0.75, 0.5, 0.5, 1.0]])}
        first = torch.zeros(1, dtype=torch.int64)
        held = Assignment(first, first, first, torch.ones(1))
        loss, _ = DetectionLoss(spec, backend=backend).loss_given(preds, batch, held)
        loss[0].backward()
        assert boxes.grad is not None
        return boxes.grad.flatten()

    touching, apart, overlapping = slope(1.5), slope(1.5 - 2**-20), slope(1.5 + 2**-20)
    torch.testing.assert_close(touching, apart, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(touching, overlapping, rtol=1e-2)


def test_terms_by_themselves_make_the_loss() -> None:
    """The loss without the criterion object, from its public stages."""
    spec = dataclasses.replace(SPEC, gains=(1.0, 1.0, 1.0))
    inputs = build(CASE, Setting("float64"))
    criterion = DetectionLoss(spec)
    held, truth = criterion.assign(*inputs), criterion.targets(*inputs)
    centres, strides = make_anchors(CASE.grids, spec.strides, dtype=torch.float64)
    place = truth.row.argsort()[held.box]
    corners = truth.corners[place] / strides[held.anchor, None]
    logits = inputs.preds["boxes"][held.image, :, held.anchor].view(-1, 4, spec.reg_max)
    centre = centres[held.anchor]
    distances, entropy = distributions(logits, clamped_target(centre, corners, spec.reg_max))
    total = held.weight.sum().clamp(min=1)
    terms = [
        box_term(distances, centre, corners, held.weight),
        classification_term(inputs.preds["scores"], held.image, truth.label[place], held.anchor, held.weight),
        distribution_term(entropy, held.weight),
    ]
    loss, _ = criterion(*inputs)
    torch.testing.assert_close(torch.stack(terms) / total * CASE.batch_size, loss)
    decoded = decode_boxes(inputs.preds["boxes"], centres, spec.reg_max)[held.image, held.anchor]
    torch.testing.assert_close(((1 - ciou(decoded, corners)) * held.weight).sum(), terms[0])


def test_conflicts_among_pickers_alone() -> None:
    """Anchor 11 is picked by two boxes; a third, which did not pick it, overlaps it more."""
    spec = LossSpec(num_classes=2, topk=3, strides=(8,))
    truth = (Box(0, 0, 32, 34, 48, 48), Box(0, 0, 28, 30, 48, 48), Box(0, 1, 28, 34, 60, 60))
    inputs = build(Case(spec, (64, 64), 1, truth, Prediction("near", seed=8, spread=0.3)), Setting("float64"))
    winners = {}
    for conflicts in ("overlap", "pickers"):
        ours = DetectionLoss(spec, conflicts=conflicts).assign(*inputs)
        exact = ExactCriterion(spec, conflicts=conflicts).assign(*inputs)
        assert torch.equal(ours.anchor, exact.anchor)
        assert torch.equal(ours.box, exact.box)
        winners[conflicts] = ours.box[ours.anchor == 11].item()
    assert winners == {"overlap": 2, "pickers": 1}


@pytest.mark.parametrize(("option", "value"), [("ties", "random"), ("conflicts", "first"), ("backend", "cuda")])
def test_unknown_options_are_named(option: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{option} is '{value}'; it must be one of"):
        DetectionLoss(SPEC, **{option: value})  # type: ignore[arg-type]


NOT_WHOLE: tuple[object, ...] = (0, -1, 2.5, True, "3", 2**31, 2**64 + 3, math.inf)
OUT_OF_RANGE: dict[str, tuple[object, ...]] = {
    **dict.fromkeys(("num_classes", "reg_max", "topk", "topk2"), NOT_WHOLE),
    "strides": ((16, 8), (), (0, 8), (8.5, 16), (True,), ("8",), 8, "8", (8, 2**64), (math.nan,)),
    "gains": ((1.0, 2.0), (1.0, 2.0, math.nan), (1.0, 1e39, 1.0), (1.0, 2.0, 10**400), (1.0, True, 1.0), 7.5),
    "class_weights": ((1.0,), (math.inf,) * 7, ("1",) * 7, {1.0: 2.0}),
    **dict.fromkeys(("alpha", "beta"), (-1.0, math.nan, math.inf, None, torch.tensor(True))),
    **dict.fromkeys(("assign_eps", "ciou_eps"), (math.nan, 1e39, "0")),
    "clamp_margin": (0.0, -0.1, 1e-9, 15.5, math.nan),
    "distance_term": ("no",),
    "lengthen": ("third",),
    "anchor_weights": (None,),
}


@pytest.mark.parametrize("field", OUT_OF_RANGE)
def test_a_definition_out_of_range_is_named(field: str) -> None:
    for value in OUT_OF_RANGE[field]:
        with pytest.raises(ValueError, match=field):
            dataclasses.replace(SPEC, **{field: value})  # type: ignore[arg-type]


def test_a_definition_keeps_plain_numbers() -> None:
    given = LossSpec(
        num_classes=np.int64(2),  # type: ignore[arg-type]
        reg_max=torch.tensor([16]),  # type: ignore[arg-type]
        strides=np.array([8.0, 16.0]),  # type: ignore[arg-type]
        gains=[np.float32(7.5), 1, torch.tensor(1.5)],  # type: ignore[arg-type]
        topk2=3.0,  # type: ignore[arg-type]
        class_weights=torch.tensor([1.0, 2.0]),  # type: ignore[arg-type]
    )
    assert given == LossSpec(num_classes=2, strides=(8, 16), gains=(7.5, 1.0, 1.5), topk2=3, class_weights=(1.0, 2.0))
    assert [type(number) for number in (given.num_classes, given.reg_max, *given.strides, given.topk2)] == [int] * 5
    assert [type(number) for number in (*given.gains, *(given.class_weights or ()))] == [float] * 5
