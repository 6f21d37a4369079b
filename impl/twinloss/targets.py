"""Ground truth as it arrives, as pixel corners in order (spec section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class GroundTruth:
    """Valid boxes of a batch, by image and, within an image, by order of arrival: "lower index" means earlier here.

    Attributes:
        row: (n,) row of the batch as it arrived.
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
    pixels = boxes * boxes.new_tensor([width, height, width, height])
    centre, half = pixels[:, :2], pixels[:, 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def prepare_targets(
    batch_idx: Tensor, cls: Tensor, bboxes: Tensor, image_size: tuple[int, int], dtype: torch.dtype = torch.float32
) -> GroundTruth:
    """Ground truth from a batch's rows, in any order of images (spec section 3).

    Args:
        batch_idx: (N,) image index.
        cls: (N,) or (N, 1) class index.
        bboxes: (N, 4) centre and size, divided by the image's width and height.
        image_size: (H, W) in pixels.
        dtype: of the coordinates.

    Returns:
        The valid rows: those whose four corner coordinates add up to more than 0.
    """
    corners = pixel_corners(bboxes.reshape(-1, 4).to(dtype), image_size)
    image = batch_idx.reshape(-1).to(torch.int64)
    order = image.argsort(stable=True)
    row = order[corners[order].sum(-1) > 0]
    return GroundTruth(row=row, image=image[row], label=cls.reshape(-1)[row].to(torch.int64), corners=corners[row])
