"""The kernels of oriented boxes against the torch backend."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from properties.tests.impl.oriented_inputs import LOGITS, SPEC, answer, as_dtype, predictions, targets
from properties.tests.kernels.helpers import assert_near, same_holders
from twinloss import Assignment, OrientedLoss
from twinloss.backends.triton import arguments as arguments_module
from twinloss.backends.triton import tiles

SMALL = replace(SPEC, reg_max=4)
SPECS = {
    "bins": SMALL,
    "no distribution": replace(SPEC, reg_max=1),
    "end to end": replace(SPEC, reg_max=1, topk=7, topk2=1),
    "class weights": replace(SMALL, class_weights=(0.5, 2.0, 0.0)),
    "other numbers": replace(SMALL, alpha=1.0, beta=2.3, gains=(2.0, 1.0, 0.5, 4.0), angle_scale=1.0, term_floor=0.0, probiou_eps=1e-5),
    "older lengthening": replace(SMALL, lengthen="first"),
}
WHAT = ("loss", "gradient of boxes", "gradient of scores", "gradient of angle")


def on(device: str, tensors: dict[str, Any]) -> dict[str, Any]:
    return {key: value.to(device) if isinstance(value, Tensor) else value for key, value in tensors.items()}


def criteria(spec: Any = SMALL, **options: Any) -> tuple[OrientedLoss, OrientedLoss]:
    return OrientedLoss(spec, backend="triton", **options), OrientedLoss(spec, backend="torch", **options)


def inputs(spec: Any, device: str, rows: int = 12, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    return on(device, predictions(spec, seed=seed, dtype=dtype)), on(device, targets(rows, seed=seed))


@pytest.mark.parametrize("name", SPECS)
def test_the_torch_backend_gives_the_same(name: str, device: str) -> None:
    kernels, torch_backend = criteria(SPECS[name])
    preds, batch = inputs(SPECS[name], device)
    found, expected = kernels.assign(preds, batch), torch_backend.assign(preds, batch)
    assert len(found) > 5
    assert same_holders(found, expected)
    assert_near(found.weight, expected.weight, 2e-5, "weight")
    for what, ours, theirs in zip(WHAT, answer(kernels, preds, batch), answer(torch_backend, preds, batch), strict=True):
        assert_near(ours, theirs, 2e-5, what)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype, device: str) -> None:
    kernels, torch_backend = criteria()
    preds, batch = inputs(SMALL, device, dtype=dtype)
    ours, theirs = answer(kernels, preds, batch), answer(torch_backend, preds, batch)
    assert_near(ours[0], theirs[0], 2e-5, "loss")
    for what, found, expected in zip(WHAT[1:], ours[1:], theirs[1:], strict=True):
        assert found.dtype == dtype
        assert_near(found, expected, {torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype], what)


@pytest.mark.parametrize("tile", ["FEW_BOXES", "MANY_BOXES"])
@pytest.mark.parametrize("conflicts", ["overlap", "pickers"])
def test_long_boxes_with_more_cells_than_a_tile(tile: str, conflicts: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = getattr(tiles, tile)
    monkeypatch.setattr(arguments_module, "candidates_tile", lambda *_: chosen)
    spec = replace(SMALL, num_classes=1, reg_max=1)
    kernels, torch_backend = criteria(spec, conflicts=conflicts)
    preds, _ = inputs(spec, device)
    boxes = [[0.5, 0.5, 1.3, 0.3, 0.8], [0.5, 0.5, 0.3, 1.2, 0.7], [0.4, 0.6, 1.2, 0.05, -0.7], [0.5, 0.5, 0.9, 0.9, 0.0]]
    batch = on(device, {"batch_idx": torch.zeros(4), "cls": torch.zeros(4, 1), "bboxes": torch.tensor(boxes)})
    found = kernels.assign(preds, batch)
    assert len(found) > 10
    assert same_holders(found, torch_backend.assign(preds, batch))


def test_predictions_close_to_the_truth_keep_their_digits(device: str) -> None:
    spec = replace(SPEC, num_classes=1, reg_max=1, gains=(7.5, 0.5, 0.0, 1.0))
    preds, batch = inputs(spec, device, rows=1)
    long, short, angle, anchor = 9.0, 0.25, 0.7, 5 * 12 + 6
    batch |= on(device, {"batch_idx": torch.zeros(1), "cls": torch.zeros(1, 1)})
    batch["bboxes"] = torch.tensor([[6.5 / 12, 5.5 / 12, long / 12, short / 12, angle]], device=device)
    zero, one = torch.zeros(1, dtype=torch.int64, device=device), torch.ones(1, device=device)
    held = Assignment(image=zero, anchor=zero + anchor, box=zero, weight=one)
    kernels, exact = criteria(spec)
    for off in (0.0, 1e-3, 1e-2, 0.1):
        for side, length in enumerate((long, short, long, short)):
            preds["boxes"][0, side, anchor] = length / 2 * (1 + off)
        preds["angle"][0, 0, anchor] = angle + off * short / long
        ours, theirs = answer(kernels, preds, batch, held), answer(exact, as_dtype(preds, torch.float64), batch, held)
        assert abs(float(ours[0][0]) - float(theirs[0][0])) < 1e-5
        for what, found, expected in zip(WHAT[1:], ours[1:], theirs[1:], strict=True):
            assert_near(found, expected, 5e-3, f"{what} at {off}")  # centres are rounded in pixels


def test_rows_that_do_not_count_change_no_bit(device: str) -> None:
    kernels, _ = criteria(validate=False)
    preds, batch = inputs(SMALL, device)
    middle = (0.5, 0.5, 0.4, 0.3, 0.2)
    bad = torch.tensor(
        [
            *((-1, 0, *middle), (9, 0, *middle), (0, 7, *middle), (0, math.nan, *middle)),
            *((0, 0, 0.5, 0.5, 0.4, 0.02, 0.2), (1, 0, 0.5, 0.5, 0.02, 0.4, 0.2), (1, 0, 0.5, 0.5, -0.2, 0.2, 0.9)),
            *((0, 0, 0.5, 0.5, 0.1, 0.1, -200.0), (0, 0, 0.5, 0.5, 0.3, 0.3, math.nan), (1, 0, 0.5, 0.5, math.inf, 0.3, 0.1)),
        ],
        device=device,
    )
    rows = {"batch_idx": bad[:, 0], "cls": bad[:, 1:2], "bboxes": bad[:, 2:]}
    more = {key: torch.cat([value, rows[key]]) for key, value in batch.items()}
    for ours, theirs in zip(answer(kernels, preds, more), answer(kernels, preds, batch), strict=True):
        assert torch.equal(ours, theirs)


def test_an_angle_that_is_no_number(device: str) -> None:
    kernels, torch_backend = criteria()
    preds, batch = inputs(SMALL, device, rows=4)
    candidates = torch_backend.metrics(preds, batch)
    image_of = batch["batch_idx"].long()[candidates.row]
    free = torch.ones(2, preds["boxes"].shape[-1], dtype=torch.bool, device=device)
    free[image_of, candidates.anchor] = False
    image, anchor = (int(index) for index in free.nonzero()[0])
    clean = answer(kernels, preds, batch)
    preds["angle"][image, 0, anchor] = math.nan
    for ours, theirs in zip(answer(kernels, preds, batch), clean, strict=True):
        assert torch.equal(ours, theirs)
    preds["angle"][image_of[0], 0, candidates.anchor[0]] = math.nan
    assert kernels(preds, batch)[0].isnan().all()


def test_large_angles_and_nothing_held(device: str) -> None:
    kernels, torch_backend = criteria()
    preds, batch = inputs(SMALL, device)
    preds["angle"] += 400 * math.pi
    batch["bboxes"][:, 4] += 30 * math.pi
    for what, ours, theirs in zip(WHAT, answer(kernels, preds, batch), answer(torch_backend, preds, batch), strict=True):
        assert_near(ours, theirs, 1e-3, what)
    none = {"batch_idx": torch.zeros(0), "cls": torch.zeros(0, 1), "bboxes": torch.zeros(0, 5)}
    loss, to_boxes, _, to_angle = answer(kernels, preds, on(device, none))
    assert loss[[0, 2, 3]].tolist() == [0, 0, 0]
    assert not to_boxes.any()
    assert not to_angle.any()


@pytest.mark.parametrize("wanted", LOGITS)
def test_the_gradient_of_one_leaf_alone(wanted: str, device: str) -> None:
    kernels, _ = criteria()
    preds, batch = inputs(SMALL, device)
    everything = dict(zip(LOGITS, answer(kernels, preds, batch)[1:], strict=True))
    leaf = preds[wanted].detach().requires_grad_()
    loss, _ = kernels({**preds, wanted: leaf}, batch)
    loss.backward(torch.tensor([1.0, 0.5, -2.0, 3.0], device=device))
    assert leaf.grad is not None
    assert torch.equal(leaf.grad, everything[wanted])
