"""The mask-aware overlap: half of it the boxes', half the masks' of preselected pairs (segmentation spec section 3).

Shape suffixes: P candidate pairs, n boxes, A anchors, s preselected pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from twinloss.assignment.candidates import CandidatePairs
from twinloss.assignment.mask_agreement import mask_ious
from twinloss.assignment.overlaps import BoxOverlap, Ties
from twinloss.assignment.ragged import in_topk_of_row, largest
from twinloss.assignment.scene import Scene
from twinloss.masks.targets import TrueMasks

PRESELECTED = 3
"""Candidates whose masks are compared, in units of K."""


class MaskAwareOverlap(BoxOverlap):
    """(c + μ) / 2: c the boxes' overlap, μ the masks' for the 3K candidates of a box that are best by their boxes, 0 for the others.

    Args:
        scene: predictions and ground truth of the call, its masks among them.
        ties: which of equal candidates are preselected: "stable" takes the lowest anchors, "reference" those that ``torch.topk`` takes.
    """

    def __init__(self, scene: Scene, ties: Ties) -> None:
        super().__init__(scene, ties)
        self.ties = ties
        self.masks = TrueMasks.of(scene.extras)

    def __call__(self, pairs: CandidatePairs) -> Tensor:
        """Overlap (P,)."""
        overlap_P = super().__call__(pairs)
        index_s = self._preselected(pairs, overlap_P)
        chosen = CandidatePairs(pairs.box.index_select(0, index_s), pairs.anchor.index_select(0, index_s))
        iou_s = mask_ious(
            self.scene.extras["mask_coefficient"],
            self.scene.extras["proto"],
            self.masks,
            self.scene.truth.image.index_select(0, chosen.box),
            self.scene.truth.row.index_select(0, chosen.box),
            chosen.anchor,
            self.predicted.at(chosen).T,
            self.scene.pyramid.image_size[0],
        )
        return overlap_P.index_add(0, index_s, iou_s) / 2

    def _preselected(self, pairs: CandidatePairs, overlap_P: Tensor) -> Tensor:
        """Indices of the min(3K, A) pairs of each box with the largest p^α · c^β + ε_a (section 3.1)."""
        scene, keep = self.scene, min(PRESELECTED * self.scene.spec.topk, self.scene.num_anchors)
        image_P, label_P = (each.index_select(0, pairs.box) for each in (scene.truth.image, scene.truth.label))
        probability_P = scene.scores[image_P, label_P, pairs.anchor].to(overlap_P.dtype).sigmoid()
        quality_P = probability_P.pow(scene.spec.alpha) * overlap_P.pow(scene.spec.beta) + scene.spec.assign_eps
        if self.ties == "stable":
            return largest(quality_P, pairs.box, len(scene.truth), keep).sort().values
        chosen_P = torch.ones(len(quality_P), dtype=torch.bool, device=quality_P.device)
        counts_n = torch.bincount(pairs.box, minlength=len(scene.truth))
        for start, count in zip((counts_n.cumsum(0) - counts_n).tolist(), counts_n.tolist(), strict=True):
            if count > keep:
                own = slice(start, start + count)
                chosen_P[own] = in_topk_of_row(quality_P[own], pairs.anchor[own], keep, scene.num_anchors)
        return chosen_P.nonzero().squeeze(1)
