"""Tolerances of the mask term, the semantic term and their gradients, by their conditioning (segmentation spec sections 4, 5, 8, 8a).

Each is a first-order bound: unit roundoffs times the magnitudes that are rounded, added up. A pixel within rounding of a crop's border is
a kink: the term and the gradients may be those with or without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from oracle.contract.contender import Batch, Preds
from oracle.definition.mask_checks import proto_and_semantic
from oracle.definition.mask_formulas import entropy, resized_nearest, semantic_target, size_of
from oracle.definition.segmentation import ExactSegmentation
from oracle.tolerance.held_anchors import ENTROPY_ROUNDINGS, EVALUATION_ROUNDINGS, OUTPUT_ROUNDINGS, Bounds
from oracle.tolerance.loss_and_gradients import Assigned, FurtherTerms, TermSteps
from oracle.tolerance.mask_term import MaskPart, Prototypes, crop_of, summation
from oracle.tolerance.precision import Precision
from twinloss import Assignment

DICE_ROUNDINGS = 6.0  # Of each sum of the Dice loss: sigmoid, product, quotient.
LOGIT_ROUNDINGS = 3.0  # Of a logit, in an entropy that is computed as the difference of two numbers of its size.
_CHUNK = 32  # Held anchors at a time: a dense (anchors, h, w) matrix of a large batch takes gigabytes.


class SegmentTerms(TermSteps):
    """Tolerances of the segmentation loss: those of detection, and of the two terms that it adds."""

    def further_terms(self, assigned: Assigned) -> FurtherTerms:
        """Returns the tolerances of the mask term and the semantic term, and of their gradients."""
        exact, preds, batch, held, precision = (getattr(assigned, name) for name in ("exact", "preds", "batch", "assignment", "precision"))
        mask = mask_term_tolerance(exact, preds, batch, held, precision)
        semantic = semantic_term_tolerance(exact, preds, batch, held, precision)
        return FurtherTerms({"mask": mask.term, "semantic": semantic.term}, {**mask.gradients, **semantic.gradients})


class TermTolerance(NamedTuple):
    """Tolerance of a term, times gain and number of images, and bounds on its gradients by prediction, in their shapes."""

    term: Tensor
    gradients: Mapping[str, Bounds]


@torch.no_grad()
def mask_term_tolerance(exact: ExactSegmentation, preds: Preds, batch: Batch, held: Assignment, precision: Precision) -> TermTolerance:
    """Returns the tolerances of the mask term and of the gradients of ``mask_coefficient`` and ``proto`` on an assignment.

    Args:
        exact: the definition.
        preds: predictions, on the CPU.
        batch: targets, on the CPU.
        held: H entries.
        precision: the contender's unit roundoffs.
    """
    gain, proto = _gain(exact, "mask"), proto_and_semantic(preds["proto"])[0]
    coefficients = [torch.zeros(preds["mask_coefficient"].shape, dtype=torch.float64) for _ in Bounds._fields]
    prototypes = [torch.zeros(proto.shape, dtype=torch.float64) for _ in Bounds._fields]
    term = torch.zeros((), dtype=torch.float64)
    if len(held.box):
        masks, grid, truth = exact.mask_inputs(preds, batch), exact.grid(preds), exact.truth(preds, batch)
        scale, size = gain * len(proto) / len(held.box), size_of(masks.masks)
        for image in held.image.unique().tolist():
            own = (held.image == image).nonzero().reshape(-1)
            maps = Prototypes(masks.prototypes[image].detach(), size, precision)
            sums = [torch.zeros_like(maps.value) for _ in range(4)]
            for at in _by_box(held.box, own):
                crop = crop_of(grid, truth, batch, size, held.box[at], scale, precision)
                target = masks.instance(int(held.box[at[0]])).expand(len(at), *size)
                part = MaskPart(masks.coefficients[image, held.anchor[at]].detach(), maps, target, crop, precision)
                term += part.term() * (1 + summation(len(held.box)) * precision.evaluation)
                for total, mine in zip(coefficients, part.coefficients(), strict=True):
                    total[image, :, held.anchor[at]] = mine.T
                for whole, mine in zip(sums, part.prototypes(len(own)), strict=True):
                    whole[part.window] += mine
            for total, mine in zip(prototypes, maps.gradients(*sums), strict=True):
                total[image] += mine
    smallest = precision.smallest_output * max(1.0, gain)
    found = {"mask_coefficient": coefficients, "proto": prototypes}
    return TermTolerance(term, {name: Bounds(parts[0] + smallest, *parts[1:]) for name, parts in found.items()})


def _by_box(box: Tensor, entries: Tensor) -> Iterator[Tensor]:
    """Yields the entries of each box, at most ``_CHUNK`` at a time."""
    for row in box[entries].unique().tolist():
        yield from entries[box[entries] == row].split(_CHUNK)


@torch.no_grad()
def semantic_term_tolerance(exact: ExactSegmentation, preds: Preds, batch: Batch, held: Assignment, precision: Precision) -> TermTolerance:
    """Returns the tolerances of the semantic term and of the gradient of ``semantic``; arguments as of :func:`mask_term_tolerance`."""
    semantic, gain, nothing = proto_and_semantic(preds["proto"])[1], _gain(exact, "semantic"), torch.zeros((), dtype=torch.float64)
    if semantic is None:
        return TermTolerance(nothing, {})
    logits, smallest = semantic.double(), precision.smallest_output * max(1.0, gain)
    zeros = torch.zeros_like(logits)
    if len(held.box) == 0:
        return TermTolerance(nothing, {"semantic": Bounds(zeros + smallest, zeros, zeros)})
    covered = exact.mask_inputs(preds, batch).covered()
    target = resized_nearest(semantic_target(batch["sem_masks"], covered, exact.spec.num_classes), size_of(logits))
    factor, rounding = gain * len(logits) / 2, max(precision.score, precision.evaluation)
    (bce, bce_slope), (dice, dice_slope) = _entropy(logits, target, rounding), _dice(logits, target, rounding)
    output = OUTPUT_ROUNDINGS * precision.output * _slope(logits, target)
    off = factor * (bce_slope + dice_slope + output) + smallest
    return TermTolerance(factor * (bce + dice), {"semantic": Bounds(off, zeros, zeros)})


def _gain(exact: ExactSegmentation, term: str) -> float:
    return exact.spec.term_gains[exact.spec.terms.index(term)]


def _entropy(logits: Tensor, target: Tensor, rounding: float) -> tuple[Tensor, Tensor]:
    """Returns the tolerance of the mean entropy, and of its gradient (B, C, h_s, w_s)."""
    value, share = entropy(logits, target), logits.sigmoid()
    relative = (ENTROPY_ROUNDINGS + summation(logits.numel())) * rounding
    off = (LOGIT_ROUNDINGS * rounding * logits.abs() + relative * value).mean()
    return off, EVALUATION_ROUNDINGS * rounding * (share + target) / logits.numel()


def _dice(logits: Tensor, target: Tensor, rounding: float) -> tuple[Tensor, Tensor]:
    """Returns the tolerance of the mean Dice loss, and of its gradient (B, C, h_s, w_s)."""
    share, pairs = logits.sigmoid(), logits.shape[0] * logits.shape[1]
    numerator = 2 * (share * target).sum((2, 3), keepdim=True) + 1
    denominator = share.sum((2, 3), keepdim=True) + target.sum((2, 3), keepdim=True) + 1
    relative = (DICE_ROUNDINGS + summation(logits[0, 0].numel())) * rounding
    ratio = numerator / denominator
    # The slope in the probability, times that of the probability, of which the complement is a difference.
    slope = (2 * target + ratio) / denominator / pairs
    return 2 * relative * ratio.mean() + rounding, slope * share * (3 * relative * (1 - share) + 2 * rounding)


def _slope(logits: Tensor, target: Tensor) -> Tensor:
    """Returns a bound on the gradient of the two halves together (B, C, h_s, w_s)."""
    share, pairs = logits.sigmoid(), logits.shape[0] * logits.shape[1]
    return (share - target).abs() / logits.numel() + 3 * share * (1 - share) / pairs
