"""Overlap and alignment metric of a ground-truth box and an anchor, in registers (spec sections 5.2 and 5.3; pose spec section 4)."""

from __future__ import annotations

import triton
import triton.language as tl

from twinloss.backends.triton.arithmetic import decay, least, log1p, power, sigmoid
from twinloss.backends.triton.keypoints import KEYPOINTS, PROBIOU, kept, log_similarity, logarithm
from twinloss.backends.triton.overlap import ciou
from twinloss.backends.triton.probiou import probiou_loss


@triton.jit
def overlap_of_pair(
    compared: tl.tuple,
    place: tl.tensor,
    anchor: tl.tensor,
    anchors: tl.tensor,
    row: tl.tensor,
    asked: tl.tensor,
    box: tl.tuple,
    truth: tl.tuple,
    eps: tl.tensor,
    OVERLAP: tl.constexpr,
) -> tl.tensor:
    """Overlap of ground truth and prediction: max(CIoU or ProbIoU, 0), or the similarity of keypoints, kept; or NaN.

    ``place`` is the anchor's index in the batch, and ``anchor`` that within its image of ``anchors``. A box without a visible keypoint has
    the overlap of boxes, kept.
    """
    predicted = compared[0]
    plane = tl.cast(truth[3], tl.int64) * anchors
    if OVERLAP == KEYPOINTS:
        similarity, seen = log_similarity(compared, place, anchor, anchors, row, asked, truth)
        by_box = asked & (seen == 0)
        overlap = _overlap_of_boxes(predicted, plane, place, by_box, box, eps, OVERLAP)
        overlap = tl.where(seen == 0, tl.where(overlap == 0, 0.0, kept(tl.log(overlap))), kept(similarity))
    else:
        overlap = _overlap_of_boxes(predicted, plane, place, asked, box, eps, OVERLAP)
    return overlap


@triton.jit
def _overlap_of_boxes(
    predicted: tl.tensor, plane: tl.tensor, place: tl.tensor, asked: tl.tensor, box: tl.tuple, eps: tl.tensor, OVERLAP: tl.constexpr
) -> tl.tensor:
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
