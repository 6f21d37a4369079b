"""Rows of different lengths, stored one after the other: the few operations on them that the assignment needs.

A ragged tensor is a flat tensor of P values beside ``row`` (P,), the index of each value's row.
"""

from __future__ import annotations

import torch
from torch import Tensor


def expand(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Row (P,) and position within the row (P,) of each value of rows that are ``counts`` (n,) long; P is their sum."""
    row = torch.repeat_interleave(counts)
    starts = counts.cumsum(0) - counts
    return row, torch.arange(len(row), device=counts.device) - starts.index_select(0, row)


def largest(values: Tensor, row: Tensor, rows: int, keep: int) -> Tensor:
    """Indices of the ``keep`` largest values of each row, the earlier of equal values first; by row, then descending.

    Values are not negative; NaN counts as the largest.
    """
    order = _order_by_row_descending(values, row)
    counts = torch.bincount(row, minlength=rows)
    starts = counts.cumsum(0) - counts
    rank = torch.arange(len(order), device=row.device) - starts.index_select(0, row.index_select(0, order))
    return order[rank < keep]


def row_maximum(values: Tensor, row: Tensor, rows: int) -> Tensor:
    """Largest value (rows,) of each row, 0 for a row without values; values are not negative."""
    return values.new_zeros(rows).scatter_reduce(0, row, values, "amax")


def _order_by_row_descending(values: Tensor, row: Tensor) -> Tensor:
    # The bits of floats that are not negative are in the order of their values, and integers sort several times faster.
    if values.dtype == torch.float32:
        bits = values.view(torch.int32) & 0x7FFFFFFF
        return ((row << 32) - bits).sort(stable=True).indices
    bits = values.view(torch.int64) & 0x7FFFFFFFFFFFFFFF
    order = bits.neg().sort(stable=True).indices
    return order[row[order].sort(stable=True).indices]
