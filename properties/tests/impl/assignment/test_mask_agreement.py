"""The IoU of predicted and true masks, pair by pair, against masks as wholes; and what lies in memory meanwhile."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from properties.tests.impl.assignment.test_assign import Sizes
from twinloss.assignment.mask_agreement import mask_ious
from twinloss.masks import crops
from twinloss.masks.targets import TrueMasks, places

some = settings(max_examples=settings().max_examples // 2)


def definition(
    inputs: tuple[Tensor, ...], overlap_mask: bool, batch_idx: Tensor, pairs: Tensor, corners: Tensor, height: int
) -> list[float]:
    """Section 3, steps 2 to 4, one pair at a time."""
    coefficients, prototypes, masks = inputs
    tall, wide = prototypes.shape[2:]
    found = []
    for (image, row, anchor), box in zip(pairs.tolist(), corners.tolist(), strict=True):
        logits = torch.einsum("p,phw->hw", coefficients[image, :, anchor], prototypes[image])
        x1, y1, x2, y2 = (side * tall / height for side in box)
        inside = torch.tensor([[x1 <= x < x2 and y1 <= y < y2 for x in range(wide)] for y in range(tall)])
        mask = masks[image if overlap_mask else row]
        resized = torch.stack(
            [torch.stack([mask[y * mask.shape[0] // tall, x * mask.shape[1] // wide] for x in range(wide)]) for y in range(tall)]
        )
        truth = resized == int((batch_idx[:row] == image).sum()) + 1 if overlap_mask else resized > 0.5
        predicted = (logits > 0) & inside
        found.append(int((predicted & truth).sum()) / max(int((predicted | truth).sum()), 1))
    return found


@st.composite
def scenes(draw: st.DrawFn) -> tuple[tuple[Tensor, ...], bool, Tensor, Tensor, Tensor, int]:
    """Arguments of :func:`definition`: integer coefficients and prototypes, whose logits no dtype rounds."""
    images, tall, wide = draw(st.integers(1, 3)), draw(st.integers(1, 9)), draw(st.integers(1, 9))
    masks = draw(st.sampled_from([(tall, wide), (2 * tall, 2 * wide), (3, 4)]))
    counts = draw(st.lists(st.integers(0, 5), min_size=images, max_size=images))
    noise = torch.Generator().manual_seed(draw(st.integers(0, 1 << 30)))
    batch_idx, overlap_mask = torch.repeat_interleave(torch.arange(images), torch.tensor(counts)), draw(st.booleans())
    maps = torch.stack([torch.randint(0, count + 1, masks, generator=noise) for count in counts]).to(torch.uint8)
    values = maps if overlap_mask else torch.rand(len(batch_idx), *masks, generator=noise)
    pairs = [
        (image, row, anchor) for row, image in enumerate(batch_idx.tolist()) for anchor in range(7) if torch.rand(1, generator=noise) < 0.5
    ]
    height, width = 4 * tall, 4 * wide
    corners = torch.rand(len(pairs), 4, generator=noise, dtype=torch.float64) * torch.tensor([width, height] * 2) * 1.6 - 0.3 * height
    corners = torch.cat([torch.minimum(corners[:, :2], corners[:, 2:]), torch.maximum(corners[:, :2], corners[:, 2:])], dim=1)
    coefficients = torch.randint(-3, 4, (images, 3, 7), generator=noise).double()
    prototypes = torch.randint(-3, 4, (images, 3, tall, wide), generator=noise).double()
    return (coefficients, prototypes, values), overlap_mask, batch_idx, torch.tensor(pairs, dtype=torch.int64).view(-1, 3), corners, height


def answer(inputs: tuple[Tensor, ...], overlap_mask: bool, batch_idx: Tensor, pairs: Tensor, corners: Tensor, height: int) -> list[float]:
    coefficients, prototypes, masks = inputs
    image, row, anchor = pairs.unbind(1)
    true_masks = TrueMasks(masks, places(batch_idx) if overlap_mask else None)
    found: list[float] = mask_ious(coefficients, prototypes, true_masks, image, row, anchor, corners, height).tolist()
    return found


@some
@given(scenes())
def test_definition(scene: tuple[tuple[Tensor, ...], bool, Tensor, Tensor, Tensor, int]) -> None:
    assert answer(*scene) == pytest.approx(definition(*scene), abs=1e-12)


@some
@given(scenes())
def test_windows_in_pieces(scene: tuple[tuple[Tensor, ...], bool, Tensor, Tensor, Tensor, int]) -> None:
    whole = answer(*scene)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crops.pieces_of, "__defaults__", (3,))
        patch.setattr(crops.chunks, "__defaults__", (1,))
        assert answer(*scene) == whole


def test_no_tensor_of_pairs_by_pixels() -> None:
    noise, grid, boxes = torch.Generator().manual_seed(0), (80, 80), 50
    pairs = torch.tensor([(0, row, anchor) for row in range(boxes) for anchor in range(30)])
    low = torch.rand(boxes, 1, 2, generator=noise).expand(-1, 30, -1).reshape(-1, 2) * 240
    corners = torch.cat([low, low + 60], dim=1)
    inputs = torch.randn(1, 32, 30, generator=noise), torch.randn(1, 32, *grid, generator=noise), torch.randint(0, boxes + 1, (1, *grid))
    with Sizes() as sizes:
        answer(inputs, True, torch.zeros(boxes, dtype=torch.int64), pairs, corners, 320)
    assert max(sizes.made) < len(pairs) * grid[0] * grid[1]  # bytes: one of booleans would show
    assert max(sizes.made) <= 8 * crops.VALUES_AT_ONCE
