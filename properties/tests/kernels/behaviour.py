"""The kernels against the torch backend, on every kind of batch and input that it supports."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from oracle.cases.build import build
from oracle.cases.case import Box, Case, Setting
from oracle.cases.workloads.small_dense import small_dense
from properties.tests.kernels.helpers import DTYPES, answers, assert_near, both, same_holders
from twinloss import Assignment, DetectionLoss, LossSpec, decode_boxes, make_anchors
from twinloss.backends.triton import arguments as arguments_module
from twinloss.backends.triton import tiles
from twinloss.backends.triton.arguments import kernel_arguments
from twinloss.backends.triton.decode import decode
from twinloss.backends.triton.pipeline import _make_scratch

# Largest difference from the torch backend, as a share of the largest element: float32 arithmetic, and half-precision gradients' rounding.
ALLOWED = {"float32": 2e-5, "float16": 2e-3, "bfloat16": 1e-2}

CASES: dict[str, Case] = {
    "aligned": small_dense(size=(64, 64), images=2),
    "misaligned": small_dense(size=(56, 72), images=3, seed=1, strides=(8, 16)),
    "one level": small_dense(seed=2, strides=(16,)),
    "four levels": small_dense(seed=3, size=(64, 64), strides=(8, 16, 32, 64)),
    "sixteen bins": small_dense(6, seed=4, reg_max=16),
    "distances": small_dense(seed=5, reg_max=1),
    "end to end": small_dense(seed=6, reg_max=1, topk=7, topk2=1),
    "second cut": small_dense(12, seed=7, topk2=3),
    "second cut above the first": small_dense(seed=8, topk=2, topk2=5),
    "one pick": small_dense(seed=9, topk=1),
    "fewer anchors than picks": small_dense(4, size=(32, 32), seed=10, strides=(16, 32)),
    "one anchor": small_dense(2, size=(8, 8), images=1, seed=11, strides=(8,), num_classes=1),
    "class weights": small_dense(seed=12, class_weights=(1.0, 0.0, 2.5)),
    "other exponents": small_dense(seed=13, alpha=1.0, beta=2.3),
    "random predictions": small_dense(seed=14, kind="random"),
    "predictions on the truth": small_dense(6, seed=15, reg_max=1, kind="exact"),
    "saturated": small_dense(6, seed=16, kind="saturated"),
    "no boxes": small_dense(0),
    "sides lengthened less": small_dense(seed=17, lengthen="first"),
    "no distance term": small_dense(seed=18, reg_max=1, distance_term=False),
}


@pytest.mark.parametrize("name", CASES)
def test_the_torch_backend_gives_the_same(name: str, device: str) -> None:
    case = CASES[name]
    kernels, torch_backend, preds, batch = both(case, Setting(device=device))
    found, expected = kernels.assign(preds, batch), torch_backend.assign(preds, batch)
    assert same_holders(found, expected)
    assert_near(found.weight, expected.weight, 2e-5, "weight")
    for what, ours, theirs in zip(
        ("loss", "gradient of boxes", "gradient of scores"),
        answers(kernels, preds, batch),
        answers(torch_backend, preds, batch),
        strict=True,
    ):
        assert_near(ours, theirs, ALLOWED["float32"], what)


@pytest.mark.parametrize("dtype", DTYPES[1:])
@pytest.mark.parametrize("bins", [1, 5])
def test_half_precision_logits_get_float32_arithmetic_and_their_own_gradients(dtype: str, bins: int, device: str) -> None:
    kernels, torch_backend, preds, batch = both(small_dense(seed=20, reg_max=bins), Setting(dtype, device=device))  # type: ignore[arg-type]
    ours, theirs = answers(kernels, preds, batch), answers(torch_backend, preds, batch)
    assert ours[0].dtype == torch.float32
    assert_near(ours[0], theirs[0], 2e-5, "loss")
    for what, found, expected in zip(("boxes", "scores"), ours[1:], theirs[1:], strict=True):
        assert found.dtype == preds[what].dtype
        assert_near(found, expected, ALLOWED[dtype], f"gradient of {what}")


def test_the_decoded_boxes_are_those_of_the_torch_backend(device: str) -> None:
    case = small_dense(seed=21, reg_max=16)
    preds, batch = build(case, Setting(device=device))
    arguments = kernel_arguments(preds["boxes"], preds["scores"], batch, case.spec, _pyramid(case), "overlap")
    scratch = _make_scratch(arguments)
    decode(arguments, scratch)
    centres, strides = make_anchors(case.grids, case.spec.strides, device=device)
    expected = decode_boxes(preds["boxes"].detach(), centres, case.spec.reg_max) * strides[:, None]
    found = scratch.predicted.view(4, case.batch_size, -1).permute(1, 2, 0)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-4)
    assert not scratch.claims.any()
    assert not scratch.pickers.any()


def _pyramid(case: Case) -> Any:
    from twinloss import Pyramid

    return Pyramid(case.grids, case.spec.strides)


@pytest.mark.parametrize("tile", ["FEW_BOXES", "FEW_BOXES_FEW_ANCHORS", "MANY_BOXES"])
@pytest.mark.parametrize("conflicts", ["overlap", "pickers"])
def test_boxes_with_more_candidates_than_a_tile(tile: str, conflicts: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = getattr(tiles, tile)
    monkeypatch.setattr(arguments_module, "candidates_tile", lambda *_: chosen)
    spec = LossSpec(num_classes=2, reg_max=2, strides=(4, 8))
    boxes = (Box(0, 0, 64, 64, 128, 128), Box(0, 1, 60, 68, 110, 126), Box(0, 1, 20, 20, 24, 30))
    case = Case(spec, (128, 128), 1, boxes, small_dense(1, seed=22).prediction)
    assert case.num_anchors > 2 * chosen.candidates
    kernels, torch_backend, preds, batch = both(case, Setting(device=device), conflicts=conflicts)
    assert same_holders(kernels.assign(preds, batch), torch_backend.assign(preds, batch))


def test_rows_that_pad_the_batch_change_no_bit(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "MOST_FEW_BOXES", 12)
    monkeypatch.setattr(tiles, "MOST_FEW_ANCHORS", 64)
    case = small_dense(8, seed=4, num_classes=40)
    kernels, _, preds, batch = both(case, Setting(device=device), validate=False)
    padded = {key: torch.cat([rows, torch.full((16, *rows.shape[1:]), -1.0, device=device)]) for key, rows in batch.items()}
    assert tiles.candidates_tile(len(batch["cls"]), case.num_anchors) != tiles.candidates_tile(len(padded["cls"]), case.num_anchors)
    assert all(map(torch.equal, answers(kernels, preds, padded), answers(kernels, preds, batch)))


def test_conflicts_among_the_pickers_alone(device: str) -> None:
    case = small_dense(12, seed=2, images=1, kind="random", topk=3)
    kernels, torch_backend, preds, batch = both(case, Setting(device=device), conflicts="pickers")
    found = kernels.assign(preds, batch)
    assert same_holders(found, torch_backend.assign(preds, batch))
    other = DetectionLoss(case.spec, backend="triton").assign(preds, batch)
    assert not same_holders(found, other), "the case has no conflict on which the two rules differ"


def test_rows_in_any_order(device: str) -> None:
    kernels, _, preds, batch = both(small_dense(10, seed=24, images=3), Setting(device=device))
    order = torch.randperm(len(batch["cls"]), generator=torch.Generator().manual_seed(2)).to(device)
    order = _keeping_order(order, batch["batch_idx"])  # only images may mix: the order of an image's own boxes is part of the definition
    shuffled = {key: value[order] for key, value in batch.items()}
    found, expected = kernels.assign(preds, shuffled), kernels.assign(preds, batch)
    assert torch.equal(found.anchor, expected.anchor)
    assert torch.equal(order[found.box], expected.box)
    for what, ours, theirs in zip("lbs", answers(kernels, preds, shuffled), answers(kernels, preds, batch), strict=True):
        assert_near(ours, theirs, 1e-6, what)


def _keeping_order(order: Tensor, image: Tensor) -> Tensor:
    """The permutation with each image's rows in their old order, at the places that the image has."""
    result = order.clone()
    for index in image.unique():
        places = (image[order] == index).nonzero().squeeze(1)
        result[places] = order[places].sort().values
    return result


def test_padding_changes_no_bit(device: str) -> None:
    kernels, _, preds, batch = both(small_dense(seed=25), Setting(device=device), validate=False)
    padded = {key: torch.cat([value, torch.full_like(value[:1], -1).repeat(5, *[1] * (value.ndim - 1))]) for key, value in batch.items()}
    for ours, theirs in zip(answers(kernels, preds, padded), answers(kernels, preds, batch), strict=True):
        assert torch.equal(ours, theirs)


def test_invalid_rows_are_ignored_without_validation(device: str) -> None:
    kernels, _, preds, batch = both(small_dense(seed=26), Setting(device=device), validate=False)
    middle = (0.5, 0.5, 0.5, 0.5)
    bad = torch.tensor(
        [
            *((9, 0, *middle), (0, 7, *middle), (0, -1, *middle), (0, math.nan, *middle), (math.nan, 0, *middle)),
            *((0, 0, math.nan, 0.5, 0.5, 0.5), (1, 0, 0.5, math.inf, 0.5, 0.5), (1, 0, -0.5, 0.2, 0.9, 0.9)),
        ],
        device=device,
    )
    rows = {"batch_idx": bad[:, 0], "cls": bad[:, 1:2], "bboxes": bad[:, 2:]}
    spoilt = {key: torch.cat([value, rows[key]]) for key, value in batch.items()}
    for ours, theirs in zip(answers(kernels, preds, spoilt), answers(kernels, preds, batch), strict=True):
        assert torch.equal(ours, theirs)


def test_targets_of_any_dtype_and_shape(device: str) -> None:
    kernels, _, preds, batch = both(small_dense(seed=27), Setting(device=device))
    other = {"batch_idx": batch["batch_idx"].long(), "cls": batch["cls"].squeeze(1).int(), "bboxes": batch["bboxes"].double()}
    other["bboxes"] = torch.stack([other["bboxes"], other["bboxes"]], dim=-1)[..., 0]  # not contiguous
    for ours, theirs in zip(answers(kernels, preds, other), answers(kernels, preds, batch), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("layout", ["slices of one tensor", "channels last"])
@pytest.mark.parametrize("class_weights", [None, (1.0, 2.0, 0.5)])
def test_layouts_of_the_logits_change_nothing(layout: str, class_weights: Any, device: str) -> None:
    kernels, _, preds, batch = both(small_dense(5, seed=28, class_weights=class_weights), Setting(device=device))
    boxes, scores = preds["boxes"].detach(), preds["scores"].detach()
    if layout == "channels last":
        other = {"boxes": boxes.mT.contiguous().mT, "scores": scores.mT.contiguous().mT}
    else:
        other = dict(
            zip(("boxes", "scores"), torch.cat([boxes, scores], dim=1).split([boxes.shape[1], scores.shape[1]], dim=1), strict=True)
        )
    for what, ours, theirs in zip("lbs", answers(kernels, preds | other, batch), answers(kernels, preds, batch), strict=True):
        assert_near(ours, theirs, 1e-6, what)  # where images are apart, tiles begin elsewhere, and sums group otherwise


def test_the_same_bits_on_every_run(device: str) -> None:
    repeats, boxes = (2, 8) if device == "cpu" else (50, 400)
    kernels, _, preds, batch = both(small_dense(boxes, seed=29, images=2, topk2=4), Setting(device=device))
    first = answers(kernels, preds, batch)
    for _ in range(repeats):
        for ours, theirs in zip(answers(kernels, preds, batch), first, strict=True):
            assert torch.equal(ours, theirs)


POISONED = {
    "box logit of a candidate": ("boxes", (0, 0), 3),
    "own-class score of a candidate": ("scores", (0, 0), 3),
    "score of another class": ("scores", (0, 1), 1),
    "box logit of no candidate": ("boxes", (1, 0), 0),
}


@pytest.mark.parametrize("name", POISONED)
def test_nan_shows_in_every_term_that_reads_it(name: str, device: str) -> None:
    where, (image, channel), nan_terms = POISONED[name]
    spec = LossSpec(num_classes=2, reg_max=3, strides=(8, 16))
    case = Case(spec, (32, 32), 2, (Box(0, 0, 14, 14, 24, 24), Box(0, 0, 18, 16, 20, 22)), small_dense(1, seed=30).prediction)
    kernels, torch_backend, preds, batch = both(case, Setting(device=device))
    with torch.no_grad():
        preds[where][image, channel, 5] = math.nan
    found, expected = kernels(preds, batch)[0], torch_backend(preds, batch)[0]
    assert found.isnan().tolist() == expected.isnan().tolist()
    assert int(found.isnan().sum()) == nan_terms


def test_no_box_wins_a_contest_without_any_overlap(device: str) -> None:
    kernels, torch_backend, preds, batch = both(small_dense(seed=37, reg_max=1), Setting(device=device))
    with torch.no_grad():
        preds["boxes"][:, :, ::2] = -50.0  # turned inside out
        preds["scores"][:, :, ::2] = math.nan  # such an anchor is picked
    found, expected = answers(kernels, preds, batch), answers(torch_backend, preds, batch)
    assert torch.equal(found[0].isnan(), expected[0].isnan())
    assert found[0].isnan().any()


def test_masked_classes_add_nothing(device: str) -> None:
    kernels, torch_backend, preds, batch = both(small_dense(seed=31), Setting(device=device))
    with torch.no_grad():
        preds["scores"][:, 1] = -math.inf
    found, expected = answers(kernels, preds, batch), answers(torch_backend, preds, batch)
    for what, ours, theirs in zip("lbs", found, expected, strict=True):
        assert ours.isfinite().all()
        assert_near(ours, theirs, 2e-5, what)


def test_only_what_is_asked_for_gets_a_gradient(device: str) -> None:
    kernels, _, preds, batch = both(small_dense(5, seed=32), Setting(device=device))
    full = answers(kernels, preds, batch)
    for at, (wanted, other) in enumerate((("boxes", "scores"), ("scores", "boxes")), start=1):
        leaves = preds | {wanted: preds[wanted].detach().requires_grad_(), other: preds[other].detach()}
        loss, items = kernels(leaves, batch)
        assert not any(item.requires_grad for item in items.values())
        loss.backward(torch.tensor([1.0, 0.5, 2.0], device=device))
        assert torch.equal(leaves[wanted].grad, full[at])
        assert leaves[other].grad is None


def test_the_gradient_of_a_sum_is_that_of_ones(device: str) -> None:
    kernels, _, preds, batch = both(small_dense(5, seed=33), Setting(device=device))
    expected = answers(kernels, preds, batch, (1.0, 1.0, 1.0))
    leaves = preds | {name: preds[name].detach().requires_grad_() for name in ("boxes", "scores")}
    kernels(leaves, batch)[0].sum().backward()  # an expanded gradient, of stride 0
    assert torch.equal(leaves["boxes"].grad, expected[1])
    assert torch.equal(leaves["scores"].grad, expected[2])


def test_logits_changed_before_the_backward_pass_are_an_error(device: str) -> None:
    kernels, _, preds, batch = both(small_dense(3, seed=34), Setting(device=device))
    leaves = preds | {"scores": preds["scores"].detach().requires_grad_() * 1}
    loss, _ = kernels(leaves, batch)
    leaves["scores"].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.sum().backward()


def test_a_given_assignment_is_followed(device: str) -> None:
    case = small_dense(seed=35, topk2=2)
    kernels, torch_backend, preds, batch = both(case, Setting(device=device))
    given = DetectionLoss(small_dense(seed=35, topk=4).spec, backend="torch").assign(preds, batch)
    found, expected = (criterion.loss_given(preds, batch, given) for criterion in (kernels, torch_backend))
    assert_near(found[0], expected[0], 2e-5, "loss")
    assert {key: item.item() for key, item in found[1].items()} == pytest.approx(
        {key: item.item() for key, item in expected[1].items()}, rel=1e-4
    )


def test_impossible_entries_of_a_given_assignment_are_freed(device: str) -> None:
    case = small_dense(4, seed=38)
    kernels, _, preds, batch = both(case, Setting(device=device), validate=False)
    given = kernels.assign(preds, batch)
    beyond = torch.tensor([10**8, 0, -1, 0], device=device), torch.tensor([0, 10**8, 0, -1], device=device)
    ones = torch.ones(4, device=device)
    spoilt = Assignment(
        torch.cat([given.image, torch.zeros_like(beyond[0])]),
        torch.cat([given.anchor, beyond[1]]),
        torch.cat([given.box, beyond[0]]),
        torch.cat([given.weight, ones]),
    )
    found = []
    for assignment in (spoilt, given):
        leaves = preds | {name: preds[name].detach().requires_grad_() for name in ("boxes", "scores")}
        loss, _ = kernels.loss_given(leaves, batch, assignment)
        loss.sum().backward()
        found.append((loss.detach(), leaves["boxes"].grad, leaves["scores"].grad))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_inside_autocast_nothing_changes(device: str) -> None:
    kernels, _, preds, batch = both(small_dense(4, seed=36), Setting(device=device))
    expected = answers(kernels, preds, batch)
    with torch.autocast(torch.device(device).type, dtype=torch.bfloat16):
        found = answers(kernels, preds, batch)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)
