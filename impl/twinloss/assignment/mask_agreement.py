"""How far the predicted mask of an anchor and the true mask of a box agree, for pairs of both (segmentation spec section 3).

Pairs of one box are looked at together, in the smallest window that holds the crops of their predicted boxes. Masks exist for a bounded
number of pixels at a time, and what is kept of them is counts.

One prototype is 1 everywhere on a grid of 4 by 4. The coefficient of anchor 0 is above 0, so that its mask shows all over its predicted
box, the six pixels of rows 0 and 1 and columns 0 to 2; that of anchor 1 is not. The true mask of the only box has four pixels, all of them
there:

>>> masks = TrueMasks(torch.zeros(1, 4, 4), place=torch.tensor([0]))
>>> masks.values[0, :2, :2] = 1
>>> coefficients, prototypes, row = torch.tensor([[[2.0, -2.0]]]), torch.ones(1, 1, 4, 4), torch.tensor([0, 0])
>>> predicted = torch.tensor([[0.0, 0.0, 24.0, 16.0]] * 2)  # in pixels of an image of 32 by 32
>>> ious = mask_ious(coefficients, prototypes, masks, image=row, row=row, anchor=torch.tensor([0, 1]), corners=predicted, height=32)
>>> [round(iou, 3) for iou in ious.tolist()]  # 4 of 6 pixels, and none of 4
[0.667, 0.0]

Shape suffixes: B images, P prototypes, A anchors, N rows of the batch, n pairs, g boxes that have any, c windows of one chunk, k pairs of
each, q pixels of each; 4 corners.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from twinloss.gather_anchors import columns_by_image
from twinloss.masks.crops import Chunk, chunks, pieces_of, whole_pixels
from twinloss.masks.groups import Groups
from twinloss.masks.sampling import nearest
from twinloss.masks.targets import ROWS_AT_ONCE, TrueMasks


def mask_ious(
    coefficients: Tensor, prototypes: Tensor, masks: TrueMasks, image: Tensor, row: Tensor, anchor: Tensor, corners: Tensor, height: int
) -> Tensor:
    """|∩| / max(|∪|, 1) of the predicted mask of each pair's anchor, cropped to its predicted box, and the true mask of its box.

    Args:
        coefficients: (B, P, A).
        prototypes: (B, P, h_p, w_p).
        masks: the true masks; their size may be another.
        image: (n,) image of each pair.
        row: (n,) its row of the batch.
        anchor: (n,) its anchor.
        corners: (n, 4) predicted box of the anchor, in pixels, in the dtype of the arithmetic.
        height: H, of the image.
    """
    tall, wide = int(prototypes.shape[-2]), int(prototypes.shape[-1])
    crop_n4 = whole_pixels(corners * torch.tensor(tall / height, dtype=corners.dtype, device="cpu"), (tall, wide))
    groups, resized = Groups.of(row), Resized(masks, (tall, wide))
    predicted_n, common_n = torch.zeros_like(row), torch.zeros_like(row)
    columns_nP = _columns(coefficients, image, anchor)
    window_g4 = _windows(crop_n4, groups)
    pieces = pieces_of(window_g4, image[groups.leaders])
    for chunk in chunks(pieces, (tall, wide), lambda pixels: pixels * (2 * prototypes.shape[1] + 3 * groups.largest)):
        pair_ck, there_ck = groups.members(chunk.group)
        values_Pn = prototypes[chunk.image].flatten(1).index_select(1, chunk.pixel.flatten()).to(corners.dtype)
        values_cPq = values_Pn.view(-1, *chunk.pixel.shape).transpose(0, 1)
        shows_ckq = (columns_nP[pair_ck].to(corners.dtype) @ values_cPq > 0) & _inside(chunk, crop_n4[pair_ck])
        shows_ckq &= there_ck.unsqueeze(-1)
        truth_c1q = resized.at(groups.value[chunk.group], chunk).unsqueeze(1)
        predicted_n.index_add_(0, pair_ck.flatten(), shows_ckq.sum(-1).flatten())
        common_n.index_add_(0, pair_ck.flatten(), (shows_ckq & truth_c1q).sum(-1).flatten())
    union_n = predicted_n + resized.sizes(image, groups) - common_n
    return common_n.to(corners.dtype) / union_n.clamp(min=1).to(corners.dtype)


def _columns(coefficients_BPA: Tensor, image_n: Tensor, anchor_n: Tensor) -> Tensor:
    """Coefficients (n, P) of anchors of images in ascending order."""
    found = columns_by_image(coefficients_BPA, image_n, anchor_n)
    return torch.cat([coefficients_BPA.new_empty(0, coefficients_BPA.shape[1]), *found])


def _windows(crop_n4: Tensor, groups: Groups) -> Tensor:
    """(g, 4) smallest rectangle that holds all crops of each group; empty crops are left out."""
    empty_n = (crop_n4[:, :2] >= crop_n4[:, 2:]).any(-1, keepdim=True)
    place_n2 = groups.index.unsqueeze(-1).expand(-1, 2)
    most = 1 << 40
    first_g2 = crop_n4.new_full((len(groups.value), 2), most)
    first_g2.scatter_reduce_(0, place_n2, torch.where(empty_n, most, crop_n4[:, :2]), "amin")
    end_g2 = crop_n4.new_zeros(len(groups.value), 2)
    end_g2.scatter_reduce_(0, place_n2, torch.where(empty_n, 0, crop_n4[:, 2:]), "amax")
    return torch.cat([torch.minimum(first_g2, end_g2), end_g2], dim=-1)


def _inside(chunk: Chunk, crop_ck4: Tensor) -> Tensor:
    """(c, k, q) whether the pixels of each window lie in the crops of its pairs."""
    x1, y1, x2, y2 = crop_ck4.unsqueeze(-1).unbind(2)
    x, y = chunk.x.unsqueeze(1), chunk.y.unsqueeze(1)
    return (x1 <= x) & (x < x2) & (y1 <= y) & (y < y2) & chunk.inside.unsqueeze(1)


@dataclass(frozen=True)
class Resized:
    """True masks on another grid, by nearest; instance masks show where they exceed ½ (section 3.3)."""

    masks: TrueMasks
    grid: tuple[int, int]

    @property
    def _source(self) -> tuple[Tensor, Tensor]:
        """Row and column of the masks that each row and column of the grid takes."""
        device = self.masks.values.device
        rows, columns = (nearest(size, to, device) for size, to in zip(self.masks.grid, self.grid, strict=True))
        return rows, columns

    def at(self, row: Tensor, chunk: Chunk) -> Tensor:
        """(c, q) whether the rows' (c,) masks show at the pixels of a chunk."""
        rows, columns = self._source
        found_cq = self.masks.at(row, chunk.image, rows[chunk.y] * self.masks.grid[1] + columns[chunk.x])
        return found_cq if found_cq.dtype == torch.bool else found_cq > 0.5

    def sizes(self, image: Tensor, groups: Groups) -> Tensor:
        """(n,) pixels of the whole grid where the pairs' rows' masks show."""
        (rows, columns), size_g = self._source, torch.zeros_like(groups.value)
        if self.masks.place is None:
            for part in torch.arange(len(size_g), device=image.device).split(ROWS_AT_ONCE):
                shows = self.masks.values[groups.value[part]] > 0.5
                size_g[part] = shows.index_select(1, rows).index_select(2, columns).sum((1, 2))
            return size_g[groups.index]
        image_g = image[groups.leaders]
        for place in image_g.unique().tolist():
            index_map = self.masks.values[place].index_select(0, rows).index_select(1, columns).flatten().to(torch.int64)
            of_image = (image_g == place).nonzero().squeeze(1)
            wanted = self.masks.place[groups.value[of_image]] + 1
            most = int(wanted.max())
            counts = torch.bincount(index_map.where((index_map >= 0) & (index_map <= most), 0), minlength=most + 1)
            size_g[of_image] = counts[wanted]
        return size_g[groups.index]
