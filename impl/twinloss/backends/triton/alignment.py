"""Overlap and alignment metric of a ground-truth box and an anchor, in registers (spec sections 5.2 and 5.3)."""

from __future__ import annotations

import triton
import triton.language as tl

from twinloss.backends.triton.arithmetic import power, sigmoid
from twinloss.backends.triton.overlap import ciou
from twinloss.backends.triton.probiou import probiou_loss


@triton.jit
def pair_overlap(
    overlaps: tl.tuple,
    plane: tl.tensor,
    place: tl.tensor,
    asked: tl.tensor,
    row: tl.tensor,
    anchor: tl.tensor,
    box: tl.tuple,
    eps: tl.tensor,
    ORIENTED: tl.constexpr,
    LISTED: tl.constexpr,
) -> tl.tensor:
    """The assigner's overlap of rows and anchors: of their boxes, or half of it and half of their masks' where rows list anchors.

    ``overlaps`` is a tuple of the predicted boxes, the LISTED anchors of each row and the masks' overlap of each (segmentation spec section
    3); with LISTED = 0 the latter two are not read.
    """
    overlap = predicted_overlap(overlaps[0], plane, place, asked, box, eps, ORIENTED)
    if LISTED > 0:
        first = row.to(tl.int64) * LISTED + tl.zeros_like(anchor)
        of_masks = tl.zeros_like(overlap)
        for k in range(LISTED):
            of_masks = tl.where(tl.load(overlaps[1] + first + k) == anchor, tl.load(overlaps[2] + first + k), of_masks)
        overlap = (overlap + of_masks) * 0.5
    return overlap


@triton.jit
def predicted_overlap(
    predicted: tl.tensor,
    plane: tl.tensor,
    place: tl.tensor,
    asked: tl.tensor,
    box: tl.tuple,
    eps: tl.tensor,
    ORIENTED: tl.constexpr,
) -> tl.tensor:
    """max(CIoU or ProbIoU of ground truth and prediction, 0), or NaN; ``place`` is the anchor's index in a batch of ``plane`` anchors."""
    x1 = tl.load(predicted + place, mask=asked, other=0.0)
    y1 = tl.load(predicted + plane + place, mask=asked, other=0.0)
    x2 = tl.load(predicted + 2 * plane + place, mask=asked, other=0.0)
    y2 = tl.load(predicted + 3 * plane + place, mask=asked, other=0.0)
    if ORIENTED:
        angle = tl.load(predicted + 4 * plane + place, mask=asked, other=0.0)
        raw = 1.0 - probiou_loss((x1, y1, x2, y2, angle), box, 0.0, eps)
    else:
        raw = ciou(box, (x1, y1, x2, y2), eps)
    return tl.where(raw <= 0, 0.0, raw)


@triton.jit
def alignment_metric(own_scores: tl.tensor, asked: tl.tensor, overlap: tl.tensor, ALPHA: tl.constexpr, BETA: tl.constexpr) -> tl.tensor:
    """p^α · o^β; ``own_scores`` points to the logits of the box's class at the anchors."""
    logit = tl.load(own_scores, mask=asked, other=0.0).to(tl.float32)
    return power(sigmoid(logit), ALPHA) * power(overlap, BETA)
