"""Small batches with masks, and what the definition says of them: dense, in float64, one held anchor at a time.

Shape suffixes: B images, P prototypes, A anchors, N boxes, n held anchors, h and w the masks' grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from twinloss.geometry.corners import pixel_corners
from twinloss.masks.targets import TrueMasks, places
from twinloss.terms.masks import HeldMasks, MaskTerm, mask_term

KINDS = ("any", "edges", "thin", "whole", "pixel", "outside", "flat")
"""Boxes: anywhere; of whole mask pixels; thinner than one; the whole image; one mask pixel; half outside; without area."""


@dataclass(frozen=True)
class Scene:
    """Predictions, targets, and an assignment, sorted by image, then anchor."""

    coefficients: Tensor
    prototypes: Tensor
    masks: Tensor
    overlap_mask: bool
    batch_idx: Tensor
    bboxes: Tensor
    image: Tensor
    anchor: Tensor
    row: Tensor
    image_size: tuple[int, int]

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w)."""
        return int(self.masks.shape[-2]), int(self.masks.shape[-1])

    def to(self, dtype: torch.dtype) -> Scene:
        """With predictions of another dtype."""
        return replace(self, coefficients=self.coefficients.to(dtype), prototypes=self.prototypes.to(dtype))

    @property
    def targets(self) -> tuple[HeldMasks, TrueMasks]:
        """The last arguments of the term."""
        dtype = torch.float64 if self.coefficients.dtype == torch.float64 else torch.float32
        corners_n4 = pixel_corners(self.bboxes.to(dtype), self.image_size)[self.row]
        held = HeldMasks.of(self.image, self.anchor, self.row, corners_n4, self.image_size, self.grid)
        return held, TrueMasks(self.masks, places(self.batch_idx) if self.overlap_mask else None)

    def answer(self, of: MaskTerm = mask_term) -> list[Tensor]:
        """The term, and its gradients by coefficients and prototypes."""
        leaves = [each.detach().requires_grad_() for each in (self.coefficients, self.prototypes)]
        term = of(leaves[0], leaves[1], *self.targets)
        return [term.detach(), *torch.autograd.grad(term, leaves)]

    def definition(self) -> list[Tensor]:
        """The same by the specification, in float64 but for the crop, which is decided in the dtype of the arithmetic."""
        leaves = [each.detach().to(torch.float64).requires_grad_() for each in (self.coefficients, self.prototypes)]
        term = self._dense(*leaves) + sum(leaf.sum() for leaf in leaves) * 0
        return [term.detach(), *torch.autograd.grad(term, leaves)]

    def _dense(self, coefficients_BPA: Tensor, prototypes_BPhw: Tensor) -> Tensor:
        total, (rows, columns) = torch.zeros((), dtype=torch.float64), self.grid
        for image, anchor, row in zip(self.image.tolist(), self.anchor.tolist(), self.row.tolist(), strict=True):
            resized = bilinear(bilinear(prototypes_BPhw[image], rows, 1), columns, 2)
            logits = torch.einsum("p,phw->hw", coefficients_BPA[image, :, anchor], resized)
            x1, y1, x2, y2 = self.corners(row)
            area = (x2 - x1) / self.image_size[1] * (y2 - y1) / self.image_size[0]
            if area > 0:
                entropy = torch.logaddexp(logits, torch.zeros_like(logits)) - logits * self.mask_of(row)
                total = total + (entropy * self.inside(row)).sum() / (rows * columns * area)
        return total / max(len(self.row), 1)

    def mask_of(self, row: int) -> Tensor:
        """(h, w) true mask of a row, in float64."""
        if not self.overlap_mask:
            return self.masks[row].to(torch.float64)
        place = int((self.batch_idx[:row] == self.batch_idx[row]).sum())
        return (self.masks[int(self.batch_idx[row])] == place + 1).to(torch.float64)

    def corners(self, row: int) -> list[float]:
        """Corners of a row's box in pixels, computed in the dtype of the arithmetic."""
        number, (height, width) = self.number, self.image_size
        x, y, w, h = (number(each) for each in self.bboxes[row].tolist())
        middle, half = (x * number(width), y * number(height)), (w * number(width) / number(2), h * number(height) / number(2))
        return [float(corner) for corner in (middle[0] - half[0], middle[1] - half[1], middle[0] + half[0], middle[1] + half[1])]

    @property
    def number(self) -> type[np.floating[Any]]:
        """The dtype of the arithmetic."""
        return np.float64 if self.coefficients.dtype == torch.float64 else np.float32

    def inside(self, row: int) -> Tensor:
        """(h, w) whether each pixel lies inside the row's box: one number at a time, in the order of operations of section 9."""
        number, (height, width), (rows, columns) = self.number, self.image_size, self.grid
        scales = [(width, columns), (height, rows)] * 2
        x1, y1, x2, y2 = (float(number(at) / number(of) * number(to)) for at, (of, to) in zip(self.corners(row), scales, strict=True))
        return torch.tensor([[float(x1 <= c < x2 and y1 <= r < y2) for c in range(columns)] for r in range(rows)], dtype=torch.float64)


def bilinear(values: Tensor, resized: int, axis: int) -> Tensor:
    """``values`` with one axis resized (section 4)."""
    size, places = values.shape[axis], []
    for place in range(resized):
        at = max((place + 0.5) * size / resized - 0.5, 0.0)
        near = math.floor(at)
        far = min(near + 1, size - 1)
        places.append((1 - at + near) * values.select(axis, near) + (at - near) * values.select(axis, far))
    return torch.stack(places, axis)


def box(kind: str, noise: list[float], grid: tuple[int, int]) -> list[float]:
    """Centre and size, divided by the image's."""
    (rows, columns), (a, b, c, d) = grid, noise
    pixel_w, pixel_h = 1 / columns, 1 / rows
    if kind == "edges":
        x1, y1 = math.floor(a * (columns - 1)), math.floor(b * (rows - 1))
        across, down = 1 + math.floor(c * (columns - x1 - 1)), 1 + math.floor(d * (rows - y1 - 1))
        return [(x1 + across / 2) * pixel_w, (y1 + down / 2) * pixel_h, across * pixel_w, down * pixel_h]
    sizes = {"thin": (c * pixel_w, d), "whole": (1.0, 1.0), "pixel": (pixel_w, pixel_h), "flat": (0.0, d)}
    wide, tall = sizes.get(kind, (c, d))
    x, y = (0.5, 0.5) if kind == "whole" else (a, b)
    if kind == "outside":
        x, y = (x * 1.4 - 0.2, y * 1.4 - 0.2)
    return [x, y, wide, tall]


@st.composite
def scenes(draw: st.DrawFn, most_boxes: int = 6) -> Scene:
    """Batches in float64 whose boxes and masks can be degenerate; some images hold nothing."""
    images, prototypes = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    rows, columns = draw(st.integers(1, 11)), draw(st.integers(1, 11))
    image_size = draw(st.sampled_from([(4 * rows, 4 * columns), (32, 64), (352, 96)]))
    grid = draw(st.sampled_from([(rows, columns), (2 * rows, 2 * columns), (5, 7), (1, 3)]))
    counts = draw(st.lists(st.integers(0, most_boxes), min_size=images, max_size=images))
    noise = torch.Generator().manual_seed(draw(st.integers(0, 1 << 30)))
    number = sum(counts)
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=number, max_size=number))
    bboxes = [box(kind, torch.rand(4, generator=noise).tolist(), (rows, columns)) for kind in kinds]
    batch_idx_N = torch.repeat_interleave(torch.arange(images), torch.tensor(counts))[torch.randperm(number, generator=noise)]
    overlap_mask = draw(st.booleans())
    masks = _masks(overlap_mask, counts, (rows, columns), draw(st.sampled_from(("uint8", "float32", "fractions"))), noise)
    anchors = 9
    chosen = torch.rand(images, anchors, generator=noise) < draw(st.sampled_from([0.0, 0.3, 1.0]))
    chosen &= (torch.tensor(counts) > 0).unsqueeze(-1)
    image_n, anchor_n = chosen.nonzero(as_tuple=True)
    row_n = torch.tensor([_any_row(batch_idx_N, image, noise) for image in image_n.tolist()], dtype=torch.int64)
    return Scene(
        torch.randn(images, prototypes, anchors, generator=noise, dtype=torch.float64),
        torch.randn(images, prototypes, *grid, generator=noise, dtype=torch.float64) * draw(st.sampled_from([1.0, 20.0])),
        masks,
        overlap_mask,
        batch_idx_N,
        torch.tensor(bboxes, dtype=torch.float32).view(-1, 4),
        image_n,
        anchor_n,
        row_n,
        image_size,
    )


def _any_row(batch_idx_N: Tensor, image: int, noise: torch.Generator) -> int:
    rows = (batch_idx_N == image).nonzero().squeeze(1)
    return int(rows[torch.randint(0, len(rows), (), generator=noise)])


def _masks(overlap_mask: bool, counts: list[int], grid: tuple[int, int], values: str, noise: torch.Generator) -> Tensor:
    if overlap_mask:
        maps = [torch.randint(0, count + 1, grid, generator=noise) for count in counts]
        return torch.stack(maps).to(torch.uint8 if values == "uint8" else torch.float32)
    shares = torch.rand(sum(counts), *grid, generator=noise)
    return shares if values == "fractions" else (shares > 0.5).to(torch.uint8 if values == "uint8" else torch.float32)
