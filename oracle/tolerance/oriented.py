"""Margins and tolerances of oriented boxes; numbers in brackets are sections of the oriented specification."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from oracle.contract.contender import Batch, Preds
from oracle.definition.criterion import ExactCriterion, Grid, GroundTruth
from oracle.definition.oriented import ExactOriented, in_pixels
from oracle.definition.oriented_formulas import LARGEST_DISTANCE, angle_weight, decoded_boxes, side_distances
from oracle.tolerance.coordinates import CORNER_ROUNDINGS, EXACT_LIMIT, EXACT_QUANTUM, Decoded, decoded, side_tolerance
from oracle.tolerance.held_anchors import (
    EVALUATION_ROUNDINGS,
    OUTPUT_ROUNDINGS,
    Bounds,
    BoxPart,
    HeldAnchors,
    boxes_gradient,
    third_term,
)
from oracle.tolerance.intervals import Floats
from oracle.tolerance.loss_and_gradients import Assigned, HeldTerms, TermSteps
from oracle.tolerance.margins import Boxes, Ints, MarginSteps, PossiblePairs, boxes_of
from oracle.tolerance.precision import Precision, unit_roundoff
from oracle.tolerance.probiou_rounding import (
    BoxPair,
    Interval,
    Roundoffs,
    distance_interval,
    distance_slopes,
    probiou_interval,
    slope_in_distance,
)
from twinloss import OrientedSpec

TRUTH_ROUNDINGS = 1.0  # Of scaling a number of ground truth.
DECODE_ROUNDINGS = 3.0  # Of each product with a sine or cosine, and of the sum.
BORDER_ROUNDINGS = 4.0  # Of corners, edges and products.
ANGLE_ROUNDINGS = 3.0  # Of the difference of two angles, brought to half a turn.
_CHUNK = 64  # Boxes at a time.


class OrientedMarginSteps(MarginSteps):
    """Margins of oriented boxes whose overlap is the ProbIoU."""

    def boxes(self, exact: ExactCriterion, truth: GroundTruth, batch: Batch, grid: Grid, precision: Precision) -> Boxes:
        """Returns the valid and possibly valid boxes of a batch [3]."""
        rounding = truth_tolerance(truth.corners, batch["bboxes"], grid, precision.core)
        return boxes_of(truth, rounding, exact.validity(truth.corners), rounding.sum(1))

    def possible_pairs(
        self, exact: ExactCriterion, truth: GroundTruth, boxes: Boxes, grid: Grid, anchor_error: Tensor
    ) -> tuple[Ints, Ints, Floats, Floats]:
        """Returns box, anchor, border distance and its tolerance (each (P,)) of the possible candidate pairs, by box, then anchor [5.1]."""
        shift = (anchor_error.sum(1) * grid.strides).numpy()
        rows, rounding = truth.corners[boxes.row], torch.from_numpy(boxes.tolerance)
        own = border_tolerance(rows, rounding, grid, exact.spec.shortest_side)
        found = []
        for start in range(0, len(rows), _CHUNK):
            some = slice(start, start + _CHUNK)
            border, tolerance = exact.border(rows[some], grid).numpy(), own[some].numpy()[:, None] + shift
            box, anchor = np.nonzero(border > -tolerance)
            found.append((box + start, anchor, border[box, anchor], tolerance[box, anchor]))
        if not found:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros(0)
        return tuple(np.concatenate(column) for column in zip(*found, strict=True))  # type: ignore[return-value]

    def predicted(self, preds: Preds, grid: Grid, boxes: Tensor, reg_max: int, precision: Precision) -> Tensor:
        """Returns the tolerance (B, A, 5) of the predicted boxes (B, A, 5) in grid units [4]."""
        sides = decoded(preds["boxes"].transpose(1, 2), reg_max)
        anchor_error = (grid.centres.to(precision.anchors).double() - grid.centres).abs()
        own = precision.evaluation * boxes.abs() + precision.smallest_score
        return predicted_tolerance(sides, boxes, anchor_error, boxes[..., 4], precision) + own

    def overlap(self, pairs: PossiblePairs) -> tuple[Floats, Floats, Floats]:
        """Returns the overlap of each pair and its interval (each (P,)) [5.2]."""
        spec, box, anchor, precision = oriented_spec(pairs.exact), pairs.box, pairs.anchor, pairs.precision
        sides = decoded(pairs.preds["boxes"].detach()[pairs.image, :, anchor], spec.reg_max)
        angle = pairs.preds["angle"].detach()[pairs.image, 0, anchor].double()
        centres, scale = pairs.grid.centres[anchor], in_pixels(pairs.grid.strides[anchor])
        predicted = decoded_boxes(sides.sides, angle, centres)
        truth, truth_error = torch.from_numpy(pairs.boxes.corners[box]), torch.from_numpy(pairs.boxes.tolerance[box])
        tolerance = predicted_tolerance(sides, predicted, pairs.anchor_error[anchor], truth[:, 4], precision)
        pair = BoxPair(predicted * scale, tolerance * scale, truth, with_angle_rounding(truth_error, precision.core))
        # The assignment computes with the targets' dtype, on predictions that were rounded before.
        roundoffs = Roundoffs(precision.core, precision.core)
        distance = distance_interval(pair, 0.0, spec.probiou_eps, roundoffs)
        found = probiou_interval(distance, spec.probiou_eps, roundoffs, precision.evaluation)
        overlap, low, high = (value.clamp(min=0).numpy() for value in found)
        return overlap, low, high


def oriented_spec(exact: ExactCriterion) -> OrientedSpec:
    """Returns the numbers of the oriented definition."""
    assert isinstance(exact, ExactOriented)
    return exact.spec


def truth_tolerance(boxes: Tensor, shares: Tensor, grid: Grid, roundoff: float) -> Tensor:
    """Returns the tolerance (N, 5) of boxes in pixels computed from shares of the image: 0 for a number that scales without rounding."""
    exact = shares.double() * shares.new_tensor([grid.width, grid.height, grid.width, grid.height, 1], dtype=torch.float64)
    boxes = boxes.double()
    return (TRUTH_ROUNDINGS * roundoff * boxes.abs()).masked_fill(boxes == exact, 0.0)


def with_angle_rounding(tolerance: Tensor, roundoff: float) -> Tensor:
    """Returns tolerances (n, 5) with that of the angle's sine and cosine added to the angle's."""
    return torch.cat([tolerance[:, :4], tolerance[:, 4:] + roundoff], 1)


def border_tolerance(boxes: Tensor, tolerance: Tensor, grid: Grid, shortest_side: float) -> Tensor:
    """Returns the tolerance (M,) in pixels of the distance from an anchor's centre to the sides of boxes (M, 5) [5.1], [9].

    A program that projects on unnormalised edges turns a long side by the rounding of the short one. The tolerance is 0 for an upright
    box of which all numbers are exact, small multiples of :data:`~oracle.tolerance.coordinates.EXACT_QUANTUM`.
    """
    roundoff, boxes = unit_roundoff(boxes.dtype), boxes.double()
    sides = boxes[:, 2:4].clamp(min=shortest_side)
    size = boxes[:, :2].abs().sum(1) + sides.sum(1) + grid.width + grid.height
    error = tolerance[:, :4].sum(1) + BORDER_ROUNDINGS * roundoff * size * (sides.amax(1) / sides.amin(1))
    quanta = boxes[:, :4] / EXACT_QUANTUM
    exact = ((quanta == quanta.floor()) & (boxes[:, :4].abs() < EXACT_LIMIT) & (tolerance[:, :4] == 0)).all(1) & (boxes[:, 4] == 0)
    return error.masked_fill(exact, 0.0)


def predicted_tolerance(sides: Decoded, boxes: Tensor, anchor_error: Tensor, truth_angle: Tensor, precision: Precision) -> Tensor:
    """Returns the tolerance (..., 5) of predicted boxes in grid units [4]; the angle's is that of its sine and cosine, or difference."""
    of_sides, roundoff = side_tolerance(sides, precision), precision.corner
    left, top, right, bottom = sides.sides.abs().unbind(-1)
    of_left, of_top, of_right, of_bottom = of_sides.unbind(-1)
    across, down = (of_left + of_right + roundoff * (left + right)) / 2, (of_top + of_bottom + roundoff * (top + bottom)) / 2
    cosine, sine = boxes[..., 4].cos().abs(), boxes[..., 4].sin().abs()
    turned = torch.stack([cosine * across + sine * down, sine * across + cosine * down], -1)
    arm = ((right - left).abs() + (bottom - top).abs() + left + right + top + bottom)[..., None] / 4
    centre = turned + DECODE_ROUNDINGS * roundoff * arm + CORNER_ROUNDINGS * roundoff * boxes[..., :2].abs() + anchor_error
    size = torch.stack([of_left + of_right, of_top + of_bottom], -1) + CORNER_ROUNDINGS * roundoff * boxes[..., 2:4].abs()
    angle = roundoff + precision.core * (boxes[..., 4] - truth_angle).abs()
    return torch.cat([centre, size, angle[..., None]], -1)


class OrientedTermSteps(TermSteps):
    """Tolerances of the terms of the oriented loss."""

    def held_terms(self, assigned: Assigned, *, roughly: bool = False) -> HeldTerms:
        """Returns box, distribution or distance, and angle terms, and the gradients of box logits and angles."""
        spec, precision, share = oriented_spec(assigned.exact), assigned.precision, (assigned.share, assigned.share_tolerance)
        held, pair, angle = _held(assigned)
        rounding = max(precision.corner, precision.evaluation)
        numbers = torch.cat([held.sides, angle[:, None]], 1)
        overlap, slopes = _box_part(numbers, held, pair, spec, precision)
        turn, turn_slope = _angle_part(angle, pair, spec, precision)
        values = {"box": (1 - overlap.value, torch.maximum(overlap.high - overlap.value, overlap.value - overlap.low))}
        values |= {"dfl": third_term(held, spec, rounding), "angle": turn}
        gains = assigned.scale["box"], assigned.scale["dfl"]
        part = BoxPart(overlap.value, values["box"][1], *(column[:, :4] for column in slopes))
        bounds = boxes_gradient(held, part, *share, gains, spec, precision, assigned.drift)
        of_angle = _angle_gradient([column[:, 4] for column in slopes], turn_slope, assigned)
        return HeldTerms(values, bounds, {"angle": of_angle})


def _held(assigned: Assigned) -> tuple[HeldAnchors, BoxPair, Tensor]:
    """Returns the inputs of the terms at the held anchors, their boxes in grid units, and their angles (H,)."""
    exact, preds, precision, entries = assigned.exact, assigned.preds, assigned.precision, assigned.assignment
    grid, truth, spec = exact.grid(preds), exact.truth(preds, assigned.batch), exact.spec
    logits = preds["boxes"].detach()[entries.image, :, entries.anchor].double()
    angle = preds["angle"].detach()[entries.image, 0, entries.anchor].double()
    sides, centres, strides = decoded(logits, spec.reg_max), grid.centres[entries.anchor], grid.strides[entries.anchor]
    anchor_error = (centres.to(precision.anchors).double() - centres).abs()
    pixels, label = truth.corners[entries.box], truth.label[entries.box]
    boxes, predicted = pixels.double() / in_pixels(strides), decoded_boxes(sides.sides, angle, centres)
    rounding = truth_tolerance(pixels, assigned.batch["bboxes"][entries.box], grid, precision.core) / in_pixels(strides)
    rounding = with_angle_rounding(rounding + precision.core * boxes.abs(), precision.core)
    target = side_distances(boxes, centres)
    arm = rounding[:, :2].sum(1) + precision.core * (boxes[:, :2] - centres).abs().sum(1) + anchor_error.sum(1)
    of_target = rounding[:, [2, 3, 2, 3]] / 2 + EVALUATION_ROUNDINGS * arm[:, None] + 2 * precision.evaluation * target.abs()
    held = HeldAnchors(
        logits=logits,
        sides=sides.sides,
        centres=centres,
        strides=strides,
        corners=boxes,
        corner_tolerance=rounding,
        predicted_tolerance=side_tolerance(sides, precision),
        target=target,
        target_tolerance=of_target,
        score=preds["scores"].detach()[entries.image, label, entries.anchor].double(),
        label=label,
        image_size=torch.tensor([grid.width, grid.height, grid.width, grid.height], dtype=torch.float64),
    )
    tolerance = predicted_tolerance(sides, predicted, anchor_error, boxes[:, 4], precision)
    return held, BoxPair(predicted, tolerance, boxes, rounding), angle


class _OverlapSlopes(NamedTuple):
    """Slopes of the ProbIoU in four distances and the angle (H, 5), as :class:`~oracle.tolerance.held_anchors.BoxPart` has them."""

    lowest: Tensor
    highest: Tensor
    steepest: Tensor
    tolerance: Tensor


def _box_part(
    numbers: Tensor, held: HeldAnchors, pair: BoxPair, spec: OrientedSpec, precision: Precision
) -> tuple[Interval, _OverlapSlopes]:
    """Returns the ProbIoU of each held anchor with its interval, and its slopes: at the clamp anything from 0 to the free one [8]."""
    constants = spec.term_floor, spec.probiou_eps, Roundoffs(precision.core, precision.corner)
    distance = distance_interval(pair, *constants)
    root = slope_in_distance(distance, *constants[1:])
    inner = distance_slopes(numbers, held.centres, pair, *constants)
    free = (distance.value >= spec.probiou_eps) & (distance.value <= LARGEST_DISTANCE)
    clamps = [(distance.low < end) & (end < distance.high) for end in (spec.probiou_eps, LARGEST_DISTANCE)]
    hidden = torch.stack(clamps).any(0)[:, None]
    outer = root.value[:, None] * inner.value
    # The overlap falls as the distance grows.
    own, other = -outer * free[:, None], -outer * ~free[:, None]
    lowest, highest = ((other - own).clamp(**side) * hidden for side in ({"max": 0}, {"min": 0}))
    reached = free[:, None] | hidden
    off = root.high[:, None] * inner.tolerance + (root.high - root.low)[:, None] * inner.value.abs()
    off = off + EVALUATION_ROUNDINGS * max(precision.corner, precision.evaluation) * outer.abs()
    slopes = _OverlapSlopes(lowest, highest, outer.abs() * reached, torch.where(reached, off, 0.0))
    return probiou_interval(distance, spec.probiou_eps, constants[2], precision.evaluation), slopes


def _angle_part(
    angle: Tensor, pair: BoxPair, spec: OrientedSpec, precision: Precision
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Returns the angle term of each held anchor (H,) with its tolerance, and its slope in the angle with its tolerance [7]."""
    weight, turn = angle_weight(pair.truth, spec.angle_scale), angle - pair.truth[:, 4]
    off = ANGLE_ROUNDINGS * precision.core * (angle.abs() + pair.truth[:, 4].abs() + math.pi)
    of_ratio = -weight.log() * spec.angle_scale**2  # the square of the ratio's logarithm
    relative = precision.evaluation * (EVALUATION_ROUNDINGS + 2 * of_ratio.sqrt() * (1 + of_ratio.sqrt()) / spec.angle_scale**2)
    value, slope = weight * (2 * turn).sin() ** 2, 2 * weight * (4 * turn).sin()
    return (value, slope.abs() * off + 4 * weight * off**2 + relative * value), (slope, 8 * weight * off + relative * slope.abs())


def _angle_gradient(box: list[Tensor], turn: tuple[Tensor, Tensor], assigned: Assigned) -> Bounds:
    """Returns bounds on the gradient of the angles (B, 1, A), from the slopes (H,) of the overlap and of the angle term."""
    lowest, highest, steepest, off = (assigned.scale["box"] * column for column in box)
    of_turn, turn_off = (assigned.scale["angle"] * column for column in turn)
    precision, entries, share = assigned.precision, assigned.assignment, assigned.share
    rounding = max(precision.corner, precision.evaluation)
    size = steepest + of_turn.abs()
    relative = assigned.drift + EVALUATION_ROUNDINGS * rounding + OUTPUT_ROUNDINGS * precision.output
    total = share * (off + turn_off + relative * size) + assigned.share_tolerance * size
    total = total + precision.smallest_output * max(1.0, assigned.scale["box"], assigned.scale["angle"])

    def dense(values: Tensor) -> Tensor:
        answer = torch.zeros(assigned.preds["angle"].shape, dtype=torch.float64)
        answer[entries.image, 0, entries.anchor] = values
        return answer

    return Bounds(dense(total), dense(-share * highest), dense(-share * lowest))
