"""The mask term against the definition, on both backends: its value, its gradients, and what lies in memory meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from properties.tests.impl.assignment.test_assign import Sizes
from properties.tests.impl.terms.scenes import Scene, scenes
from twinloss.backends.native import masks as native
from twinloss.masks import crops
from twinloss.terms.masks import MaskTerm, mask_term

some = settings(max_examples=settings().max_examples // 2)
TERMS: dict[str, MaskTerm] = {"torch": mask_term, "native": native.mask_term}
each_term = pytest.mark.parametrize("of", TERMS.values(), ids=TERMS)
ROUNDING = {torch.float64: 1e-12, torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def assert_close(found: list[Tensor], expected: list[Tensor], rounding: float) -> None:
    for what, ours, theirs in zip(("term", "gradient of the coefficients", "gradient of the prototypes"), found, expected, strict=True):
        error = (ours.to(torch.float64) - theirs).abs().max().item()
        # float16 has no number below 6e-8, and rounds to half of it at best
        least = 6e-8 if ours.dtype == torch.float16 else 1e-12
        assert error <= rounding * theirs.abs().max().item() + least, f"{what}: off by {error} of {theirs.abs().max().item()}"


@contextmanager
def threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@given(scenes())
def test_definition(scene: Scene) -> None:
    assert_close(scene.answer(), scene.definition(), ROUNDING[torch.float64])


@each_term
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@some
@given(scene=scenes())
def test_working_dtypes(of: MaskTerm, dtype: torch.dtype, scene: Scene) -> None:
    scene = scene.to(dtype)
    found = scene.answer(of)
    assert [each.dtype for each in found] == [torch.float32, dtype, dtype]
    assert_close(found, scene.definition(), ROUNDING[dtype])


@some
@given(scenes())
def test_finite_differences(scene: Scene) -> None:
    inputs = [each.requires_grad_() for each in (scene.coefficients, scene.prototypes)]
    torch.autograd.gradcheck(lambda x, y: mask_term(x, y, *scene.targets), inputs, eps=1e-6, atol=1e-6, fast_mode=True)


@some
@given(scenes(most_boxes=60))
def test_chunks_change_nothing(scene: Scene) -> None:
    whole = scene.answer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crops.pieces_of, "__defaults__", (3,))
        patch.setattr(crops.chunks, "__defaults__", (1,))
        assert_close(scene.answer(), whole, ROUNDING[torch.float64])


@some
@given(scene=scenes(most_boxes=60), number=st.sampled_from([2, 3]))
def test_threads_change_no_bit(scene: Scene, number: int) -> None:
    scene = scene.to(torch.float32)
    with threads(1):
        alone = scene.answer(native.mask_term)
    with threads(number):
        assert all(map(torch.equal, scene.answer(native.mask_term), alone))


@each_term
@some
@given(scene=scenes())
def test_nothing_outside_of_a_crop_is_read(of: MaskTerm, scene: Scene) -> None:
    scene = replace(scene, prototypes=scene.prototypes[..., : scene.grid[0], : scene.grid[1]]).to(torch.float32)
    if scene.prototypes.shape[-2:] != scene.grid:
        return
    read = torch.zeros(len(scene.prototypes), *scene.grid, dtype=torch.bool)
    for image, row in zip(scene.image.tolist(), scene.row.tolist(), strict=True):
        if scene.bboxes[row, 2:].prod() > 0:
            read[image] |= scene.inside(row) > 0
    whole = scene.answer(of)
    for value in (torch.nan, torch.inf):
        poisoned = scene.prototypes.masked_fill(~read.unsqueeze(1), value)
        assert_close(replace(scene, prototypes=poisoned).answer(of), whole, 0.0)


@each_term
@some
@given(scene=scenes())
def test_any_memory_layout(of: MaskTerm, scene: Scene) -> None:
    scene = scene.to(torch.float32)
    turned = replace(
        scene,
        coefficients=scene.coefficients.transpose(1, 2).contiguous().transpose(1, 2),
        prototypes=scene.prototypes.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
        masks=scene.masks.transpose(1, 2).contiguous().transpose(1, 2),
    )
    assert_close(turned.answer(of), scene.answer(of), ROUNDING[torch.float32])


@each_term
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int16, torch.int32, torch.int64, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("overlap_mask", [True, False], ids=["index maps", "instance masks"])
def test_masks_of_any_dtype(of: MaskTerm, dtype: torch.dtype, overlap_mask: bool) -> None:
    scene = crowd(2, 1 if dtype == torch.bool else 5, (12, 20), torch.float32, overlap_mask)  # an index map of bool has one box at most
    found = replace(scene, masks=scene.masks.to(dtype)).answer(of)
    assert all(map(torch.equal, found, scene.answer(of)))


@each_term
def test_index_beyond_the_maps_dtype(of: MaskTerm) -> None:
    """The 257th box is index 257, which uint8 does not hold: no pixel is its, and not those of index 1."""
    scene = crowd(1, 260, (12, 20), torch.float32)
    small = scene.masks.clamp(max=255)
    assert all(map(torch.equal, *(replace(scene, masks=small.to(dtype)).answer(of) for dtype in (torch.uint8, torch.int32))))


@each_term
def test_gradient_at_logit_zero(of: MaskTerm) -> None:
    """All coefficients 0: ½ − y at each pixel, which the prototypes' values then weigh."""
    scene = crowd(1, 1, (8, 8), torch.float32)
    scene = replace(scene, coefficients=scene.coefficients * 0)
    assert_close(scene.answer(of), scene.definition(), ROUNDING[torch.float32])


@each_term
def test_second_backward_pass(of: MaskTerm) -> None:
    scene = crowd(2, 3, (12, 20), torch.float32)
    leaves = [each.detach().clone().requires_grad_() for each in (scene.coefficients, scene.prototypes)]
    term = of(leaves[0], leaves[1], *scene.targets)
    scene.masks.zero_()  # masks are data: a change after the call changes nothing
    once = torch.autograd.grad(term, leaves, retain_graph=True)
    assert all(map(torch.equal, torch.autograd.grad(term * 2, leaves), [2 * each for each in once]))


@each_term
def test_detached_prototypes(of: MaskTerm) -> None:
    """The second head of an end-to-end model is given prototypes without a gradient: coefficients have theirs."""
    scene = crowd(2, 3, (12, 20), torch.float32)
    coefficients = scene.coefficients.clone().requires_grad_()
    term = of(coefficients, scene.prototypes, *scene.targets)
    assert torch.equal(torch.autograd.grad(term, coefficients)[0], scene.answer(of)[1])


def crowd(images: int, boxes: int, grid: tuple[int, int], dtype: torch.dtype, overlap_mask: bool = True) -> Scene:
    """Boxes of a quarter of the image at most, each held by ten anchors."""
    noise = torch.Generator().manual_seed(boxes)
    number, anchors = images * boxes, 10 * boxes
    centre, size = torch.rand(number, 2, generator=noise), torch.rand(number, 2, generator=noise) / 2
    image_n = torch.arange(images).repeat_interleave(anchors)
    anchor_n = torch.arange(anchors).repeat(images)
    masks = (images, *grid) if overlap_mask else (number, *grid)
    return Scene(
        torch.randn(images, 32, anchors, generator=noise).to(dtype),
        torch.randn(images, 32, *grid, generator=noise).to(dtype),
        torch.randint(0, boxes + 1 if overlap_mask else 2, masks, generator=noise, dtype=torch.int32 if overlap_mask else torch.uint8),
        overlap_mask,
        torch.arange(images).repeat_interleave(boxes),
        torch.cat([centre, size], dim=1),
        image_n,
        anchor_n,
        image_n * boxes + anchor_n // 10,
        (4 * grid[0], 4 * grid[1]),
    )


@each_term
@pytest.mark.parametrize("overlap_mask", [True, False], ids=["index maps", "instance masks"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_memory(of: MaskTerm, dtype: torch.dtype, overlap_mask: bool) -> None:
    """What is kept for the backward pass, and the largest tensor of scratch memory: neither grows with held anchors times pixels."""
    scene = crowd(2, 40, (80, 80), dtype, overlap_mask)
    leaves = [each.detach().clone().requires_grad_() for each in (scene.coefficients, scene.prototypes)]
    given_ = {each.untyped_storage().data_ptr() for each in (*leaves, scene.masks)}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), Sizes() as sizes:
        term = of(leaves[0], leaves[1], *scene.targets)
        node = cast(Any, term.grad_fn)
        targets = sum(each.untyped_storage().nbytes() for each in (node.targets if of is mask_term else [node.kept]))
        term.backward()
    retained = targets + sum(size for place, size in kept.items() if place not in given_)
    gradients = sum(leaf.nbytes for leaf in leaves)
    assert retained <= 0.1 * gradients + 2 * (64 << 10)
    assert max(sizes.made) <= max(leaves[1].nbytes, 8 * crops.VALUES_AT_ONCE)
    assert max(sizes.made) < len(scene.row) * scene.grid[0] * scene.grid[1]  # bytes: one of booleans would show
