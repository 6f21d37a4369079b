"""Rows of different lengths, stored one after the other: the few operations on them that the assignment needs.

A ragged tensor is a flat tensor of P values beside ``row`` (P,), the ascending index of each value's row.
"""

from __future__ import annotations

import torch
from torch import Tensor


def expand(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Row (P,) and position within the row (P,) of each value of rows that are ``counts`` (n,) long; P is their sum."""
    row = torch.repeat_interleave(counts)
    starts = counts.cumsum(0) - counts
    return row, torch.arange(len(row), device=counts.device) - starts[row]


def rank_descending(values: Tensor, row: Tensor, rows: int) -> Tensor:
    """Rank (P,) of each value within its row, 0 for the largest; the earlier of equal values ranks first."""
    order = values.argsort(descending=True, stable=True)
    order = order[row[order].argsort(stable=True)]
    starts = torch.searchsorted(row, torch.arange(rows, device=row.device))
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=row.device) - starts[row]
    return rank


def row_maximum(values: Tensor, row: Tensor, rows: int) -> Tensor:
    """Largest value (rows,) of each row, 0 for a row without values. ``row`` need not be sorted; values are not negative."""
    return values.new_zeros(rows).scatter_reduce(0, row, values, "amax")
