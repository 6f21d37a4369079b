"""Wrong overlaps, metrics, picks, conflicts and soft targets (spec sections 5.2 to 6)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from properties.selfcheck.planted_faults.fault import Fault, Make, Patch
from twinloss.assignment import assign as assignment
from twinloss.backends import torch as loss
from twinloss.geometry import upright
from twinloss.terms import boxes as terms


def overlaps(make: Make) -> tuple[Patch, ...]:
    """Replaces the CIoU in the assignment alone."""
    return (Patch(upright, "ciou", make),)


def every_ciou(make: Make) -> tuple[Patch, ...]:
    """Replaces the CIoU in the assignment and in the box term."""
    return Patch(upright, "ciou", make), Patch(terms, "ciou", make)


def metrics(change: Any) -> tuple[Patch, ...]:
    """Replaces the metric; ``change`` takes class logits (P,), overlaps (P,) and the definition."""

    def make(_: Any) -> Any:
        def alignment_metric(scores: Tensor, truth: Any, box: Tensor, anchor: Tensor, overlap: Tensor, spec: Any) -> Tensor:
            logits = scores[truth.image[box], truth.label[box], anchor].to(overlap.dtype)
            return change(logits, overlap, spec)  # type: ignore[no-any-return]

        return alignment_metric

    return (Patch(assignment, "alignment_metric", make),)


def aligned(change: Any) -> tuple[Patch, ...]:
    """Changes the candidate pairs after their alignment."""

    def make(sound: Any) -> Any:
        def align(overlap: Any, candidates: Any) -> Any:
            scene = overlap.scene
            return change(sound(overlap, candidates), scene.truth, (scene.centres, scene.strides), scene.spec)

        return align

    return (Patch(assignment, "align", make),)


def picks(change: Any) -> tuple[Patch, ...]:
    """Changes the top-k choice; ``change`` takes the sound function and its arguments."""
    return (Patch(assignment, "pick", lambda sound: lambda *given: change(sound, *given)),)


def conflicts(change: Any) -> tuple[Patch, ...]:
    """Changes the resolution of conflicts; ``change`` takes the sound function and its arguments."""
    return (Patch(assignment, "resolve_conflicts", lambda sound: lambda *given: change(sound, *given)),)


def weights(change: Any) -> tuple[Patch, ...]:
    """Changes the soft targets; ``change`` takes metric and overlap (H,), the maxima of their boxes (H,), and ε_a."""

    def make(sound: Any) -> Any:
        def soft_targets(held: Any, truth: Any, spec: Any, num_anchors: int, poison: Tensor) -> Any:
            found = sound(held, truth, spec, num_anchors, poison)
            largest = [values.new_zeros(len(truth)).scatter_reduce(0, held.box, values, "amax") for values in (held.metric, held.overlap)]
            new = change(held.metric, held.overlap, largest[0][held.box], largest[1][held.box], spec.assign_eps)
            order = (truth.image[held.box] * num_anchors + held.anchor).argsort()
            kept = held.metric[order] * largest[1][held.box][order] > 0
            return replace(found, weight=new[order][kept]) if int(kept.sum()) == len(found) else found

        return soft_targets

    return (Patch(assignment, "soft_targets", make),)


def iou(first: Tensor, second: Tensor, eps: float = 1e-7) -> Tensor:
    """Returns the plain IoU of boxes (..., 4)."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = first.unbind(-1), second.unbind(-1)
    width = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp(min=0)
    height = (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp(min=0)
    both = width * height
    return both / ((ax2 - ax1) * (ay2 - ay1 + eps) + (bx2 - bx1) * (by2 - by1 + eps) - both + eps)


def formula(
    *, attached: bool = False, aspect: float = 1.0, diagonal: float = 1.0, unclamped: bool = False, height_eps: bool = True
) -> Make:
    """Returns a replacement of the CIoU with one part changed."""

    def ciou(first: Tensor, second: Tensor, eps: float = 1e-7) -> Tensor:
        (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = first.unbind(-1), second.unbind(-1)
        grown = eps if height_eps else 0.0
        aw, ah, bw, bh = ax2 - ax1, ay2 - ay1 + grown, bx2 - bx1, by2 - by1 + grown
        width = torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)
        height = torch.minimum(ay2, by2) - torch.maximum(ay1, by1)
        both = width * height if unclamped else width.clamp(min=0) * height.clamp(min=0)
        share = both / (aw * ah + bw * bh - both + eps)
        hull = (torch.maximum(ax2, bx2) - torch.minimum(ax1, bx1)).square() + (torch.maximum(ay2, by2) - torch.minimum(ay1, by1)).square()
        distance = ((bx1 + bx2 - ax1 - ax2).square() + (by1 + by2 - ay1 - ay2).square()) / 4
        v = aspect * (4 / math.pi**2) * ((bw / bh).atan() - (aw / ah).atan()).square()
        trade_off = v / (1 - share + v + eps)
        return share - (distance / (hull * diagonal + eps) + (trade_off if attached else trade_off.detach()) * v)

    return lambda _: ciou


def _by_level(sound: Any, pairs: Any, num_boxes: int, topk: int, num_anchors: int, ties: Any) -> Tensor:
    """Picks K anchors of the first three quarters of the image's anchors, and K of the rest."""
    first = pairs.anchor < num_anchors * 3 // 4
    parts = [part.nonzero().flatten() for part in (first, ~first)]
    return torch.cat([part[sound(pairs[part], num_boxes, topk, num_anchors, ties)] for part in parts]).sort().values


def _largest_overlap(sound: Any, pairs: Any, *given: Any) -> Tensor:
    ranked = replace(pairs, metric=pairs.overlap * (pairs.metric > 0))
    return sound(ranked, *given)  # type: ignore[no-any-return]


def _contested_dropped(sound: Any, picked: Any, contest: Any, scores: Any, truth: Any, spec: Any) -> Any:
    key = truth.image[picked.box] * scores.shape[-1] + picked.anchor
    return picked[(torch.bincount(key)[key] == 1).nonzero().flatten()] if len(key) else picked


def _to_first_picker(sound: Any, picked: Any, contest: Any, scores: Any, truth: Any, spec: Any) -> Any:
    key = truth.image[picked.box] * scores.shape[-1] + picked.anchor
    order = key.argsort(stable=True)
    first = torch.ones_like(order, dtype=torch.bool)
    first[1:] = key[order][1:] != key[order][:-1]
    return picked[order[first]]


def _best_metric(sound: Any, picked: Any, contest: Any, scores: Any, truth: Any, spec: Any) -> Any:
    key = truth.image[picked.box] * scores.shape[-1] + picked.anchor
    order = picked.metric.argsort(descending=True, stable=True)
    return _to_first_picker(sound, picked[order], contest, scores, truth, spec) if len(key) else picked


def _last_of_equals(self: Any, key: Tensor, pairs: Any) -> None:
    before = self.overlap[key]
    self.overlap.scatter_reduce_(0, key, pairs.overlap, "amax")
    leads = ((pairs.overlap >= self.overlap[key]) & (pairs.overlap > 0) & (pairs.overlap >= before)).nonzero().flatten()
    self.box[key[leads]] = -1
    self.box.scatter_reduce_(0, key[leads], pairs.box[leads], "amax")


def _among_pickers(sound: Any) -> Any:
    def assign(*given: Any, **options: Any) -> Any:
        return sound(*given, **options | {"conflicts": "pickers"})

    return assign


def _first_class(sound: Any) -> Any:
    return lambda scores, truth, *given: sound(scores, replace(truth, label=truth.label * 0), *given)


_OVERLAP = "o_ij = max(CIoU(gt_j, pred_i), 0) for candidate pairs."
_METRIC = "m_ij = p_i[class_j]^α · o_ij^β."
_TOPK = "Each box picks the K anchors of largest m_ij over the whole row of A anchors."
_CONFLICT = "A contested anchor goes to the box of its image with the largest overlap, over all boxes that it is a candidate of."
_WEIGHT = "t_i = m_ij · O_j / (M_j + ε_a)."


def _at_most(sound: Any, picked: Any, contest: Any, scores: Any, truth: Any, spec: Any) -> Any:
    """Gives an anchor that four or more boxes picked to the first of them."""
    key = truth.image[picked.box] * scores.shape[-1] + picked.anchor
    if not len(key):
        return picked
    crowded = torch.bincount(key)[key] >= 4
    rest, many = picked[(~crowded).nonzero().flatten()], picked[crowded.nonzero().flatten()]
    given_to_first = _to_first_picker(sound, many, contest, scores, truth, spec)
    found = sound(rest, contest, scores, truth, spec)
    return type(picked).joined([found, given_to_first], truth)


def _maxima_of_picks(sound: Any) -> Any:
    """Takes the largest metric and overlap over all picks of a box, also over those that it lost to another box."""
    module: Any = assignment

    def assign(*given: Any, **options: Any) -> Any:
        kept: dict[str, Any] = {}
        resolve, soft = module.resolve_conflicts, module.soft_targets

        def resolve_conflicts(picked: Any, contest: Any, scores: Any, truth: Any, spec: Any) -> Any:
            kept["picks"] = picked
            return resolve(picked, contest, scores, truth, spec)

        def soft_targets(held: Any, truth: Any, spec: Any, num_anchors: int, poison: Any) -> Any:
            lost = kept["picks"]
            least = torch.zeros_like(lost.overlap)
            whole = [torch.cat([getattr(held, name), getattr(lost, name)]) for name in ("box", "metric", "overlap")]
            largest = [values.new_zeros(len(truth)).scatter_reduce(0, whole[0], values, "amax") for values in whole[1:]]
            found = soft(held, truth, spec, num_anchors, poison + least.sum())
            row = torch.empty(int(truth.row.max()) + 1 if len(truth) else 0, dtype=torch.int64)
            row[truth.row] = torch.arange(len(truth))
            own = [
                values.new_zeros(len(truth)).scatter_reduce(0, held.box, getattr(held, name), "amax")
                for name, values in (("metric", held.metric), ("overlap", held.overlap))
            ]
            box = row[found.box]
            factor = (largest[1] / own[1])[box] * ((own[0] + spec.assign_eps) / (largest[0] + spec.assign_eps))[box]
            return replace(found, weight=found.weight * factor)

        module.resolve_conflicts, module.soft_targets = resolve_conflicts, soft_targets
        try:
            return sound(*given, **options)
        finally:
            module.resolve_conflicts, module.soft_targets = resolve, soft

    return assign


ENTRIES = (
    Fault("IoU for CIoU in the assignment", _OVERLAP, "5.2", patches=overlaps(lambda _: iou)),
    Fault("overlap of at least 1e-3", _OVERLAP, "5.2", patches=overlaps(lambda sound: lambda *given: sound(*given).clamp(min=1e-3))),
    Fault("overlap too large by 1e-4", _OVERLAP, "5.2", patches=overlaps(lambda sound: lambda *given: sound(*given) * (1 + 1e-4))),
    Fault("CIoU without ε_c in the heights", "h = y2 − y1 + ε_c.", "6", patches=every_ciou(formula(height_eps=False))),
    Fault("aspect of 1.01 v", "v = (4/π²)(atan(w_b/h_b) − atan(w_a/h_a))².", "6", patches=every_ciou(formula(aspect=1.01))),
    Fault("enclosing diagonal 1 % longer", "c² = c_w² + c_h² + ε_c.", "6", patches=every_ciou(formula(diagonal=1.02))),
    Fault("intersection not clamped", "The intersection I has each side clamped at 0.", "6", patches=every_ciou(formula(unclamped=True))),
    Fault(
        "metric of class 0 for all boxes",
        _METRIC,
        "5.3",
        patches=(Patch(assignment, "alignment_metric", _first_class),),
    ),
    Fault(
        "metric without the probability's power",
        _METRIC,
        "5.3",
        patches=metrics(lambda logits, overlap, spec: logits.sigmoid() * overlap.pow(spec.beta)),
    ),
    Fault(
        "probability of at least 1e-6",
        _METRIC,
        "5.3",
        patches=metrics(lambda logits, overlap, spec: logits.sigmoid().clamp(min=1e-6).pow(spec.alpha) * overlap.pow(spec.beta)),
    ),
    Fault(
        "probability in float16",
        "p = sigmoid(scores); the twin computes it in float32.",
        "8a",
        patches=metrics(lambda logits, o, spec: logits.sigmoid().half().to(o.dtype).pow(spec.alpha) * o.pow(spec.beta)),
    ),
    Fault(
        "metric of the coarsest level halved",
        _METRIC,
        "5.3",
        patches=aligned(
            lambda pairs, truth, anchors, spec: replace(
                pairs, metric=torch.where(anchors[1][pairs.anchor] == anchors[1].max(), pairs.metric / 2, pairs.metric)
            )
        ),
    ),
    Fault("K anchors of each part of the pyramid", _TOPK, "5.4", patches=picks(_by_level)),
    Fault("picks by overlap", _TOPK, "5.4", patches=picks(_largest_overlap)),
    Fault("contested anchors among pickers", _CONFLICT, "5.5", patches=(Patch(loss, "assign", _among_pickers),)),
    Fault("contested anchors dropped", _CONFLICT, "5.5", patches=conflicts(_contested_dropped)),
    Fault("contested anchors to the first picker", _CONFLICT, "5.5", patches=conflicts(_to_first_picker)),
    Fault("contested anchors to the best metric", _CONFLICT, "5.5", patches=conflicts(_best_metric)),
    Fault(
        "last of equal overlaps",
        "Among equal overlaps the box of the lowest index gets the anchor.",
        "5.5",
        patches=(Patch(assignment.Contest, "enter", lambda _: _last_of_equals),),
    ),
    Fault(
        "conflicts of more than three boxes cut short",
        "A contested anchor goes to the box of its image with the largest overlap.",
        "5.5",
        patches=conflicts(_at_most),
    ),
    Fault("weight without O", _WEIGHT, "5.7", patches=weights(lambda m, o, largest_m, largest_o, eps: m / (largest_m + eps))),
    Fault("weight of its own overlap", _WEIGHT, "5.7", patches=weights(lambda m, o, largest_m, largest_o, eps: m * o / (largest_m + eps))),
    Fault(
        "weight without ε_a",
        _WEIGHT,
        "5.7",
        patches=weights(lambda m, o, largest_m, largest_o, eps: m * largest_o / largest_m.clamp(min=1e-300)),
    ),
    Fault(
        "weight too large by 1e-4",
        _WEIGHT,
        "5.7",
        patches=weights(lambda m, o, largest_m, largest_o, eps: m * largest_o / (largest_m + eps) * (1 + 1e-4)),
    ),
    Fault("weight of the overlap alone", _WEIGHT, "5.7", patches=weights(lambda m, o, largest_m, largest_o, eps: o)),
    Fault(
        "maxima over all candidates",
        "For each box j, over the anchors it holds in the end: M_j, O_j.",
        "5.7",
        patches=(Patch(loss, "assign", _maxima_of_picks),),
    ),
)
