"""The kernels of instance segmentation against the torch backend."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from properties.tests.kernels.helpers import assert_near, same_holders
from twinloss import Assignment, SegmentationLoss, SegmentationSpec
from twinloss.backends.triton import arguments as arguments_module
from twinloss.backends.triton import tiles
from twinloss.backends.triton.availability import interpreting

Grid = tuple[int, int]
PLAIN = SegmentationSpec(num_classes=3, strides=(8, 16), reg_max=2, topk=3)
MAPS, MASKS = PLAIN, replace(PLAIN, overlap_mask=False)
AWARE, AWARE_OF_MASKS = replace(MAPS, mask_aware=True), replace(MASKS, mask_aware=True)
WHAT = ("loss", "boxes", "scores", "mask_coefficient", "proto", "semantic")
HALF = {torch.float16: 3e-3, torch.bfloat16: 2e-2}
UPSTREAM = torch.tensor([1.0, 0.5, -2.0, 3.0, 0.25])


@pytest.fixture(autouse=True)
def larger_tiles_in_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time is that of its operations, of whatever size; the compiled code is tested with the sizes that it has."""
    if interpreting():
        for name in ("MASK_TERM", "MASK_PROTOTYPES_GRADIENT", "MASK_PROTOTYPES_GRADIENT_RESIZED"):
            monkeypatch.setattr(tiles, name, tiles.GridTile(rows=8, columns=16, warps=1))


class Scene(NamedTuple):
    """What differs between batches: the definition, the grids of prototypes and masks, and the numbers of boxes and prototypes."""

    spec: SegmentationSpec = PLAIN
    proto: Grid = (8, 8)
    grid: Grid = (8, 8)
    rows: int = 4
    prototypes: int = 5
    dtype: torch.dtype = torch.float32
    semantic: bool = True
    images: int = 2

    def preds(self, device: str) -> dict[str, Any]:
        """Predictions for images of 32 x 32 px."""
        draw, anchors = torch.Generator().manual_seed(3), 16 + 4

        def normal(*shape: int, scale: float = 1.0, mean: float = 0.0) -> Tensor:
            return (torch.randn(self.images, *shape, generator=draw) * scale + mean).to(device, self.dtype)

        proto, semantic = normal(self.prototypes, *self.proto), normal(self.spec.num_classes, 4, 5)
        return {
            "boxes": normal(4 * self.spec.reg_max, anchors, scale=2.0, mean=1.5 if self.spec.reg_max == 1 else 0.0),
            "scores": normal(self.spec.num_classes, anchors, mean=-1.0),
            "mask_coefficient": normal(self.prototypes, anchors),
            "proto": (proto, semantic) if self.semantic else proto,
            "feats": [torch.empty(self.images, 1, 32 // stride, 32 // stride, device=device) for stride in self.spec.strides],
        }

    def batch(self, device: str) -> dict[str, Tensor]:
        """Boxes of the first two images in any order, and masks that have nothing to do with them."""
        draw = torch.Generator().manual_seed(self.rows)
        image = torch.randint(2, (self.rows,), generator=draw)
        boxes = torch.cat([torch.rand(self.rows, 2, generator=draw), torch.rand(self.rows, 2, generator=draw) * 0.6 + 0.15], dim=1)
        counts = torch.bincount(image, minlength=self.images).tolist()
        maps = torch.stack([torch.randint(0, count + 1, self.grid, generator=draw) for count in counts])
        masks = maps if self.spec.overlap_mask else torch.randint(0, 2, (self.rows, *self.grid), generator=draw)
        classes = self.spec.num_classes
        found = {
            "batch_idx": image.float(),
            "cls": torch.randint(classes, (self.rows, 1), generator=draw).float(),
            "bboxes": boxes,
            "masks": masks.to(torch.uint8),
            "sem_masks": torch.randint(classes, (self.images, *self.grid), generator=draw).float(),
        }
        return {key: value.to(device) for key, value in found.items()}


def criteria(spec: SegmentationSpec, **options: Any) -> tuple[SegmentationLoss, SegmentationLoss]:
    return SegmentationLoss(spec, backend="triton", **options), SegmentationLoss(spec, backend="torch", **options)


def answer(criterion: SegmentationLoss, preds: dict[str, Any], batch: dict[str, Tensor], held: Assignment | None = None) -> list[Tensor]:
    """The loss, and the gradients of a weighted sum of its terms."""
    pair = preds["proto"] if isinstance(preds["proto"], tuple) else (preds["proto"],)
    leaves = [each.detach().requires_grad_() for each in (preds["boxes"], preds["scores"], preds["mask_coefficient"], *pair)]
    given = {**preds, "boxes": leaves[0], "scores": leaves[1], "mask_coefficient": leaves[2]}
    given["proto"] = tuple(leaves[3:]) if len(pair) == 2 else leaves[3]
    loss, items = criterion(given, batch) if held is None else criterion.loss_given(given, batch, held)
    torch.testing.assert_close(torch.stack(list(items.values())) * len(preds["boxes"]), loss.detach(), equal_nan=True)
    return [loss.detach(), *torch.autograd.grad(loss, leaves, UPSTREAM[: len(loss)].to(loss.device))]


def assert_alike(found: list[Tensor], expected: list[Tensor], rounding: float = 2e-5) -> None:
    for what, ours, theirs in zip(WHAT, found, expected, strict=False):
        assert ours.dtype == theirs.dtype
        assert_near(ours, theirs, 2e-5 if what == "loss" else rounding, what)


SCENES = {
    "index maps": Scene(),
    "instance masks": Scene(MASKS),
    "no semantic logits": Scene(semantic=False),
    "masks larger": Scene(grid=(16, 13), prototypes=1),
    "masks smaller, instance masks": Scene(MASKS, grid=(5, 3)),
    "prototypes of one pixel": Scene(proto=(1, 1), grid=(5, 3)),
    "masks of one pixel": Scene(proto=(6, 5), grid=(1, 1)),
    "no distribution, more prototypes": Scene(replace(PLAIN, reg_max=1), prototypes=40, rows=2),
    "images without boxes": Scene(images=4),
    "one box": Scene(rows=1),
    "mask-aware": Scene(AWARE),
    "mask-aware, instance masks larger": Scene(AWARE_OF_MASKS, grid=(13, 16)),
    "mask-aware, masks smaller": Scene(AWARE, grid=(5, 3)),
    "mask-aware, second cut": Scene(replace(AWARE, topk2=1)),
    "mask-aware, few listed": Scene(replace(AWARE, topk=1)),
    "mask-aware, other exponents": Scene(replace(AWARE, alpha=1.0, beta=4.0), rows=8),
    "older, rounded crops": Scene(replace(PLAIN, crop="rounded"), grid=(16, 13)),
    "older, wrapped crops": Scene(replace(MASKS, crop="wrapped"), grid=(16, 13)),
    "older, no semantic term": Scene(replace(PLAIN, semantic_term=False), semantic=False),
    "older, the prototypes' grid": Scene(replace(PLAIN, semantic_term=False, mask_grid="prototypes"), grid=(16, 13), semantic=False),
}


@pytest.mark.parametrize("name", SCENES)
def test_the_torch_backend_gives_the_same(name: str, device: str) -> None:
    scene = SCENES[name]
    kernels, torch_backend = criteria(scene.spec)
    preds, batch = scene.preds(device), scene.batch(device)
    found, expected = kernels.assign(preds, batch), torch_backend.assign(preds, batch)
    assert len(found) > 1
    assert same_holders(found, expected)
    assert_near(found.weight, expected.weight, 2e-5, "weight")
    assert_alike(answer(kernels, preds, batch), answer(torch_backend, preds, batch))


@pytest.mark.parametrize("dtype", HALF)
def test_half_precision(dtype: torch.dtype, device: str) -> None:
    scene = Scene(AWARE, dtype=dtype)
    kernels, torch_backend = criteria(scene.spec)
    preds, batch = scene.preds(device), scene.batch(device)
    held = torch_backend.assign(preds, batch)
    assert same_holders(kernels.assign(preds, batch), held)
    assert_alike(answer(kernels, preds, batch, held), answer(torch_backend, preds, batch, held), HALF[dtype])


@pytest.mark.parametrize("spec", [MAPS, AWARE_OF_MASKS], ids=["plain", "mask-aware"])
def test_fifty_boxes(spec: SegmentationSpec, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """More crops of an image than are tested at once, and candidates that several programs share."""
    monkeypatch.setattr(arguments_module, "candidates_tile", lambda *_: tiles.FEW_BOXES)
    scene = Scene(replace(spec, topk=1, reg_max=1), proto=(4, 4), grid=(4, 4), rows=50, prototypes=2, semantic=False)
    kernels, torch_backend = criteria(scene.spec, conflicts="pickers")
    preds, batch = scene.preds(device), scene.batch(device)
    assert_alike(answer(kernels, preds, batch), answer(torch_backend, preds, batch))


def test_any_memory_layout(device: str) -> None:
    scene = Scene(AWARE)
    kernels, _ = criteria(scene.spec)
    preds, batch = scene.preds(device), scene.batch(device)
    turned = dict(preds)
    turned["mask_coefficient"] = preds["mask_coefficient"].transpose(1, 2).contiguous().transpose(1, 2)
    turned["proto"] = tuple(each.to(memory_format=torch.channels_last) for each in preds["proto"])
    masks = batch | {key: batch[key].transpose(1, 2).contiguous().transpose(1, 2) for key in ("masks", "sem_masks")}
    assert_alike(answer(kernels, turned, masks), answer(kernels, preds, batch), 1e-6)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int16, torch.int64, torch.float16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("spec", [MAPS, MASKS], ids=["index maps", "instance masks"])
def test_masks_of_any_dtype(spec: SegmentationSpec, dtype: torch.dtype, device: str) -> None:
    scene = Scene(replace(spec, topk=1), proto=(4, 4), grid=(4, 4), rows=2, prototypes=2)
    kernels, torch_backend = criteria(scene.spec, validate=False)  # an index map of bool would be refused
    preds, batch = scene.preds(device), scene.batch(device)
    batch["masks"] = batch["masks"].to(dtype)
    assert_alike(answer(kernels, preds, batch), answer(torch_backend, preds, batch))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int64], ids=str)
def test_classes_of_pixels_of_any_dtype(dtype: torch.dtype, device: str) -> None:
    scene = Scene(replace(MAPS, topk=1), proto=(4, 4), grid=(4, 4), rows=2, prototypes=2)
    kernels, torch_backend = criteria(scene.spec, validate=False)
    preds, batch = scene.preds(device), scene.batch(device)
    expected = answer(torch_backend, preds, batch)
    batch["sem_masks"] = batch["sem_masks"].to(dtype)
    assert_alike(answer(kernels, preds, batch), expected)
    assert_alike(answer(torch_backend, preds, batch), expected)


def test_fractions_of_instance_masks_are_targets(device: str) -> None:
    scene = Scene(AWARE_OF_MASKS)
    kernels, torch_backend = criteria(scene.spec)
    preds, batch = scene.preds(device), scene.batch(device)
    batch["masks"] = torch.rand(batch["masks"].shape, generator=torch.Generator().manual_seed(0)).to(device)
    assert_alike(answer(kernels, preds, batch), answer(torch_backend, preds, batch))


def test_without_boxes_nothing_is_needed(device: str) -> None:
    for spec in (PLAIN, AWARE):
        batch = {"batch_idx": torch.zeros(0), "cls": torch.zeros(0, 1), "bboxes": torch.zeros(0, 4)}
        loss, _, scores, *others = answer(
            criteria(spec)[0], Scene(spec).preds(device), {key: value.to(device) for key, value in batch.items()}
        )
        assert loss[[0, 1, 3, 4]].tolist() == [0, 0, 0, 0]
        assert scores.any()
        assert not any(each.any() for each in others)


def test_box_without_area_counts_as_zero(device: str) -> None:
    kernels, _ = criteria(PLAIN)
    preds, batch = Scene().preds(device), Scene().batch(device)
    held = kernels.assign(preds, batch)
    row = int(held.box[0])
    flat = batch | {"bboxes": batch["bboxes"].clone()}
    flat["bboxes"][row, 2] = 0
    others = Assignment(*(getattr(held, column)[held.box != row] for column in ("image", "anchor", "box", "weight")))
    found, without = answer(kernels, preds, flat, held), answer(kernels, preds, batch, others)
    torch.testing.assert_close(found[0][1] * len(held), without[0][1] * len(others))
    assert all(each.isfinite().all() for each in found)


def test_anchors_of_weight_zero_count_where_an_assignment_is_given(device: str) -> None:
    kernels, torch_backend = criteria(PLAIN)
    preds, batch = Scene().preds(device), Scene().batch(device)
    held = kernels.assign(preds, batch)
    half = replace(held, weight=torch.where(torch.arange(len(held), device=device) % 2 == 0, held.weight, 0))
    assert_alike(answer(kernels, preds, batch, half), answer(torch_backend, preds, batch, half))


def test_nothing_outside_of_a_crop_has_an_effect(device: str) -> None:
    """Prototypes outside of every box, and coefficients of anchors that nobody holds, are not read."""
    kernels, _ = criteria(replace(PLAIN, topk=2))
    preds, batch = Scene(semantic=False).preds(device), Scene().batch(device)
    batch["bboxes"] = batch["bboxes"] * torch.tensor([0.3, 0.3, 0.5, 0.5], device=device) + torch.tensor([0.2, 0.2, 0, 0], device=device)
    clean, held = answer(kernels, preds, batch), kernels.assign(preds, batch)
    assert len(held) > 2
    read = torch.zeros(2, 8, 8, dtype=torch.bool, device=device)
    for image, row in zip(held.image.tolist(), held.box.tolist(), strict=True):
        x, y, w, h = (batch["bboxes"][row] * 8).tolist()
        ends = (math.ceil(y - h / 2), math.ceil(y + h / 2), math.ceil(x - w / 2), math.ceil(x + w / 2))
        top, bottom, left, right = (max(end, 0) for end in ends)
        read[image, top:bottom, left:right] = True
    assert not read.all()
    free = torch.ones(2, 20, dtype=torch.bool, device=device)
    free[held.image, held.anchor] = False
    for value in (math.nan, math.inf):
        poisoned = preds | {"proto": preds["proto"].masked_fill(~read.unsqueeze(1), value)}
        poisoned["mask_coefficient"] = preds["mask_coefficient"].masked_fill(free.unsqueeze(1), value)
        assert all(map(torch.equal, answer(kernels, poisoned, batch), clean))
    held_coefficient = preds["mask_coefficient"].clone()
    held_coefficient[held.image[0], 0, held.anchor[0]] = math.nan
    loss, *_, to_prototypes = answer(kernels, preds | {"mask_coefficient": held_coefficient}, batch)
    assert loss[1].isnan()
    assert not to_prototypes.masked_select(~read.unsqueeze(1)).any()


def test_a_semantic_logit_of_minus_infinity_contributes_the_limit(device: str) -> None:
    kernels, _ = criteria(PLAIN)
    preds, batch = Scene().preds(device), Scene().batch(device)
    preds["proto"][1][:, 2] = -math.inf  # a masked channel
    batch["sem_masks"] = batch["sem_masks"].clamp(max=1)
    assert answer(kernels, preds, batch)[0].isfinite().all()


def test_semantic_logits_without_classes_are_an_error_where_an_anchor_is_held(device: str) -> None:
    kernels, _ = criteria(PLAIN)
    preds, batch = Scene().preds(device), Scene().batch(device)
    del batch["sem_masks"]
    with pytest.raises(ValueError, match="batch no 'sem_masks'; give the class of each pixel"):
        kernels(preds, batch)
    batch["bboxes"][:] = 0  # such rows hold nothing
    assert kernels(preds, batch)[0][4] == 0


def test_masks_that_changed_before_the_backward_pass_are_an_error(device: str) -> None:
    kernels, _ = criteria(PLAIN)
    preds, batch = Scene().preds(device), Scene().batch(device)
    preds["mask_coefficient"].requires_grad_()
    loss, _ = kernels(preds, batch)
    batch["masks"].zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.sum().backward()


def test_targets_made_in_inference_mode(device: str) -> None:
    kernels, _ = criteria(PLAIN)
    preds = Scene().preds(device)
    with torch.inference_mode():
        batch = Scene().batch(device)
    assert all(map(torch.equal, answer(kernels, preds, batch), answer(kernels, preds, Scene().batch(device))))


def test_order_of_rows_changes_nothing(device: str) -> None:
    for spec in (MAPS, AWARE_OF_MASKS):
        preds, batch = Scene(spec).preds(device), Scene(spec).batch(device)
        order = batch["batch_idx"].argsort(stable=True)
        kept = ("masks", "sem_masks") if spec.overlap_mask else ("sem_masks",)
        ordered = {key: value if key in kept else value[order] for key, value in batch.items()}
        kernels, _ = criteria(spec)
        assert_alike(answer(kernels, preds, ordered), answer(kernels, preds, batch))


def test_rows_that_do_not_count_change_no_bit(device: str) -> None:
    """Padding of a CUDA graph, without index maps' places and with masks of its own."""
    kernels, _ = criteria(AWARE_OF_MASKS, validate=False)
    preds, batch = Scene(AWARE_OF_MASKS).preds(device), Scene(AWARE_OF_MASKS).batch(device)
    padding = {"batch_idx": -torch.ones(3), "cls": torch.zeros(3, 1), "bboxes": torch.full((3, 4), 0.5), "masks": torch.zeros(3, 8, 8)}
    more = {key: torch.cat([value, padding[key].to(value)]) if key in padding else value for key, value in batch.items()}
    assert all(map(torch.equal, answer(kernels, preds, more), answer(kernels, preds, batch)))


@pytest.mark.parametrize("wanted", [*range(3)])
def test_the_gradient_of_one_leaf_alone(wanted: int, device: str) -> None:
    kernels, _ = criteria(PLAIN)
    preds, batch = Scene().preds(device), Scene().batch(device)
    everything = answer(kernels, preds, batch)[3:]
    leaves = [each.detach().requires_grad_(n == wanted) for n, each in enumerate((preds["mask_coefficient"], *preds["proto"]))]
    loss, _ = kernels(preds | {"mask_coefficient": leaves[0], "proto": tuple(leaves[1:])}, batch)
    (found,) = torch.autograd.grad(loss, [leaves[wanted]], UPSTREAM.to(device))
    assert torch.equal(found, everything[wanted])
