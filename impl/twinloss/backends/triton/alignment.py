"""Overlap and alignment metric of a ground-truth box and an anchor, in registers (spec sections 5.2 and 5.3)."""

from __future__ import annotations

import triton
import triton.language as tl

from twinloss.backends.triton.arithmetic import decay, least, log1p, power, sigmoid
from twinloss.backends.triton.keypoints import KEYPOINTS, PROBIOU, kept, log_similarity, logarithm
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
    truth: tl.tuple,
    anchors: tl.tensor,
    eps: tl.tensor,
    OVERLAP: tl.constexpr,
    LISTED: tl.constexpr,
) -> tl.tensor:
    """The assigner's overlap of rows and anchors: of their boxes, or half of it and half of their masks' where rows list anchors.

    ``overlaps`` is a tuple of the predicted boxes, the LISTED anchors of each row and the masks' overlap of each (segmentation spec section
    3); with LISTED = 0 the latter two are not read. Where OVERLAP is that of KEYPOINTS it is :mod:`~twinloss.backends.triton.keypoints`'
    ``compared``, and the overlap is kept by its logarithm; a box without a visible keypoint has the overlap of boxes, kept.
    """
    if OVERLAP == KEYPOINTS:
        similarity, seen = log_similarity(overlaps, place, anchor, anchors, row, asked, truth)
        of_boxes = predicted_overlap(overlaps[0], plane, place, asked & (seen == 0), box, eps, OVERLAP)
        of_boxes = tl.where(of_boxes == 0, 0.0, kept(tl.log(of_boxes)))
        overlap = tl.where(seen == 0, of_boxes, kept(similarity))
    else:
        overlap = predicted_overlap(overlaps[0], plane, place, asked, box, eps, OVERLAP)
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
    OVERLAP: tl.constexpr,
) -> tl.tensor:
    """max(CIoU or ProbIoU of ground truth and prediction, 0), or NaN; ``place`` is the anchor's index in a batch of ``plane`` anchors."""
    x1 = tl.load(predicted + place, mask=asked, other=0.0)
    y1 = tl.load(predicted + plane + place, mask=asked, other=0.0)
    x2 = tl.load(predicted + 2 * plane + place, mask=asked, other=0.0)
    y2 = tl.load(predicted + 3 * plane + place, mask=asked, other=0.0)
    if OVERLAP == PROBIOU:
        angle = tl.load(predicted + 4 * plane + place, mask=asked, other=0.0)
        raw = 1.0 - probiou_loss((x1, y1, x2, y2, angle), box, 0.0, eps)
    else:
        raw = ciou(box, (x1, y1, x2, y2), eps)
    return tl.where(raw <= 0, 0.0, raw)


@triton.jit
def alignment_metric(
    own_scores: tl.tensor, asked: tl.tensor, overlap: tl.tensor, ALPHA: tl.constexpr, BETA: tl.constexpr, OVERLAP: tl.constexpr
) -> tl.tensor:
    """p^α · o^β, kept where overlaps are; ``own_scores`` points to the logits of the box's class at the anchors."""
    logit = tl.load(own_scores, mask=asked, other=0.0).to(tl.float32)
    if OVERLAP == KEYPOINTS:
        total = tl.zeros_like(logit)
        if ALPHA != 0:
            total += ALPHA * (least(logit, tl.zeros_like(logit)) - log1p(decay(-tl.abs(logit))))
        if BETA != 0:
            total += BETA * logarithm(overlap)
        metric = kept(total)
    else:
        metric = power(sigmoid(logit), ALPHA) * power(overlap, BETA)
    return metric
