"""What must not change the loss, and what must change it by a known factor: in float64, so that rounding excuses nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import softplus

from oracle.cases.build import build
from oracle.cases.case import Box, Case, Inputs, Prediction, Setting
from oracle.contract.contender import OffersAssignment
from oracle.contract.run import run_assign, run_loss
from oracle.definition.criterion import ExactCriterion
from properties.strategies import TINY, cases, definitions
from twinloss import DetectionLoss, LossSpec

FLOAT64 = Setting(dtype="float64")
TOLERANCE = 1e-10
# Relative gap below which two metrics, or two overlaps, may change places when the same sum is added up in another order.
CLOSE = 1e-9

Make = Callable[[LossSpec], OffersAssignment]
CRITERIA: dict[str, Make] = {
    "twin": DetectionLoss,
    "twin-reference-ties": partial(DetectionLoss, ties="reference"),
    "twin-pickers": partial(DetectionLoss, conflicts="pickers"),
    "exact": ExactCriterion,
}
every_criterion = pytest.mark.parametrize("make", CRITERIA.values(), ids=CRITERIA)
twins = pytest.mark.parametrize("make", [CRITERIA[name] for name in CRITERIA if name != "exact"], ids=[n for n in CRITERIA if n != "exact"])
RARE = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
# Of the profile's examples a seventh, or a quarter, for each criterion: many properties share the minutes.
few = settings(max_examples=settings().max_examples // 7 + 1, suppress_health_check=RARE)
some = settings(few, max_examples=settings().max_examples // 4 + 1)

# Levels whose grids cover the image and no more, so that a mirrored image has the same anchors.
MIRRORED = dataclasses.replace(TINY, sides=(64, 128, 96))
mirrored_definitions = definitions(levels=((8,), (8, 16, 32), (8, 16), (16,)))


@dataclass(frozen=True)
class Answer:
    """All that a criterion says of a batch, in float64.

    Attributes:
        loss: (3,).
        boxes: (B, 4R, A) gradient.
        scores: (B, C, A) gradient.
        row: (B, A) row of the batch that an anchor learns from, −1 for none.
        weight: (B, A) soft target.
    """

    loss: Tensor
    boxes: Tensor
    scores: Tensor
    row: Tensor
    weight: Tensor


def answer(make: Make, spec: LossSpec, inputs: Inputs) -> Answer:
    criterion = make(spec)
    outcome, held = run_loss(criterion, inputs, FLOAT64), run_assign(criterion, inputs, FLOAT64)  # type: ignore[arg-type]
    images, _, anchors = inputs.preds["scores"].shape
    row = torch.full((images, anchors), -1)
    weight = torch.zeros(images, anchors, dtype=torch.float64)
    row[held.image, held.anchor], weight[held.image, held.anchor] = held.box, held.weight.double()
    return Answer(outcome.loss, outcome.gradients["boxes"], outcome.gradients["scores"], row, weight)


def same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=TOLERANCE, atol=TOLERANCE)


def agree(found: Answer, expected: Answer, smooth: Tensor | None = None) -> None:
    """Answers are the same; the gradient of the boxes need only be so at anchors that are ``smooth`` (B, A)."""
    assert torch.equal(found.row, expected.row)
    same(found.weight, expected.weight)
    same(found.loss, expected.loss)
    same(found.scores, expected.scores)
    kept = torch.ones_like(found.row, dtype=torch.bool) if smooth is None else smooth
    same(found.boxes * kept[:, None], expected.boxes * kept[:, None])


def is_decided(spec: LossSpec, inputs: Inputs, *, identical_boxes: bool) -> bool:
    """No two metrics of a box, and no two overlaps at an anchor, are so close that the order of arithmetic could exchange them.

    Identical boxes have overlaps equal to the bit, and the lower index wins: close enough only where the order of the boxes is in question.
    """
    pairs = DetectionLoss(spec).metrics(*inputs)
    image = inputs.batch["batch_idx"].long()[pairs.row]
    boxes = inputs.batch["bboxes"][pairs.row]
    anchor = image * inputs.preds["scores"].shape[2] + pairs.anchor
    if bool(((pairs.overlap > 0) & (pairs.overlap < CLOSE)).any()):
        return False
    for group, value in ((pairs.row, pairs.metric), (anchor, pairs.overlap)):
        order = value.argsort()
        order = order[group[order].argsort(stable=True)]
        before, after = order[:-1], order[1:]
        close = (group[before] == group[after]) & (value[before] > 0) & (value[after] - value[before] < CLOSE * value[after])
        if value is pairs.overlap and identical_boxes:
            close &= (boxes[before] != boxes[after]).any(1)
        if bool(close.any()):
            return False
    return True


def smooth_anchors(spec: LossSpec, inputs: Inputs, row: Tensor) -> Tensor:
    """Anchors (B, A) that hold no box, or whose predicted sides all differ from their box's: no kink of the CIoU there (spec section 8)."""
    exact = ExactCriterion(spec)
    with torch.no_grad():
        grid, predicted = exact.grid(inputs.preds), exact.decode(inputs.preds)
        if not len(inputs.batch["bboxes"]):
            return torch.ones_like(row, dtype=torch.bool)
        corners = exact.truth(inputs.preds, inputs.batch).corners[row.clamp(min=0)] / grid.strides[:, None]
        return (row < 0) | ((predicted - corners).abs().amin(2) > 1e-6)


def with_rows(inputs: Inputs, order: Tensor) -> Inputs:
    """The batch with its rows in another order."""
    return Inputs(inputs.preds, {key: tensor[order] for key, tensor in inputs.batch.items()})


def permuted(draw: Callable[[st.SearchStrategy[Any]], Any], count: int) -> Tensor:
    return torch.tensor(draw(st.permutations(range(count))), dtype=torch.int64)


def relabelled(row: Tensor, order: Tensor) -> Tensor:
    """Rows as they were named before the batch was put in ``order``."""
    return torch.where(row < 0, row, torch.cat([order, order.new_zeros(1)])[row])


@every_criterion
@few
@given(cases(), st.data())
def test_order_of_boxes(make: Make, case: Case, data: st.DataObject) -> None:
    """Rows may be shuffled, within images and between them; of boxes that no arithmetic can tell apart, the lower index counts."""
    inputs = build(case, FLOAT64)
    assume(is_decided(case.spec, inputs, identical_boxes=False))
    # The reference's picks among zeros may hand an anchor to a box by an all-zero conflict; the weights, and all else, stay the same.
    order = permuted(data.draw, len(case.boxes))
    found, expected = answer(make, case.spec, with_rows(inputs, order)), answer(make, case.spec, inputs)
    agree(dataclasses.replace(found, row=relabelled(found.row, order)), expected)


@every_criterion
@few
@given(cases(), st.randoms(use_true_random=False))
def test_unsorted_batch_is_the_sorted_batch(make: Make, case: Case, random: Any) -> None:
    """Rows of different images may be mixed in any way, also where boxes are identical, as long as each image's keep their order."""
    inputs = build(case, FLOAT64)
    order = list(range(len(case.boxes)))
    random.shuffle(order)
    left = {image: [row for row, box in enumerate(case.boxes) if box.image == image] for image in range(case.batch_size)}
    mixed = torch.tensor([left[case.boxes[row].image].pop(0) for row in order], dtype=torch.int64)
    found, expected = answer(make, case.spec, with_rows(inputs, mixed)), answer(make, case.spec, inputs)
    agree(dataclasses.replace(found, row=relabelled(found.row, mixed)), expected)


@every_criterion
@few
@given(cases(), st.data())
def test_order_of_images(make: Make, case: Case, data: st.DataObject) -> None:
    inputs = build(case, FLOAT64)
    order = permuted(data.draw, case.batch_size)
    moved_to = order.argsort()
    preds = inputs.preds | {name: inputs.preds[name].detach()[order].requires_grad_() for name in ("boxes", "scores")}
    batch = inputs.batch | {"batch_idx": moved_to[inputs.batch["batch_idx"].long()].double()}
    found, expected = answer(make, case.spec, Inputs(preds, batch)), answer(make, case.spec, inputs)
    back = {field.name: getattr(found, field.name)[moved_to] for field in dataclasses.fields(found) if field.name != "loss"}
    agree(dataclasses.replace(found, **back), expected)


@every_criterion
@few
@given(cases())
def test_splitting_a_batch(make: Make, case: Case) -> None:
    """Each image alone: the sums over images, before B and S, add up to the batch's; so do the gradients."""
    inputs, images = build(case, FLOAT64), case.batch_size
    whole = answer(make, case.spec, inputs)
    total = torch.zeros(3, dtype=torch.float64)
    normaliser = whole.weight.sum().clamp(min=1)
    for image in range(images):
        rows = (inputs.batch["batch_idx"] == image).nonzero().reshape(-1)
        preds = {name: inputs.preds[name].detach()[image : image + 1].requires_grad_() for name in ("boxes", "scores")}
        batch = {key: tensor[rows] for key, tensor in inputs.batch.items()} | {"batch_idx": torch.zeros(len(rows), dtype=torch.float64)}
        part = answer(make, case.spec, Inputs({**preds, "feats": [level[:1] for level in inputs.preds["feats"]]}, batch))
        own = part.weight.sum().clamp(min=1)
        total += part.loss * own
        assert torch.equal(relabelled(part.row, rows)[0], whole.row[image])
        same(part.weight[0], whole.weight[image])
        same(part.scores[0] * own, whole.scores[image] * normaliser / images)
        same(part.boxes[0] * own, whole.boxes[image] * normaliser / images)
    same(total, whole.loss * normaliser / images)


@every_criterion
@few
@given(cases(definition=definitions(classes=(3, 2, 5, 20))), st.data())
def test_relabelling_classes(make: Make, case: Case, data: st.DataObject) -> None:
    inputs, spec = build(case, FLOAT64), case.spec
    order = permuted(data.draw, spec.num_classes)
    moved_to = order.argsort()
    weights = spec.class_weights and tuple(spec.class_weights[label] for label in order.tolist())
    preds = inputs.preds | {"scores": inputs.preds["scores"].detach()[:, order].requires_grad_()}
    batch = inputs.batch | {"cls": moved_to[inputs.batch["cls"].long()].double()}
    found = answer(make, dataclasses.replace(spec, class_weights=weights), Inputs(preds, batch))
    agree(dataclasses.replace(found, scores=found.scores[:, moved_to]), answer(make, spec, inputs))


def mirrored(columns: Tensor, case: Case) -> Tensor:
    """Columns (..., A) of an image turned left to right, level by level."""
    levels = columns.split([rows * cells for rows, cells in case.grids], dim=-1)
    turned = [level.unflatten(-1, grid).flip(-1).flatten(-2) for level, grid in zip(levels, case.grids, strict=True)]
    return torch.cat(turned, dim=-1)


def mirrored_boxes(logits: Tensor, case: Case) -> Tensor:
    """Box logits (B, 4R, A) of the image turned left to right: the left distance is the right one's."""
    sides = mirrored(logits, case).unflatten(1, (4, case.spec.reg_max))
    turned: Tensor = sides[:, [2, 1, 0, 3]].flatten(1, 2)
    return turned


@every_criterion
@few
@given(cases(MIRRORED, definition=mirrored_definitions))
def test_mirroring_the_images(make: Make, case: Case) -> None:
    inputs = build(case, FLOAT64)
    assume(is_decided(case.spec, inputs, identical_boxes=True))
    assume(make is not CRITERIA["twin-reference-ties"] or "zero-metric" not in case.tags)  # Which zeros it picks depends on where they are.
    preds = {
        "boxes": mirrored_boxes(inputs.preds["boxes"].detach(), case).requires_grad_(),
        "scores": mirrored(inputs.preds["scores"].detach(), case).requires_grad_(),
        "feats": inputs.preds["feats"],
    }
    boxes = inputs.batch["bboxes"].clone()
    boxes[:, 0] = 1 - boxes[:, 0]
    # Mirrored, a centre far to the left lies far to the right: validity is about the corner of the image that the mirror moves.
    width = case.image_size[1]
    assume(all(box.cx + box.cy > 0 and width - box.cx + box.cy > 0 for box in case.boxes))
    found = answer(make, case.spec, Inputs(preds, inputs.batch | {"bboxes": boxes}))
    back = {name: mirrored(getattr(found, name), case) for name in ("scores", "row", "weight")}
    expected = answer(make, case.spec, inputs)
    agree(
        dataclasses.replace(found, boxes=mirrored_boxes(found.boxes, case), **back),
        expected,
        smooth_anchors(case.spec, inputs, expected.row),
    )


def with_box(inputs: Inputs, place: int, image: int, label: int, box: tuple[float, float, float, float]) -> Inputs:
    """The batch with one more row before row ``place``; the box is in shares of the image."""
    added = {"batch_idx": torch.tensor([float(image)]), "cls": torch.tensor([[float(label)]]), "bboxes": torch.tensor([box])}
    return Inputs(inputs.preds, {key: torch.cat([t[:place], added[key].to(t.dtype), t[place:]]) for key, t in inputs.batch.items()})


UNSEEN = [(3.0, 0.5, 0.2, 0.3), (0.5, 9.0, 0.5, 0.5), (-1.0, -1.0, 1.0, 1.0), (1.5, 1.5, 0.0, 0.0)]
FLAT = [(0.5, 0.5, 0.0, 0.3), (0.3, 0.6, 0.4, 0.0), (0.5, 0.5, 0.0, 0.0)]


@every_criterion
@few
@given(cases(), st.integers(0, 4), st.integers(0, 364), st.sampled_from(UNSEEN), st.data())
def test_a_box_that_no_anchor_sees(
    make: Make, case: Case, image: int, label: int, box: tuple[float, float, float, float], data: Any
) -> None:
    """It changes nothing but the names of the rows after it."""
    inputs, place = build(case, FLOAT64), data.draw(st.integers(0, len(case.boxes)))
    found = answer(make, case.spec, with_box(inputs, place, image % case.batch_size, label % case.spec.num_classes, box))
    assert not (found.row == place).any()
    agree(dataclasses.replace(found, row=found.row - (found.row > place).long()), answer(make, case.spec, inputs))


@pytest.mark.parametrize("make", [CRITERIA[name] for name in ("twin", "twin-pickers", "exact")], ids=["twin", "twin-pickers", "exact"])
@few
@given(cases(), st.integers(0, 4), st.integers(0, 364), st.sampled_from(FLAT), st.data())
def test_a_box_without_area(make: Make, case: Case, image: int, label: int, box: tuple[float, float, float, float], data: Any) -> None:
    """It contains anchors, being lengthened, and overlaps none of their boxes: with stable ties it picks nothing and takes nothing."""
    inputs, place = build(case, FLOAT64), data.draw(st.integers(0, len(case.boxes)))
    found = answer(make, case.spec, with_box(inputs, place, image % case.batch_size, label % case.spec.num_classes, box))
    assert not (found.row == place).any()
    agree(dataclasses.replace(found, row=found.row - (found.row > place).long()), answer(make, case.spec, inputs))


@every_criterion
@few
@given(cases(), st.integers(0, 2**16))
def test_an_image_without_boxes(make: Make, case: Case, seed: int) -> None:
    """It adds its own classification loss, and B counts it; box and third term grow by B alone."""
    inputs, spec = build(case, FLOAT64), case.spec
    generator = torch.Generator().manual_seed(seed)
    extra = {name: torch.randn(1, *inputs.preds[name].shape[1:], dtype=torch.float64, generator=generator) for name in ("boxes", "scores")}
    preds = {name: torch.cat([inputs.preds[name].detach(), extra[name]]).requires_grad_() for name in extra}
    feats = [torch.cat([level, level[:1]]) for level in inputs.preds["feats"]]
    found, before = answer(make, spec, Inputs({**preds, "feats": feats}, inputs.batch)), answer(make, spec, inputs)
    grown = (case.batch_size + 1) / case.batch_size
    weights = torch.tensor(spec.class_weights or (1.0,), dtype=torch.float64)[:, None]
    own = spec.gains[1] * (softplus(extra["scores"]) * weights).sum() / before.weight.sum().clamp(min=1)
    same(found.loss, before.loss * grown + torch.tensor([0.0, float(own) * (case.batch_size + 1), 0.0], dtype=torch.float64))
    same(found.scores[:-1], before.scores * grown)
    same(found.boxes[:-1], before.boxes * grown)
    assert (found.boxes[-1] == 0).all()
    assert (found.row[-1] == -1).all()


@twins
@some
@given(cases(), st.tuples(*[st.floats(0, 100)] * 3))
def test_gains_multiply_their_terms(make: Make, case: Case, gains: tuple[float, float, float]) -> None:
    inputs = build(case, FLOAT64)
    ones = answer(make, dataclasses.replace(case.spec, gains=(1.0, 1.0, 1.0)), inputs)
    found = answer(make, dataclasses.replace(case.spec, gains=gains), inputs)
    same(found.loss, ones.loss * torch.tensor(gains, dtype=torch.float64))
    same(found.scores, ones.scores * gains[1])


@twins
@some
@given(cases(tagged=False))
def test_the_loss_is_the_loss_of_its_assignment(make: Make, case: Case) -> None:
    inputs, criterion = build(case, FLOAT64), make(case.spec)
    loss, items = criterion(*inputs)  # type: ignore[operator]
    given_loss, given_items = criterion.loss_given(*inputs, criterion.assign(*inputs))
    assert torch.equal(loss, given_loss)
    assert torch.equal(torch.stack(list(items.values())), torch.stack(list(given_items.values())))
    same(torch.stack(list(items.values())) * case.batch_size, loss.detach())
    assert list(items) == ["box_loss", "cls_loss", "dfl_loss" if case.spec.reg_max > 1 else "l1_loss"]
    assert not any(item.requires_grad for item in items.values())


@twins
@some
@given(cases(tagged=False))
def test_the_older_layout_is_the_same_loss(make: Make, case: Case) -> None:
    inputs = build(case, FLOAT64)
    columns = torch.cat([inputs.preds["boxes"], inputs.preds["scores"]], dim=1).detach()
    levels = columns.split([rows * cells for rows, cells in case.grids], dim=2)
    maps: Any = [level.unflatten(2, grid).clone() for level, grid in zip(levels, case.grids, strict=True)]
    old, _ = make(case.spec)(maps, inputs.batch)  # type: ignore[operator]
    new, _ = make(case.spec)(*inputs)  # type: ignore[operator]
    assert torch.equal(old, new.detach())


@some
@given(cases())
def test_ties_are_all_that_the_reference_option_decides(case: Case) -> None:
    """Where every box has K positive metrics and no two are equal at the K-th place, both kinds of ties give the same assignment."""
    assume("zero-metric" not in case.tags and "tied" not in case.tags)
    inputs = build(case, FLOAT64)
    agree(answer(CRITERIA["twin-reference-ties"], case.spec, inputs), answer(CRITERIA["twin"], case.spec, inputs))


@some
@given(cases())
def test_conflicts_are_all_that_pickers_decides(case: Case) -> None:
    """Where no anchor lies in two boxes, there is nothing for the option to decide."""
    assume("contested" not in case.tags)
    inputs = build(case, FLOAT64)
    agree(answer(CRITERIA["twin-pickers"], case.spec, inputs), answer(CRITERIA["twin"], case.spec, inputs))


def test_pickers_and_overlap_differ_where_a_box_did_not_pick() -> None:
    """The one decision that the option is about: an anchor that two boxes picked, and that lies best in a third which did not."""
    spec = LossSpec(num_classes=2, strides=(8,), topk=3)
    boxes = tuple(Box(0, index % 2, 20.0 + 3 * index, 32, 40, 40) for index in range(8))
    differ = 0
    for seed in range(10):
        inputs = build(Case(spec, (64, 64), 1, boxes, Prediction("near", seed=seed, spread=1.0)), FLOAT64)
        overlap, pickers = (answer(CRITERIA[name], spec, inputs) for name in ("twin", "twin-pickers"))
        exact = answer(partial(ExactCriterion, conflicts="pickers"), spec, inputs)
        agree(pickers, exact)
        differ += not torch.equal(overlap.row, pickers.row)
    assert differ > 0
