"""Converts the targets of a batch to boxes in pixels, sorted by image (spec section 3).

Shape suffixes: N rows of the batch, n valid boxes, D numbers of a box.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from twinloss.geometry.base import Geometry
from twinloss.geometry.upright import UPRIGHT


@dataclass(frozen=True)
class GroundTruth:
    """Valid boxes of a batch, sorted by image, then by row of the batch; "lower index" means earlier in this order.

    Attributes:
        row: (n,) row of the batch.
        image: (n,) image index, ascending.
        label: (n,) class index.
        boxes: (n, D) pixels: of upright boxes the corners (n, 4).
    """

    row: Tensor
    image: Tensor
    label: Tensor
    boxes: Tensor

    def __len__(self) -> int:
        return len(self.row)

    @property
    def corners(self) -> Tensor:
        """The boxes, where they are upright: (n, 4) pixels."""
        return self.boxes


def prepare_targets(
    batch_idx: Tensor,
    cls: Tensor,
    bboxes: Tensor,
    image_size: tuple[int, int],
    dtype: torch.dtype = torch.float32,
    geometry: Geometry = UPRIGHT,
    *,
    num_images: int | None = None,
    num_classes: int | None = None,
) -> GroundTruth:
    """Ground truth from a batch's rows, in any order of images (spec section 3).

    Args:
        batch_idx: (N,) image index.
        cls: (N,) or (N, 1) class index.
        bboxes: (N, 4) centre and size, divided by the image's width and height, or what other boxes have in their place.
        image_size: (H, W) in pixels.
        dtype: dtype of the coordinates.
        geometry: kind of the boxes.
        num_images: B; with it rows of other images are left out, such as those that pad a batch.
        num_classes: C; with it rows of other classes are left out.

    Returns:
        The valid rows: of upright boxes those whose four corner coordinates add up to more than 0.

    Example:
        >>> boxes = torch.tensor([[0.5, 0.5, 0.25, 0.5], [0.0, 0.0, 0.0, 0.0]])
        >>> truth = prepare_targets(torch.tensor([1, 0]), torch.tensor([7, 0]), boxes, image_size=(64, 32))
        >>> truth.row.tolist(), truth.image.tolist(), truth.label.tolist(), truth.corners.tolist()
        ([0], [1], [7], [[12.0, 16.0, 20.0, 48.0]])
    """
    boxes_ND = geometry.in_pixels(bboxes.reshape(-1, len(geometry.targets)).to(dtype), image_size)
    image_N, label_N = (column.reshape(-1).to(torch.int64) for column in (batch_idx, cls))
    valid_N = geometry.valid(boxes_ND)
    for index_N, count in ((image_N, num_images), (label_N, num_classes)):
        if count is not None:
            valid_N = valid_N & (index_N >= 0) & (index_N < count)
    order_N = image_N.argsort(stable=True)
    row_n = order_N[valid_N[order_N]]
    return GroundTruth(row=row_n, image=image_N[row_n], label=label_N[row_n], boxes=boxes_ND[row_n])
