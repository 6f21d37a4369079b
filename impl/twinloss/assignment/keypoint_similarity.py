"""Keypoint similarity of candidate pairs, and the levels on which a box has candidates (pose spec section 4, second generation).

The similarity is a mean of exponentials, and the alignment metric its sixth power: where the predicted keypoints are still far off, both
lie below float32, and the metric below float64. Their logarithms do not, so that the ranking by them is that of exact arithmetic in every
dtype. Pairs are few, since a box fits three levels at most and few of their anchors; so their numbers are float64.

Shape suffixes: N rows of the batch, n boxes, L levels, P candidate pairs, k keypoints, E numbers per predicted keypoint; 2 coordinates
(x, y).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor

from twinloss.assignment.candidates import CandidatePairs
from twinloss.assignment.log_numbers import kept
from twinloss.assignment.overlaps import BoxOverlap, Overlap, Ties
from twinloss.assignment.scene import Scene
from twinloss.gather_anchors import columns_by_image
from twinloss.task_specs import PoseSpec
from twinloss.terms.keypoints import EPS, decode_keypoints, doubled_variances, keypoint_differences, visible

LEAST_SIDE, MOST_SIDE = 2, 12
"""A box fits a level when √(w · h) is between these multiples of its stride, both included."""

AREA_SHARE = 0.53
"""Part of a box's area that COCO's similarity takes for the object's."""


def fits_level(area: Tensor, strides: Sequence[int]) -> Tensor:
    """Whether boxes of the areas (n,), in square pixels, fit the levels, as (n, L) bool; small boxes fit the finest, large the coarsest.

    >>> fits_level(torch.tensor([15.0, 40.0, 100.0]) ** 2, (8, 16, 32)).tolist()  # 100 > 12 · 8
    [[True, False, False], [True, True, False], [False, True, True]]
    """
    side_n1 = area.clamp(min=0).sqrt().unsqueeze(1)
    stride_L = torch.tensor(strides, dtype=side_n1.dtype, device=side_n1.device)
    large_enough_nL = (side_n1 >= LEAST_SIDE * stride_L) | (stride_L == min(strides))
    return large_enough_nL & ((side_n1 <= MOST_SIDE * stride_L) | (stride_L == max(strides)))


def squared_errors(difference: Tensor, area: Tensor, doubled: Tensor) -> Tensor:
    """Squared distance (P, k) of predicted and true keypoint, relative to 8σ_k² · (0.53 · area + ε_k).

    Args:
        difference: (P, k, 2) in pixels.
        area: (P,) of the true boxes, in square pixels.
        doubled: (k,) 8σ_k².
    """
    return difference.square().sum(-1) / ((AREA_SHARE * area + EPS).unsqueeze(1) * doubled)


def log_similarity(squared_errors: Tensor, visible: Tensor) -> Tensor:
    """Logarithm (P,) of the mean of exp(−squared error) over the visible keypoints (P, k); −inf where none is.

    >>> log_similarity(torch.tensor([[0.0, 5000.0, 3.0], [5000.0, 5000.0, 3.0]]), torch.tensor([[True, True, False]] * 2)).tolist()
    [-0.6931471824645996, -5000.0]
    """
    exponent_Pk = torch.where(visible, -squared_errors, -torch.inf)
    return exponent_Pk.logsumexp(-1) - visible.sum(-1).to(exponent_Pk.dtype).clamp(min=1).log()


def similarity(squared_errors: Tensor, visible: Tensor) -> Tensor:
    """Mean (P,) of exp(−squared error) over the visible keypoints (P, k), which may underflow; 0 where none is."""
    share_Pk = torch.where(visible, (-squared_errors).exp(), 0)
    return share_Pk.sum(-1) / visible.sum(-1).to(share_Pk.dtype).clamp(min=1)


NUMBERS_AT_ONCE = 1 << 20
"""Keypoints of pairs compared at once, which bounds the scratch memory: about 50 bytes each."""


class KeypointOverlap(Overlap):
    """Similarity of true and predicted keypoints; of boxes without a visible keypoint, the overlap of boxes.

    With ``ties="reference"`` it is computed as the reference computes it, in the dtype of the arithmetic, where it may underflow.
    """

    def __init__(self, scene: Scene, ties: Ties) -> None:
        super().__init__(scene, ties)
        self.ties: Ties = ties
        if ties == "stable":
            self.scale = "logarithms"
        spec, row_n = cast("PoseSpec", scene.spec), scene.truth.row
        height, width = scene.pyramid.image_size
        size_2 = torch.tensor([width, height], dtype=self.dtype, device=row_n.device)
        keypoints_nkE = scene.extras["keypoints"].index_select(0, row_n)
        self.visible = visible(keypoints_nkE)
        self.targets = keypoints_nkE[..., :2].to(self.dtype) * size_2
        self.area = (scene.batch["bboxes"].index_select(0, row_n)[:, 2:4].to(scene.dtype).to(self.dtype) * size_2).prod(-1)
        self.doubled = doubled_variances(spec.keypoint_shape, spec.sigmas, scene.dtype, row_n.device).to(self.dtype)
        self._boxes: BoxOverlap | None = None

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the overlaps: float64 for logarithms."""
        return torch.float64 if self.ties == "stable" else self.scene.dtype

    def candidates(self, pairs: CandidatePairs) -> CandidatePairs:
        """The pairs whose box fits the anchor's level; all of a box that would lose all."""
        strides = self.scene.pyramid.strides
        cells = [rows * columns for rows, columns in self.scene.pyramid.grids]
        level_A = torch.repeat_interleave(torch.tensor(cells, device="cpu"))
        fits_nL = fits_level(self.area, strides)
        fits_P = fits_nL.view(-1)[pairs.box * len(strides) + level_A.to(pairs.anchor.device).index_select(0, pairs.anchor)]
        fitting_n = torch.zeros(len(fits_nL), dtype=torch.int64, device=fits_P.device).index_add_(0, pairs.box, fits_P.to(torch.int64))
        return pairs[(fits_P | (fitting_n == 0).index_select(0, pairs.box)).nonzero().squeeze(1)]

    def __call__(self, pairs: CandidatePairs) -> Tensor:
        """Similarity (P,), kept by its logarithm, or plain."""
        found = [self._similarity(part) for part in self._parts(pairs)]
        similarity_P = torch.cat(found) if found else self.area.new_empty(0)
        by_box = (~self.visible.any(-1)).index_select(0, pairs.box).nonzero().squeeze(1)
        if len(by_box):
            self._boxes = self._boxes or BoxOverlap(self.scene, self.ties)
            overlap = self._boxes(pairs[by_box]).to(self.dtype)
            similarity_P[by_box] = kept(overlap.log()) if self.scale == "logarithms" else overlap
        return similarity_P

    def _parts(self, pairs: CandidatePairs) -> Iterator[CandidatePairs]:
        at_once = max(1, NUMBERS_AT_ONCE // self.visible.shape[1])
        return (CandidatePairs(*part) for part in zip(pairs.box.split(at_once), pairs.anchor.split(at_once), strict=True) if len(part[0]))

    def _similarity(self, pairs: CandidatePairs) -> Tensor:
        scene, spec = self.scene, cast("PoseSpec", self.scene.spec)
        image_P = scene.truth.image.index_select(0, pairs.box)
        raw_PkE = torch.cat(list(columns_by_image(scene.extras["kpts"], image_P, pairs.anchor))).view(-1, *spec.keypoint_shape)
        target_Pk2, visible_Pk = self.targets.index_select(0, pairs.box), self.visible.index_select(0, pairs.box)
        centres_P2, strides_P = scene.centres.index_select(0, pairs.anchor), scene.strides.index_select(0, pairs.anchor)
        area_P = self.area.index_select(0, pairs.box)
        if self.scale == "logarithms":
            difference_Pk2 = keypoint_differences(raw_PkE[..., :2], target_Pk2, centres_P2, strides_P, spec.generation)
            errors_Pk = squared_errors(difference_Pk2 * strides_P[:, None, None], area_P, self.doubled)
            return kept(log_similarity(errors_Pk, visible_Pk))
        raw = raw_PkE[..., :2].reshape(1, len(raw_PkE), -1).transpose(1, 2).to(scene.dtype)
        points_Pk2 = decode_keypoints(raw, centres_P2, (spec.keypoint_shape[0], 2), spec.generation)[0] * strides_P[:, None, None]
        return similarity(squared_errors(points_Pk2 - target_Pk2, area_P, self.doubled), visible_Pk)
