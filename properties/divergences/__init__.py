"""The divergence register: every known difference between the definition, the reference and the twin, as data that tests run.

Each entry has a minimal batch, a question, and what everyone answered. An entry whose answers are no longer those is stale, and fails: the
reference has moved, or the twin has. The README's table is made of the same records.
"""

from __future__ import annotations

from properties.divergences import assignment
from properties.divergences import half_precision as arithmetic
from properties.divergences import invalid_logits as unreadable
from properties.divergences import invalid_targets as targets
from properties.divergences.divergence import Divergence, contenders

__all__ = ["REGISTER", "Divergence", "contenders"]

REGISTER: tuple[Divergence, ...] = (*assignment.ENTRIES, *arithmetic.ENTRIES, *targets.ENTRIES, *unreadable.ENTRIES)
