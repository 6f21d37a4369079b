"""What the loss of segmentation promises: native as torch, with any number of threads, and an answer to every bad input."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from oracle.definition.tasks import DEFINITIONS
from properties.tests.impl.terms.test_masks import threads
from twinloss import Assignment, SegmentationLoss, SegmentationSpec
from twinloss.backends.registry import BackendName

Batch = dict[str, Any]
Preds = dict[str, Any]

STRIDES = (8, 16, 32)
UPSTREAM = torch.tensor([1.0, 0.5, -2.0, 3.0, 0.25])
SPEC = SegmentationSpec(num_classes=3)
SPECS = {
    "plain": SPEC,
    "instance masks": replace(SPEC, overlap_mask=False),
    "mask-aware": replace(SPEC, mask_aware=True),
    "mask-aware, instance masks": replace(SPEC, mask_aware=True, overlap_mask=False),
    "mask-aware, no distribution": replace(SPEC, mask_aware=True, reg_max=1),
    "mask-aware, second cut": replace(SPEC, mask_aware=True, topk=7, topk2=1),
    "mask-aware, other exponents": replace(SPEC, mask_aware=True, alpha=1.0, beta=4.0),
    "mask-aware, few candidates": replace(SPEC, mask_aware=True, topk=2),
}
backends = pytest.mark.parametrize("backend", ["torch", "native"])


def predictions(
    spec: SegmentationSpec, proto: tuple[int, int] = (24, 32), semantic: bool = True, dtype: torch.dtype = torch.float32
) -> Preds:
    """Two images of 96 x 128 px."""
    draw = torch.Generator().manual_seed(spec.reg_max)
    anchors = sum((96 // stride) * (128 // stride) for stride in STRIDES)
    boxes = torch.randn(2, 4 * spec.reg_max, anchors, generator=draw) * 2 + (0 if spec.reg_max > 1 else 2.5)
    grids = [torch.randn(2, 5, *proto, generator=draw).to(dtype), torch.randn(2, spec.num_classes, 12, 16, generator=draw).to(dtype)]
    return {
        "boxes": boxes.to(dtype),
        "scores": (torch.randn(2, spec.num_classes, anchors, generator=draw) - 1).to(dtype),
        "mask_coefficient": torch.randn(2, 5, anchors, generator=draw).to(dtype),
        "proto": tuple(grids) if semantic else grids[0],
        "feats": [torch.empty(2, 1, 96 // stride, 128 // stride, dtype=dtype) for stride in STRIDES],
    }


def targets(spec: SegmentationSpec, rows: int = 14, grid: tuple[int, int] = (24, 32)) -> Batch:
    """Boxes of both images, in any order, and masks that have nothing to do with them."""
    draw = torch.Generator().manual_seed(rows)
    image = torch.randint(2, (rows,), generator=draw)
    boxes = torch.cat([torch.rand(rows, 2, generator=draw), torch.rand(rows, 2, generator=draw) * 0.7 + 0.02], dim=1)
    counts = torch.bincount(image, minlength=2).tolist()
    maps = torch.stack([torch.randint(0, count + 1, grid, generator=draw) for count in counts])
    masks = maps if spec.overlap_mask else torch.randint(0, 2, (rows, *grid), generator=draw)
    return {
        "batch_idx": image.float(),
        "cls": torch.randint(spec.num_classes, (rows, 1), generator=draw).float(),
        "bboxes": boxes,
        "masks": masks.to(torch.uint8),
        "sem_masks": torch.randint(spec.num_classes, (2, *grid), generator=draw).float(),
    }


def answer(criterion: SegmentationLoss, preds: Preds, batch: Batch, held: Assignment | None = None) -> list[Tensor]:
    """Loss, and gradients of a weighted sum of it."""
    proto = preds["proto"] if isinstance(preds["proto"], tuple) else (preds["proto"],)
    leaves = [each.detach().clone().requires_grad_() for each in (preds["boxes"], preds["scores"], preds["mask_coefficient"], *proto)]
    given = {**preds, "boxes": leaves[0], "scores": leaves[1], "mask_coefficient": leaves[2]}
    given["proto"] = (leaves[3], leaves[4]) if len(leaves) == 5 else leaves[3]
    loss, items = criterion(given, batch) if held is None else criterion.loss_given(given, batch, held)
    assert list(items) == ["box_loss", "seg_loss", "cls_loss", "dfl_loss" if criterion.spec.reg_max > 1 else "l1_loss", "sem_loss"]
    torch.testing.assert_close(torch.stack(list(items.values())) * 2, loss.detach(), equal_nan=True)
    return [loss.detach(), *torch.autograd.grad((loss * UPSTREAM.to(loss)).sum(), leaves)]


def assert_alike(found: list[Tensor], expected: list[Tensor], rounding: float = 2e-5) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=rounding, atol=rounding * theirs.double().abs().max().item())


@pytest.mark.parametrize("grids", [((24, 32), (24, 32)), ((24, 32), (48, 64)), ((13, 9), (24, 32))], ids=str)
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_native_as_torch(spec: SegmentationSpec, grids: tuple[tuple[int, int], tuple[int, int]]) -> None:
    preds, batch = predictions(spec, grids[0]), targets(spec, grid=grids[1])
    torch_, native = (SegmentationLoss(spec, backend=name) for name in ("torch", "native"))
    held, found = torch_.assign(preds, batch), native.assign(preds, batch)
    for column in ("image", "anchor", "box"):
        assert torch.equal(getattr(held, column), getattr(found, column))
    torch.testing.assert_close(held.weight, found.weight, rtol=1e-4, atol=1e-6)
    assert_alike(answer(native, preds, batch), answer(torch_, preds, batch), 1e-4)
    assert_alike(answer(native, preds, batch, held), answer(torch_, preds, batch, held))


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_threads_change_no_bit(spec: SegmentationSpec) -> None:
    preds, batch, criterion = predictions(spec), targets(spec), SegmentationLoss(spec, backend="native")
    with threads(1):
        alone = answer(criterion, preds, batch)
    with threads(3):
        assert all(map(torch.equal, answer(criterion, preds, batch), alone))


@backends
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_half_precision(backend: BackendName, dtype: torch.dtype, spec: SegmentationSpec) -> None:
    """The same logits in float64 give the same, but for the rounding of the gradients."""
    preds, batch = predictions(spec, dtype=dtype), targets(spec)
    exact, half = SegmentationLoss(spec, backend="torch"), SegmentationLoss(spec, backend=backend)
    wide = {key: value.double() if isinstance(value, Tensor) else value for key, value in preds.items()}
    wide["proto"], wide["feats"] = tuple(each.double() for each in preds["proto"]), [each.double() for each in preds["feats"]]
    held = half.assign(preds, batch)
    assert_alike(answer(half, preds, batch, held), answer(exact, wide, batch, held), 2e-2 if dtype == torch.bfloat16 else 3e-3)


@backends
@pytest.mark.parametrize("spec", [SPECS["mask-aware"], replace(SPEC, mask_grid="prototypes", semantic_term=False)])
def test_another_default_device_changes_nothing(backend: BackendName, spec: SegmentationSpec) -> None:
    criterion, preds, batch = SegmentationLoss(spec, backend=backend), predictions(spec, (13, 9), spec.semantic_term), targets(spec)
    expected = gradients_of_sum(criterion, preds, batch)
    with torch.device("meta"):
        found = gradients_of_sum(criterion, preds, batch)
    assert all(map(torch.equal, found, expected))


def gradients_of_sum(criterion: SegmentationLoss, preds: Preds, batch: Batch) -> list[Tensor]:
    """Loss, and gradients of its sum by boxes and coefficients."""
    leaves = {key: preds[key].detach().clone().requires_grad_() for key in ("boxes", "mask_coefficient")}
    loss, _ = criterion({**preds, **leaves}, batch)
    return [loss.detach(), *torch.autograd.grad(loss.sum(), tuple(leaves.values()))]


@backends
@pytest.mark.parametrize("side", range(4))
def test_a_predicted_box_that_is_no_number_shows(backend: BackendName, side: int) -> None:
    """Its mask is compared with those of the boxes around it, in a crop that has no borders."""
    spec = SPECS["mask-aware, no distribution"]
    preds, batch = predictions(spec), targets(spec)
    preds["boxes"][0, side, 40:60] = math.nan
    loss, _ = SegmentationLoss(spec, backend=backend)(preds, batch)
    assert loss.isnan().tolist() == [True, False, True, True, False]


@backends
def test_order_of_rows_changes_nothing(backend: BackendName) -> None:
    for spec in (SPECS["mask-aware"], SPECS["mask-aware, instance masks"]):
        preds, batch, criterion = predictions(spec), targets(spec), SegmentationLoss(spec, backend=backend)
        order = batch["batch_idx"].argsort(stable=True)
        ordered = {
            key: value if key == "sem_masks" or (key == "masks" and spec.overlap_mask) else value[order] for key, value in batch.items()
        }
        assert_alike(answer(criterion, preds, ordered), answer(criterion, preds, batch))


@backends
def test_indices_of_bytes_where_boxes_are_more(backend: BackendName) -> None:
    """A byte holds indices to 255. An image of 300 boxes may have such a map: none of its pixels is of a box beyond."""
    preds, batch = predictions(SPEC), targets(SPEC, 600)
    assert torch.bincount(batch["batch_idx"].long()).min() > 255
    wide = {**batch, "masks": batch["masks"].to(torch.int32)}
    criterion = SegmentationLoss(SPEC, backend=backend)
    for found, expected in zip(answer(criterion, preds, batch), answer(criterion, preds, wide), strict=True):
        assert torch.equal(found, expected)


@backends
@pytest.mark.parametrize(
    ("classes", "dtype"), [(3, torch.uint8), (3, torch.bool), (200, torch.int8), (256, torch.uint8), (300, torch.uint8), (3, torch.float16)]
)
def test_classes_of_pixels_in_any_dtype(backend: BackendName, classes: int, dtype: torch.dtype) -> None:
    """A byte compared with -1 or 300 would wrap these around, so that no pixel had a class, or every pixel a wrong one."""
    spec = replace(SPEC, num_classes=classes)
    preds, batch = predictions(spec), targets(spec)
    narrow = (batch["sem_masks"] % 2).to(dtype)
    exact, _ = DEFINITIONS["segment"](spec)({**preds, "proto": preds["proto"]}, {**batch, "sem_masks": narrow})
    for validate in (True, False):
        criterion = SegmentationLoss(spec, backend=backend, validate=validate)
        found, expected = (answer(criterion, preds, {**batch, "sem_masks": each}) for each in (narrow, narrow.to(torch.int64)))
        assert all(map(torch.equal, found, expected))
        torch.testing.assert_close(found[0].double(), exact, rtol=1e-5, atol=1e-6)


@backends
@pytest.mark.parametrize("spec", [SPEC, SPECS["mask-aware"]], ids=["plain", "mask-aware"])
def test_a_batch_of_no_images(backend: BackendName, spec: SegmentationSpec) -> None:
    preds, batch = predictions(spec), targets(spec, 0)
    cut = {key: tuple(each[:0] for each in value) if key == "proto" else value[:0] for key, value in preds.items() if key != "feats"}
    none = {key: value[:0] for key, value in batch.items()}
    loss, _ = SegmentationLoss(spec, backend=backend)({**cut, "feats": [level[:0] for level in preds["feats"]]}, none)
    assert loss.tolist() == [0.0] * 5


@backends
def test_an_index_far_beyond_the_boxes_takes_no_memory(backend: BackendName) -> None:
    """With ``validate=False``: it is nobody's, however large it is."""
    spec = SPECS["mask-aware"]
    preds, batch = predictions(spec), targets(spec)
    near, far = ({**batch, "masks": batch["masks"].to(torch.int64)} for _ in range(2))
    near["masks"][0, 3, 3], far["masks"][0, 3, 3] = 99, 2**40
    criterion = SegmentationLoss(spec, backend=backend, validate=False)
    assert all(map(torch.equal, answer(criterion, preds, near), answer(criterion, preds, far)))


@backends
@pytest.mark.parametrize("spec", [SPEC, SPECS["mask-aware"]], ids=["plain", "mask-aware"])
def test_without_boxes_nothing_is_needed(backend: BackendName, spec: SegmentationSpec) -> None:
    batch = {"batch_idx": torch.zeros(0), "cls": torch.zeros(0, 1), "bboxes": torch.zeros(0, 4)}
    loss, _, scores, coefficients, proto, semantic = answer(SegmentationLoss(spec, backend=backend), predictions(spec), batch)
    assert loss[[0, 1, 3, 4]].tolist() == [0, 0, 0, 0]
    assert loss[2] > 0
    assert scores.abs().sum() > 0
    assert not any(each.any() for each in (coefficients, proto, semantic))


@backends
def test_without_semantic_logits(backend: BackendName) -> None:
    batch = targets(SPEC)
    del batch["sem_masks"]
    loss = answer(SegmentationLoss(SPEC, backend=backend), predictions(SPEC, semantic=False), batch)[0]
    assert loss[4] == 0
    assert loss[1] > 0


@backends
@pytest.mark.parametrize("spec", [SPEC, SPECS["mask-aware"]], ids=["plain", "mask-aware"])
def test_box_without_area_counts_as_zero(backend: BackendName, spec: SegmentationSpec) -> None:
    """A given assignment in which it holds an anchor: that anchor's loss is 0, and it is counted."""
    preds, batch = predictions(spec), targets(spec)
    criterion = SegmentationLoss(spec, backend=backend)
    held = criterion.assign(preds, batch)
    flat = {**batch, "bboxes": batch["bboxes"].clone()}
    row = int(held.box[0])
    flat["bboxes"][row, 2] = 0
    others = Assignment(*(getattr(held, column)[held.box != row] for column in ("image", "anchor", "box", "weight")))
    found, without = (answer(criterion, preds, batch_, held_)[0][1] for batch_, held_ in ((flat, held), (batch, others)))
    torch.testing.assert_close(found * len(held), without * len(others))
    assert answer(criterion, preds, flat)[0].isfinite().all()


@backends
def test_nothing_held_ignores_infinite_prototypes(backend: BackendName) -> None:
    """An image that holds nothing, and pixels outside of every crop, have no effect (section 10)."""
    preds, batch = predictions(SPEC), targets(SPEC)
    keep = batch["batch_idx"] == 0
    batch = {key: value if key in ("masks", "sem_masks") else value[keep] for key, value in batch.items()}
    batch["masks"] = batch["masks"].clone()
    batch["masks"][1] = 0
    whole = answer(SegmentationLoss(SPEC, backend=backend), preds, batch)
    preds["proto"] = (preds["proto"][0].clone(), preds["proto"][1])
    preds["proto"][0][1] = math.inf
    assert all(map(torch.equal, answer(SegmentationLoss(SPEC, backend=backend), preds, batch), whole))


def _with(key: str, value: Callable[[Any], Any]) -> Callable[[Preds, Batch], None]:
    def change(preds: Preds, batch: Batch) -> None:
        where = preds if key in preds else batch
        where[key] = value(where[key])

    return change


def _without(key: str) -> Callable[[Preds, Batch], None]:
    def change(_: Preds, batch: Batch) -> None:
        del batch[key]

    return change


def _put(at: tuple[int, ...], value: float, dtype: torch.dtype | None = None) -> Callable[[Tensor], Tensor]:
    def change(tensor: Tensor) -> Tensor:
        changed = tensor.to(dtype or tensor.dtype).clone()
        changed[at] = value
        return changed

    return change


BAD_MAPS = {
    "too few": (_with("masks", lambda masks: masks[:1]), "1 masks for 2 images"),
    "too many": (_with("masks", lambda masks: masks.repeat(2, 1, 1)), "4 masks for 2 images"),
    "missing": (_without("masks"), "'masks'"),
    "four dimensions": (_with("masks", lambda masks: masks[:, None]), r"shape \(2, 1, 24, 32\)"),
    "no pixels": (_with("masks", lambda masks: masks[:, :0]), r"shape \(2, 0, 32\)"),
    "index beyond the boxes": (_with("masks", _put((1, 0, 0), 200)), "image 1 has the index 200"),
    "negative": (_with("masks", _put((1, 0, 0), -1, torch.int32)), "image 1 has the index -1"),
    "fraction": (_with("masks", _put((0, 0, 0), 0.5, torch.float32)), "image 0 has the index 0.5"),
    "NaN": (_with("masks", _put((0, 0, 0), math.nan, torch.float32)), "image 0 has the index nan"),
    "bool": (_with("masks", lambda masks: masks > 0), "torch.bool"),
    "complex": (_with("masks", lambda masks: masks.to(torch.complex64)), "complex64"),
    "list": (_with("masks", lambda masks: masks.tolist()), "is a list"),
    "semantic missing": (_without("sem_masks"), "'sem_masks'"),
    "semantic of another size": (_with("sem_masks", lambda maps: maps[:, :12]), r"shape \(2, 12, 32\)"),
    "semantic class beyond": (_with("sem_masks", lambda maps: maps + 3), "there are 3 classes"),
    "list of two": (_with("proto", list), "is a list of 2"),
    "prototypes of fewer images": (_with("proto", lambda pair: (pair[0][:1], pair[1])), r"shape \(1, 5, 24, 32\)"),
    "semantic channels": (_with("proto", lambda pair: (pair[0], pair[1][:, :2])), r"shape \(2, 2, 12, 16\)"),
    "other number of prototypes": (_with("mask_coefficient", lambda values: values[:, :4]), r"shape \(2, 4, "),
    "anchors": (_with("mask_coefficient", lambda values: values[..., 1:]), "mask_coefficient"),
    "dtype": (_with("mask_coefficient", lambda values: values.double()), "float64"),
}
BAD_MASKS = {
    "too few": (_with("masks", lambda masks: masks[:2]), "2 masks for 14 boxes"),
    "beyond one": (_with("masks", _put((3, 0, 0), 255)), "row 3 has values from 0 to 255"),
    "negative": (_with("masks", _put((3, 0, 0), -0.5, torch.float32)), "row 3"),
    "NaN": (_with("masks", _put((3, 0, 0), math.nan, torch.float32)), "row 3"),
}


@pytest.mark.parametrize(("change", "message"), BAD_MAPS.values(), ids=BAD_MAPS)
def test_bad_input(change: Callable[[Preds, Batch], None], message: str) -> None:
    preds, batch = predictions(SPEC), targets(SPEC)
    change(preds, batch)
    with pytest.raises((ValueError, TypeError), match=message):
        SegmentationLoss(SPEC)(preds, batch)


@pytest.mark.parametrize(("change", "message"), BAD_MASKS.values(), ids=BAD_MASKS)
def test_bad_instance_masks(change: Callable[[Preds, Batch], None], message: str) -> None:
    spec = SPECS["instance masks"]
    preds, batch = predictions(spec), targets(spec)
    change(preds, batch)
    with pytest.raises(ValueError, match=message):
        SegmentationLoss(spec)(preds, batch)


def test_class_outside_of_every_instance_is_not_checked() -> None:
    preds, batch = predictions(SPEC), targets(SPEC)
    batch["sem_masks"][batch["masks"] == 0] = math.nan
    assert answer(SegmentationLoss(SPEC), preds, batch)[0].isfinite().all()


@backends
def test_unchecked_values_do_no_harm(backend: BackendName) -> None:
    """With ``validate=False`` an index that no box has is nobody's, and a class that does not exist is taught nowhere."""
    preds, batch = predictions(SPEC), targets(SPEC)
    wrong = {**batch, "masks": batch["masks"].clone(), "sem_masks": batch["sem_masks"].clone()}
    wrong["masks"][0, :4], wrong["sem_masks"][:, 4:6] = 250, 1e6
    assert answer(SegmentationLoss(SPECS["mask-aware"], backend=backend, validate=False), preds, wrong)[0].isfinite().all()
