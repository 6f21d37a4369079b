"""Entries of a list by a key, such as held anchors by their box.

>>> groups = Groups.of(torch.tensor([7, 3, 7]))
>>> groups.value.tolist(), [members.tolist() for members in groups.members(torch.tensor([0, 1]))]
([3, 7], [[[1, 1], [0, 2]], [[True, False], [True, True]]])

Shape suffixes: n entries, g groups, c some of them, k entries of each.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Groups:
    """Groups of entries that have one key.

    Attributes:
        value: (g,) the keys, ascending.
        index: (n,) each entry's group.
        order: (n,) the entries, those of one group together, in their order.
        first, count: (g,) where each group begins in ``order``, and how many entries it has.
    """

    value: Tensor
    index: Tensor
    order: Tensor
    first: Tensor
    count: Tensor

    @classmethod
    def of(cls, key: Tensor) -> Groups:
        """Entries grouped by their keys (n,)."""
        order_n = key.argsort(stable=True)
        value_g, index_n, count_g = key[order_n].unique_consecutive(return_inverse=True, return_counts=True)
        return cls(value_g, torch.empty_like(order_n).scatter_(0, order_n, index_n), order_n, count_g.cumsum(0) - count_g, count_g)

    @property
    def leaders(self) -> Tensor:
        """(g,) the first entry of each group."""
        return self.order[self.first]

    @property
    def largest(self) -> int:
        """Entries of the largest group, 0 without groups."""
        return int(self.count.max()) if len(self.count) else 0

    def members(self, group: Tensor) -> tuple[Tensor, Tensor]:
        """Entries (c, k) of groups (c,), and whether they are there (c, k): where a group has fewer, its first is repeated."""
        count_c1 = self.count[group].unsqueeze(-1)
        place_k = torch.arange(int(count_c1.max()), device=group.device)
        there_ck = place_k < count_c1
        return self.order[self.first[group].unsqueeze(-1) + torch.where(there_ck, place_k, 0)], there_ck
