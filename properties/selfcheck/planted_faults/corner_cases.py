"""Faults that show only on one level, in one dtype, with one number of boxes, or in a small part of the inputs."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from properties.selfcheck.planted_faults.assignment import aligned, conflicts, picks, weights
from properties.selfcheck.planted_faults.fault import Fault, Patch
from properties.selfcheck.planted_faults.geometry import centres, labels, rows
from properties.selfcheck.planted_faults.terms import factor, gradient, term
from twinloss.assignment import assign as assignment
from twinloss.backends import torch as loss


def held(change: Callable[[Any, Any], Any]) -> tuple[Patch, ...]:
    """Changes the assignment that the terms are computed on; ``change`` takes the evaluation and the assignment."""
    return (Patch(loss.TorchEvaluation, "loss", lambda sound: lambda self, given: sound(self, change(self, given))),)


def _only(assignment: Any, kept: Tensor) -> Any:
    return replace(assignment, **{name: getattr(assignment, name)[kept] for name in ("image", "anchor", "box", "weight")})


def _first_of_copies(truth: Any, _: Any) -> Tensor:
    """Returns a mask of the rows that equal no earlier row of their image, class included."""
    whole = torch.cat([truth.image[:, None].double(), truth.label[:, None].double(), truth.boxes.double()], 1)
    same = (whole[:, None] == whole).all(2).tril(-1)
    return ~same.any(1)


def _one_less_of_many(sound: Any, pairs: Any, num_boxes: int, topk: int, num_anchors: int, ties: Any) -> Tensor:
    return sound(pairs, num_boxes, topk - (num_anchors >= 64 * topk), num_anchors, ties)  # type: ignore[no-any-return]


def _cut_by_overlap(sound: Any, pairs: Any, num_boxes: int, topk: int, num_anchors: int, ties: Any) -> Tensor:
    """Ranks by overlap if each anchor occurs once, as after the conflicts."""
    second = len(pairs.anchor) and len(torch.unique(pairs.anchor)) == len(pairs.anchor)
    ranked = replace(pairs, metric=pairs.overlap * (pairs.metric > 0)) if second and topk < 5 else pairs
    return sound(ranked, num_boxes, topk, num_anchors, ties)  # type: ignore[no-any-return]


def _with_metric_alone(sound: Any) -> Any:
    def enter(self: Any, key: Tensor, pairs: Any) -> None:
        kept = (pairs.metric > 1e-6).nonzero().flatten()
        sound(self, key[kept], pairs[kept])

    return enter


def _lost_below(limit: float) -> tuple[Patch, ...]:
    return held(lambda evaluation, given: _only(given, given.weight >= limit))


def _far(sound: Any, distances: Tensor, *given: Any) -> Any:
    return sound(distances.clamp(max=15), *given)


def _autocast_stays(_: Any) -> Any:
    @contextlib.contextmanager
    def evaluate(call: Any) -> Iterator[Any]:
        yield loss.TorchEvaluation(call)

    return evaluate


def _level(stride: int, anchors: Tensor, strides: Tensor) -> Tensor:
    return torch.where((strides == stride)[:, None], anchors + 0.01, anchors)


_LARGEST = "Each box picks the K anchors of largest m_ij over the whole row of A anchors."
_TARGET = "A held anchor's target score is t_i, placed at class_j."
_DTYPE = "Logits may be float16, bfloat16, float32 or float64; arithmetic is float32 (float64 for float64 logits)."
_MOST = -math.log(1e-9)
_CLASSIFICATION = "Σ over all B·A·C of BCE-with-logits(scores, target) / S."


def _millionth_less(found: Any, truth: Any) -> Any:
    """Reduces the metric by a millionth where a box holds several anchors."""
    many = torch.bincount(found.box, minlength=len(truth))[found.box] > 1
    return replace(found, metric=torch.where(many, found.metric * (1 - 1e-6), found.metric)) if len(found.box) else found


def _first_eight(pairs: Any, truth: Any, anchors: int) -> Tensor:
    key = truth.image[pairs.box] * anchors + pairs.anchor
    order = key.argsort(stable=True)
    counts = torch.bincount(key)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(key)) - (counts.cumsum(0) - counts)[key[order]]
    return (place < 8).nonzero().flatten()


def _lonely_detached(columns: Tensor, image: Tensor) -> Tensor:
    if not len(image):
        return columns
    lonely = torch.bincount(image)[image] == 1
    return torch.where(lonely[:, None], columns.detach(), columns)


ENTRIES = (
    *(
        Fault(
            f"anchors of stride {stride} off by 0.01 cells",
            "There is one anchor per cell, at the cell's centre.",
            "2",
            patches=centres(lambda c, s, _, stride=stride: (_level(stride, c, s), s)),
        )
        for stride in (4, 8, 32, 64)
    ),
    Fault("classes beyond 127 wrap around", _TARGET, "5.7", patches=labels(lambda label, _: torch.where(label > 127, label - 128, label))),
    Fault(
        "boxes beyond the 256th ignored",
        "The reference pads every image to the largest N_b.",
        "3",
        patches=rows(lambda truth, _: torch.arange(len(truth)) - torch.searchsorted(truth.image, truth.image) < 256),
    ),
    Fault("copies of a box dropped", "Boxes keep the order in which they arrive.", "3", patches=rows(_first_of_copies)),
    Fault(
        "a single box ignored",
        "The loss is that of all N boxes.",
        "1",
        patches=rows(lambda truth, _: slice(0, 0) if len(truth) == 1 else slice(None)),
    ),
    Fault("one candidate less where A ≥ 64·K", _LARGEST, "5.4", patches=picks(_one_less_of_many)),
    Fault(
        "second cut by overlap",
        "Of what each box still holds, only its topk2 anchors of largest m_ij remain.",
        "5.6",
        patches=picks(_cut_by_overlap),
    ),
    Fault(
        "conflicts among metrics above 1e-6 alone",
        "A contested anchor goes to the largest overlap, over all boxes of the image that it is a candidate of.",
        "5.5",
        patches=(Patch(assignment.Contest, "enter", _with_metric_alone),),
    ),
    Fault(
        "metric a millionth less where a box holds several",
        "m_ij = p_i[class_j]^α · o_ij^β.",
        "5.3",
        patches=conflicts(lambda sound, *given: _millionth_less(sound(*given), given[3])),
    ),
    Fault(
        "overlaps beyond the 8th candidate of an anchor ignored",
        "A contested anchor goes to the largest overlap, over all boxes of the image that it is a candidate of.",
        "5.5",
        patches=aligned(lambda pairs, truth, anchors, spec: pairs[_first_eight(pairs, truth, len(anchors[1]))]),
    ),
    Fault("weights below 1e-4 lost", "t_i = m_ij · O_j / (M_j + ε_a).", "5.7", patches=_lost_below(1e-4)),
    Fault(
        "weight at most 0.9",
        "t_i = m_ij · O_j / (M_j + ε_a).",
        "5.7",
        patches=weights(lambda m, o, largest_m, largest_o, eps: (m * largest_o / (largest_m + eps)).clamp(max=0.9)),
    ),
    Fault(
        "softplus linear beyond 16",
        _CLASSIFICATION,
        "7",
        patches=term("classification_term", lambda sound, s, *given: sound(torch.where(s < -16, s - 80, s), *given)),
    ),
    Fault(
        "probabilities of bins at least 1e-9",
        "A side's term is −log softmax at the lower bin, plus that at the upper bin.",
        "7",
        patches=term(
            "distributions",
            lambda sound, logits, target: (found := sound(logits, target)) and (found[0], found[1].clamp(max=_MOST)),
        ),
    ),
    Fault(
        "distances beyond 15 cells cut where R = 1",
        "With R = 1 the predictions are the distances themselves, and the target is not clamped.",
        "7",
        patches=term("distance_term", _far),
    ),
    Fault(
        "last image empty, one image less",
        "The three terms, each times its gain and times B.",
        "7",
        patches=factor(
            lambda e, w: (
                (len(e.call.boxes) - 1) / len(e.call.boxes) if len(e.truth) and int(e.truth.image.max()) < len(e.call.boxes) - 1 else 1.0
            )
        ),
    ),
    Fault(
        "second cut above K taken for K",
        "The second cut applies only when topk2 differs from topk.",
        "5.6",
        patches=picks(lambda sound, pairs, n, topk, a, ties: sound(pairs, n, min(topk, 10), a, ties)),
    ),
    Fault(
        "autocast left on", "Arithmetic is float32 inside autocast and outside.", "8a", patches=(Patch(loss, "evaluate", _autocast_stays),)
    ),
    *(
        Fault(
            f"gradient of {name} halved in {dtype}".replace("torch.", ""),
            _DTYPE,
            "8a",
            patches=gradient(name, lambda g, dtype=dtype: g / 2 if g.dtype == dtype else g),
        )
        for name, dtype in (("boxes", torch.bfloat16), ("scores", torch.float16), ("boxes", torch.float32))
    ),
    Fault(
        "gradient of scores lost where |x| > 40",
        "Gradients flow through scores.",
        "8",
        patches=term("classification_term", lambda sound, s, *given: sound(torch.where(s.abs() > 40, s.detach(), s), *given)),
    ),
    Fault(
        "gradient of boxes lost in images without another box",
        "Gradients flow through boxes.",
        "8",
        patches=term("held_columns", lambda sound, logits, image, anchor: _lonely_detached(sound(logits, image, anchor), image)),
    ),
)
