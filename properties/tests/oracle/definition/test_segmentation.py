"""The segmentation definition: against the reference in float64, and where it differs from it on purpose."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from oracle.cases.build import build
from oracle.cases.case import Box, Case, Inputs, Prediction, PredictionKind, Setting
from oracle.contract.run import Outcome, run_assign, run_given, run_loss
from oracle.definition.end_to_end import ExactEndToEnd
from oracle.definition.segmentation import ExactSegmentation, MaskInputs
from oracle.reference.end_to_end import ReferenceEndToEnd
from oracle.reference.segmentation import ReferenceSegmentation
from twinloss import SegmentationSpec

FLOAT64 = Setting("float64")
KINDS: tuple[PredictionKind, ...] = ("random", "near", "saturated", "untrained", "late", "zeros")


def spec_of(**numbers: Any) -> SegmentationSpec:
    usual: dict[str, Any] = {"num_classes": 2, "reg_max": 4, "strides": (8, 16)}
    return SegmentationSpec(**usual | numbers)


def one_box(**numbers: Any) -> Case:
    """A box of 24 px in an image of 32 px, with four prototypes."""
    return Case(spec_of(**numbers), (32, 32), 1, (Box(0, 1, 16, 16, 24, 24),), Prediction("near", 3), options={"prototypes": 4.0})


def drawn(seed: int) -> Case:
    """A small random batch, often crowded into the top-left corner, where the reference picks anchors of metric 0."""
    r = random.Random(seed)
    height, width = (32 * r.randint(2, 4) for _ in range(2))
    images, classes, corner = r.randint(1, 3), r.choice([1, 3]), r.random() < 0.5
    reach = 0.2 if corner else 1.0

    def box() -> Box:
        cx, cy = (r.uniform(-4, side * reach) for side in (width, height))
        return Box(
            r.randrange(images), r.randrange(classes), cx, cy, *(r.uniform(2, side * (0.3 if corner else 0.9)) for side in (width, height))
        )

    boxes = tuple(sorted((box() for _ in range(r.randint(0, 7))), key=lambda one: one.image))
    numbers = {"num_classes": classes, "reg_max": r.choice([1, 4]), "strides": (8, 16, 32), "topk": r.choice([10, 3])}
    spec = spec_of(**numbers, topk2=r.choice([None, 1]), mask_aware=r.random() < 0.5, overlap_mask=r.random() < 0.5)
    grid = r.choice([(height // 4, width // 4), (height // 2, width // 2), (13, 17)])
    options = {"prototypes": r.choice([1, 8]), "semantic": r.randint(0, 1), "mask_height": grid[0], "mask_width": grid[1]}
    return Case(spec, (height, width), images, boxes, Prediction(r.choice(KINDS), seed), options={k: float(v) for k, v in options.items()})


def assert_same(found: Outcome, expected: Outcome) -> None:
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-10, atol=1e-12)
    assert found.gradients.keys() == expected.gradients.keys()
    assert found.missing == ()
    for name, gradient in expected.gradients.items():
        torch.testing.assert_close(found.gradients[name], gradient, rtol=1e-10, atol=1e-10 * float(gradient.abs().max()) + 1e-15)


@pytest.mark.parametrize("start", range(0, 30, 10))
def test_the_reference_computes_this_definition_in_float64(start: int) -> None:
    """The same held anchors, those of weight 0 included, and the same loss and gradients."""
    for seed in range(start, start + 10):
        case = drawn(seed)
        inputs, reference, exact = build(case, FLOAT64), ReferenceSegmentation(case.spec), ExactSegmentation(case.spec, "reference")
        held, expected = run_assign(reference, inputs, FLOAT64), run_assign(exact, inputs, FLOAT64)
        assert held.image.tolist() == expected.image.tolist(), seed
        assert (held.anchor.tolist(), held.box.tolist()) == (expected.anchor.tolist(), expected.box.tolist()), seed
        assert_same(run_loss(reference, inputs, FLOAT64, terms=case.spec.terms), run_loss(exact, inputs, FLOAT64, terms=case.spec.terms))


def edited(inputs: Inputs, preds: dict[str, Any] | None = None, batch: dict[str, Tensor] | None = None) -> Inputs:
    return Inputs({**inputs.preds, **(preds or {})}, {**inputs.batch, **(batch or {})})


def test_the_default_holds_positive_metrics_alone() -> None:
    """An anchor of metric 0 weighs as much in the mask term as any other, so that leaving it out changes the term."""
    found = 0
    for seed in range(40):
        case = drawn(seed)
        inputs = build(case, FLOAT64)
        stable, reference = (run_assign(ExactSegmentation(case.spec, ties), inputs, FLOAT64) for ties in ("stable", "reference"))
        assert bool((stable.weight > 0).all())
        if len(reference.weight) > len(stable.weight) > 0:
            exact = ExactSegmentation(case.spec)
            one, other = (run_given(exact, inputs, FLOAT64, held, terms=case.spec.terms).loss[1] for held in (stable, reference))
            found += int(not torch.isclose(one, other))
    assert found > 0


def test_pixels_outside_of_the_crop_are_not_read() -> None:
    case = one_box()
    inputs, exact = build(case, FLOAT64), ExactSegmentation(case.spec)
    before = run_loss(exact, inputs, FLOAT64, terms=case.spec.terms)
    proto = inputs.preds["proto"].detach().clone()
    proto[0, :, 0, :], proto[0, :, 7, :] = torch.nan, torch.inf
    after = run_loss(exact, edited(inputs, {"proto": proto}), FLOAT64, terms=case.spec.terms)
    assert torch.equal(before.loss, after.loss)
    assert all(torch.equal(before.gradients[name], after.gradients[name]) for name in before.gradients)


@pytest.mark.parametrize("aware", [False, True])
def test_a_box_without_area_counts_and_has_no_loss(aware: bool) -> None:
    boxes = (Box(0, 1, 16, 16, 24, 24), Box(0, 0, 4, 12, 0, 8))
    case = Case(spec_of(mask_aware=aware), (32, 32), 1, boxes, Prediction("near", 3), options={"prototypes": 4.0})
    inputs, exact = build(case, FLOAT64), ExactSegmentation(case.spec)
    held = run_assign(exact, inputs, FLOAT64)
    alone = held.box == 0
    kept, extra = (type(held)(*(getattr(held, name)[mask] for name in ("image", "anchor", "box", "weight"))) for mask in (alone, ~alone))
    assert bool(alone.any())
    loss = run_given(exact, inputs, FLOAT64, held, terms=case.spec.terms).loss
    of_one = run_given(exact, inputs, FLOAT64, kept, terms=case.spec.terms).loss
    assert loss.isfinite().all()
    torch.testing.assert_close(loss[1], of_one[1] * len(kept.box) / (len(kept.box) + len(extra.box)))


def test_nothing_held_leaves_zero_gradients_and_classification() -> None:
    case = Case(spec_of(), (32, 32), 2, (), Prediction("random", 1), options={"prototypes": 2.0, "semantic": 1.0})
    inputs = build(case, FLOAT64)
    without = Inputs(inputs.preds, {name: value for name, value in inputs.batch.items() if "masks" not in name})
    found = run_loss(ExactSegmentation(case.spec), without, FLOAT64, terms=case.spec.terms)
    assert found.loss.count_nonzero() == 1
    assert found.missing == ()
    assert all(found.gradients[name].count_nonzero() == 0 for name in ("boxes", "mask_coefficient", "proto", "semantic"))


def test_instance_masks_follow_their_rows_in_any_order() -> None:
    boxes = (Box(0, 1, 16, 16, 24, 24), Box(1, 0, 10, 20, 16, 16), Box(1, 1, 22, 20, 12, 20))
    for overlap in (True, False):
        spec = spec_of(overlap_mask=overlap)
        case = Case(spec, (32, 32), 2, boxes, Prediction("near", 3), options={"prototypes": 4.0})
        inputs, exact, order = build(case, FLOAT64), ExactSegmentation(spec), torch.tensor([1, 0, 2])
        columns = ("batch_idx", "cls", "bboxes", *(() if overlap else ("masks",)))
        moved = edited(inputs, batch={name: inputs.batch[name][order] for name in columns})
        sorted_loss, moved_loss = (run_loss(exact, one, FLOAT64, terms=spec.terms).loss for one in (inputs, moved))
        torch.testing.assert_close(moved_loss, sorted_loss)


def refusal(change: dict[str, Any], *, overlap: bool = True, remove: str = "", preds: dict[str, Any] | None = None) -> str:
    """Returns the message on a batch of two images and three boxes with other targets."""
    boxes = (Box(0, 1, 16, 16, 24, 24), Box(1, 0, 10, 20, 16, 16), Box(1, 1, 22, 20, 12, 20))
    case = Case(spec_of(overlap_mask=overlap), (32, 32), 2, boxes, Prediction("near", 3), options={"prototypes": 4.0, "semantic": 1.0})
    inputs = build(case, FLOAT64)
    batch = {name: value for name, value in {**inputs.batch, **change}.items() if name != remove}
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is what is tested
        run_loss(ExactSegmentation(case.spec), Inputs({**inputs.preds, **(preds or {})}, batch), FLOAT64, terms=case.spec.terms)
    return str(caught.value)


def maps(value: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """Index maps of background, with one pixel of ``value`` in the second image."""
    found = torch.zeros(2, 8, 8)
    found[1, 4, 4] = value
    return found.to(dtype)


def test_a_byte_shows_no_box_after_the_255th() -> None:
    """290 is 34 modulo 256, and the 34th box shows there."""
    none, map_of_bytes = torch.zeros(1, 1, 1, 1), torch.full((1, 2, 2), 34, dtype=torch.uint8)
    masks = MaskInputs(none, none.expand(1, 1, 2, 2), None, map_of_bytes, index_maps=True, image=torch.zeros(300, dtype=torch.int64))
    assert masks.true_mask(33).all()
    assert masks.instance(33).all()
    assert not masks.true_mask(289).any()
    assert not masks.instance(289).any()


def test_bad_masks_are_refused_by_name() -> None:
    assert "missing" in refusal({}, remove="masks")
    assert "5 masks" in refusal({"masks": torch.zeros(5, 8, 8)})
    assert "1 masks" in refusal({"masks": torch.zeros(1, 8, 8)})
    assert "4 masks" in refusal({"masks": torch.zeros(4, 8, 8)}, overlap=False)
    assert "(2, 64)" in refusal({"masks": torch.zeros(2, 64)})
    assert "(2, 0, 8)" in refusal({"masks": torch.zeros(2, 0, 8)})
    assert "image 1 holds index 255" in refusal({"masks": maps(255)})
    assert "image 1 is bool" in refusal({"masks": maps(1, torch.bool)})
    for value in (-1, 0.5, torch.nan):
        assert "image 1" in refusal({"masks": maps(value)})
    for value in (255.0, -0.5, torch.nan):
        instances = torch.zeros(3, 8, 8)
        instances[2, 1, 1] = value
        assert "row 2" in refusal({"masks": instances}, overlap=False)


def test_bad_semantic_masks_are_refused_where_an_instance_is() -> None:
    assert "missing" in refusal({}, remove="sem_masks")
    assert "(2, 4, 8)" in refusal({"sem_masks": torch.zeros(2, 4, 8)})
    assert "(3, 8, 8)" in refusal({"sem_masks": torch.zeros(3, 8, 8)})
    for value in (2.0, -1.0, torch.nan):
        assert "image" in refusal({"sem_masks": torch.full((2, 8, 8), value)})


def test_predictions_that_disagree_are_refused_with_both_shapes() -> None:
    for preds in (
        {"mask_coefficient": torch.zeros(2, 3, 20)},
        {"mask_coefficient": torch.zeros(2, 4, 19)},
        {"proto": (torch.zeros(1, 4, 8, 8), torch.zeros(2, 2, 4, 4))},
        {"proto": (torch.zeros(2, 4, 8, 8), torch.zeros(2, 3, 4, 4))},
    ):
        assert "(2, " in refusal({}, preds=preds)


@pytest.mark.parametrize("aware", [False, True])
def test_an_end_to_end_head_mixes_two_losses_as_the_reference_does(aware: bool) -> None:
    """Without detaching, gradients flow from both to the shared prototypes and semantic logits [12]."""
    boxes = (Box(0, 1, 20, 20, 24, 24), Box(1, 0, 30, 34, 40, 36))
    spec = spec_of(reg_max=1, mask_aware=aware, strides=(8, 16, 32))
    cases = [Case(spec, (64, 64), 2, boxes, Prediction(kind, 3), options={"prototypes": 4.0, "semantic": 1.0}) for kind in ("near", "late")]
    many, one = (build(case, FLOAT64) for case in cases)
    preds = {"one2many": many.preds, "one2one": {**one.preds, "proto": many.preds["proto"]}}
    found, leaves = [], [*many.preds["proto"], *(each.preds["mask_coefficient"] for each in (many, one))]
    for criterion in (ReferenceEndToEnd(spec, generation=2, epochs=5), ExactEndToEnd(spec, generation=2, epochs=5, ties="reference")):
        for _ in range(2):
            loss, items = criterion(preds, many.batch)
            found.append((loss, torch.stack([items[name] for name in spec.term_names]), *torch.autograd.grad(loss.sum(), leaves)))
            criterion.update()
    for reference, exact in zip(found[:2], found[2:], strict=True):
        for value, expected in zip(reference, exact, strict=True):
            torch.testing.assert_close(value.double(), expected, rtol=1e-10, atol=1e-12)
