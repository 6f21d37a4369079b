"""Converts the targets of a batch to pixel corners, sorted by image (spec section 3).

Shape suffixes: N rows of the batch, n valid boxes; 2 is (x, y), 4 corners.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class GroundTruth:
    """Valid boxes of a batch, sorted by image, then by row of the batch; "lower index" means earlier in this order.

    Attributes:
        row: (n,) row of the batch.
        image: (n,) image index, ascending.
        label: (n,) class index.
        corners: (n, 4) pixels.
    """

    row: Tensor
    image: Tensor
    label: Tensor
    corners: Tensor

    def __len__(self) -> int:
        return len(self.row)


def pixel_corners(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Pixel corners (N, 4) of boxes (N, 4) given as centre and size, each divided by the image's width or height (spec section 3)."""
    height, width = image_size
    pixels_N4 = boxes * boxes.new_tensor([width, height, width, height])
    centre_N2, half_N2 = pixels_N4[:, :2], pixels_N4[:, 2:] / 2
    return torch.cat([centre_N2 - half_N2, centre_N2 + half_N2], dim=-1)


def prepare_targets(
    batch_idx: Tensor, cls: Tensor, bboxes: Tensor, image_size: tuple[int, int], dtype: torch.dtype = torch.float32
) -> GroundTruth:
    """Ground truth from a batch's rows, in any order of images (spec section 3).

    Args:
        batch_idx: (N,) image index.
        cls: (N,) or (N, 1) class index.
        bboxes: (N, 4) centre and size, divided by the image's width and height.
        image_size: (H, W) in pixels.
        dtype: dtype of the coordinates.

    Returns:
        The valid rows: those whose four corner coordinates add up to more than 0.

    Example:
        >>> boxes = torch.tensor([[0.5, 0.5, 0.25, 0.5], [0.0, 0.0, 0.0, 0.0]])
        >>> truth = prepare_targets(torch.tensor([1, 0]), torch.tensor([7, 0]), boxes, image_size=(64, 32))
        >>> truth.row.tolist(), truth.image.tolist(), truth.label.tolist(), truth.corners.tolist()
        ([0], [1], [7], [[12.0, 16.0, 20.0, 48.0]])
    """
    corners_N4 = pixel_corners(bboxes.reshape(-1, 4).to(dtype), image_size)
    image_N = batch_idx.reshape(-1).to(torch.int64)
    order_N = image_N.argsort(stable=True)
    row_n = order_N[corners_N4[order_N].sum(-1) > 0]
    return GroundTruth(row=row_n, image=image_N[row_n], label=cls.reshape(-1)[row_n].to(torch.int64), corners=corners_N4[row_n])
