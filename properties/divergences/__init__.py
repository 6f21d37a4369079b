"""The divergence register: every known difference between the definition, the reference and the twin, as data that tests run.

Each entry has a minimal batch, a question, and the recorded answers. The tests ask again: an answer that has changed makes the entry stale,
because the reference or the twin has changed. The documentation's table is made from the same records.
"""

from __future__ import annotations

from properties.divergences import (
    assignment,
    half_precision,
    invalid_keypoints,
    invalid_logits,
    invalid_masks,
    invalid_targets,
    keypoints,
    masks,
    oriented,
)
from properties.divergences.divergence import Divergence, contenders

__all__ = ["REGISTER", "Divergence", "contenders"]

REGISTER: tuple[Divergence, ...] = tuple(
    entry
    for module in (
        assignment, half_precision, invalid_targets, invalid_logits, masks, invalid_masks, oriented, keypoints, invalid_keypoints
    )
    for entry in module.ENTRIES
)  # fmt: skip
