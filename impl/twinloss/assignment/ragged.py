"""Operations on ragged tensors: rows of different lengths, stored one after the other.

A ragged tensor consists of flat values (P,) and ``row`` (P,), the index of each value's row. Shape suffixes: P values, r rows.
"""

from __future__ import annotations

import torch
from torch import Tensor


def expand(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Row (P,) and position within the row (P,) of each value, for rows of lengths ``counts`` (r,), which sum to P.

    >>> [index.tolist() for index in expand(torch.tensor([2, 0, 3]))]
    [[0, 0, 2, 2, 2], [0, 1, 0, 1, 2]]
    """
    row_P = torch.repeat_interleave(counts)
    starts_r = counts.cumsum(0) - counts
    return row_P, torch.arange(len(row_P), device=counts.device) - starts_r.index_select(0, row_P)


def largest(values: Tensor, row: Tensor, rows: int, keep: int) -> Tensor:
    """Indices of the ``keep`` largest values of each row, sorted by row, then descending, the earlier of equal values first.

    Values are not negative; NaN counts as the largest.

    >>> largest(torch.tensor([0.1, 0.3, 0.3, 0.5]), torch.tensor([0, 0, 0, 1]), rows=2, keep=2).tolist()
    [1, 2, 3]
    """
    order_P = _order_by_row_descending(values, row)
    counts_r = torch.bincount(row, minlength=rows)
    starts_r = counts_r.cumsum(0) - counts_r
    rank_P = torch.arange(len(order_P), device=row.device) - starts_r.index_select(0, row.index_select(0, order_P))
    return order_P[rank_P < keep]


def row_maximum(values: Tensor, row: Tensor, rows: int) -> Tensor:
    """Largest value (rows,) of each row, 0 for a row without values; values are not negative."""
    return values.new_zeros(rows).scatter_reduce(0, row, values, "amax")


def _order_by_row_descending(values: Tensor, row: Tensor) -> Tensor:
    # The bits of floats >= 0 have the order of their values, and integers sort several times faster.
    if values.dtype == torch.float32:
        bits_P = values.view(torch.int32) & 0x7FFFFFFF
        return ((row << 32) - bits_P).sort(stable=True).indices
    bits_P = values.view(torch.int64) & 0x7FFFFFFFFFFFFFFF
    order_P = bits_P.neg().sort(stable=True).indices
    return order_P[row[order_P].sort(stable=True).indices]


def in_topk_of_row(value: Tensor, anchor: Tensor, topk: int, num_anchors: int) -> Tensor:
    """Which pairs (P,) of one box ``torch.topk`` takes from the box's row of all anchors, where the anchors of no pair have the value 0.

    >>> in_topk_of_row(torch.tensor([0.1, 0.4, 0.2]), torch.tensor([1, 2, 4]), topk=2, num_anchors=6).tolist()
    [False, True, True]
    """
    row_A = value.new_zeros(num_anchors)
    row_A[anchor] = value
    taken_A = torch.zeros(num_anchors, dtype=torch.bool, device=value.device)
    taken_A[row_A.topk(topk).indices] = True
    return taken_A[anchor]
