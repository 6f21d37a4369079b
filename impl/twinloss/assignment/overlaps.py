"""Overlap of candidate pairs: the part of the assignment in which tasks differ most (spec section 5.2).

An assigner's overlap is a policy, named by ``spec.overlap``; :mod:`twinloss.assignment.registry` lists all. One object serves one call: it
may keep what it has computed from one slice of boxes to the next, such as decoded boxes (:class:`DecodedAnchors`). Metric, top-k, conflicts
and soft targets take what it answers as its :attr:`~Overlap.scale` says; it must not be negative.

Shape suffixes: B images, A anchors, P candidate pairs, D numbers of an anchor, u anchors to decode.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from twinloss.assignment.candidates import CandidatePairs
from twinloss.assignment.scene import Scene

Ties = Literal["stable", "reference"]
Scale = Literal["plain", "every", "logarithms"]
"""How overlaps and metrics are compared, and what is held.

"plain": as they are; anchors of weight 0 are not held, since no sum counts them. "every": as they are; all are held, in a task with terms
that count them. "logarithms": as :mod:`twinloss.assignment.log_numbers` keeps them, since they underflow; anchors of metric 0 are not held,
but those whose weight underflows are.
"""


class Overlap(ABC):
    """The overlap of one call's candidate pairs.

    Pairs come sorted by box, then anchor, each box with all of its candidates at once; the boxes of a call may come in several slices.

    Args:
        scene: predictions and ground truth of the call.
        ties: as :func:`twinloss.assign` takes it.
    """

    def __init__(self, scene: Scene, ties: Ties) -> None:
        self.scene = scene
        self.scale: Scale = "every" if ties == "reference" and scene.spec.counts_weightless else "plain"

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the overlaps."""
        return self.scene.dtype

    def candidates(self, pairs: CandidatePairs) -> CandidatePairs:
        """The pairs that remain candidates, in their order: a policy may refuse some that lie inside their box."""
        return pairs

    @abstractmethod
    def __call__(self, pairs: CandidatePairs) -> Tensor:
        """Overlap o (P,) of what :meth:`candidates` left, at least 0, NaN where a prediction that it reads is NaN."""


class BoxOverlap(Overlap):
    """The geometry's own overlap of true and predicted box: CIoU of upright boxes, ProbIoU of oriented ones."""

    def __init__(self, scene: Scene, ties: Ties) -> None:
        super().__init__(scene, ties)
        self.predicted = DecodedAnchors(scene, scene.geometry.columns, scene.geometry.decode)

    def __call__(self, pairs: CandidatePairs) -> Tensor:
        """Overlap (P,), clamped at 0."""
        scene = self.scene
        # Each number of a box lies in a row of its own, so that the operands of the overlap are contiguous.
        truth_DP, predicted_DP = scene.truth.boxes.T.index_select(1, pairs.box), self.predicted.at(pairs)
        return scene.geometry.overlap(truth_DP.T, predicted_DP.T, scene.spec).clamp(min=0)


class DecodedAnchors:
    """Cache of what is decoded at anchors: each anchor is decoded once, for all boxes that contain it (spec section 4).

    Equal boxes therefore have overlaps with equal bits, also if they lie in two slices: torch can round a number differently at another
    place in a tensor.

    Args:
        scene: predictions of the call.
        columns: D.
        decode: takes the scene, image and anchor (u,), sorted by both, and returns (D, u) in the dtype of the arithmetic.
    """

    def __init__(self, scene: Scene, columns: int, decode: Callable[[Scene, Tensor, Tensor], Tensor]) -> None:
        self.scene, self._decode = scene, decode
        places = scene.scores.shape[0] * scene.num_anchors
        self._values = torch.empty(columns, places, dtype=scene.dtype, device=scene.scores.device)
        self._known = torch.zeros(places, dtype=torch.bool, device=scene.scores.device)

    def at(self, pairs: CandidatePairs) -> Tensor:
        """What is decoded (D, P) at the anchors of pairs."""
        key_P = self.scene.keys(pairs.box, pairs.anchor)
        wanted = torch.zeros_like(self._known)
        wanted[key_P] = True
        new_u = (wanted & ~self._known).nonzero().squeeze(1)
        image_u = new_u // self.scene.num_anchors
        anchor_u = new_u - image_u * self.scene.num_anchors
        self._values.index_copy_(1, new_u, self._decode(self.scene, image_u, anchor_u))
        self._known |= wanted
        return self._values.index_select(1, key_P)
