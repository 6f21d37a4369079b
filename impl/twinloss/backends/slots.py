"""An assignment in memory of a fixed size: one slot for each pick that may be held.

>>> held = Assignment(image=torch.tensor([0, 1]), anchor=torch.tensor([4, 2]), box=torch.tensor([1, 0]), weight=torch.tensor([0.5, 1.0]))
>>> slots = Slots.of(held, capacity=3)
>>> slots.anchor.tolist(), slots.owner.tolist(), slots.weight.tolist()
([4, 2, -1], [1, 0, -1], [0.5, 1.0, 0.0])
>>> slots[:2].listed(image_of_row=torch.tensor([1, 0])).image.tolist()
[0, 1]

Shape suffixes: N rows of the batch, S slots, H held anchors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from twinloss.assignment.assign import Assignment


@dataclass(frozen=True)
class Slots:
    """The assignment in padded form, one slot for each pick.

    Attributes:
        anchor: (S,) int32 anchor within the image, −1 for none.
        owner: (S,) int32 row of the batch that holds the anchor, −1 for none.
        weight: (S,) soft target, in the dtype of the arithmetic.
    """

    anchor: Tensor
    owner: Tensor
    weight: Tensor

    def __getitem__(self, index: slice) -> Slots:
        return Slots(self.anchor[index], self.owner[index], self.weight[index])

    @classmethod
    def of(cls, assignment: Assignment, capacity: int) -> Slots:
        """An assignment's H anchors in its order, and as many empty slots as are left."""
        anchor, owner = (assignment.anchor.new_full((capacity,), -1, dtype=torch.int32) for _ in range(2))
        weight = assignment.weight.new_zeros(capacity)
        for column, values in ((anchor, assignment.anchor), (owner, assignment.box), (weight, assignment.weight)):
            column[: len(assignment)] = values
        return cls(anchor, owner, weight)

    def listed(self, image_of_row: Tensor) -> Assignment:
        """The assignment of slots of which none is empty, given the rows' images (N,)."""
        box = self.owner.to(torch.int64)
        return Assignment(image_of_row.to(torch.int64)[box], self.anchor.to(torch.int64), box, self.weight)
