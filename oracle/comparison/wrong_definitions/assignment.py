"""Other metrics, picks, conflicts and soft targets (spec sections 5.3 to 5.7)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from oracle.comparison.wrong_definitions.candidates import everywhere
from oracle.definition.assignment_trace import UNASSIGNED
from oracle.definition.criterion import Pairs
from oracle.definition.variant import Step, Variant


def _metric(change: Any) -> Step:
    """Replaces the metric; ``change`` takes probability and overlap (M, A), α and β."""
    return lambda exact, sound, probability, overlap: change(probability, overlap, exact.spec.alpha, exact.spec.beta)


def _first_class(exact: Any, sound: Any, scene: Any, image: int, rows: Tensor, candidate: Tensor) -> Pairs:
    """Reads the probability of class 0 for every box."""
    probability = scene.probability.clone()
    probability[:] = probability[..., :1]
    return sound(scene._replace(probability=probability), image, rows, candidate)  # type: ignore[no-any-return]


def _best_class(exact: Any, sound: Any, scene: Any, image: int, rows: Tensor, candidate: Tensor) -> Pairs:
    probability = scene.probability.amax(-1, keepdim=True).expand_as(scene.probability)
    return sound(scene._replace(probability=probability), image, rows, candidate)  # type: ignore[no-any-return]


def _above(threshold: float) -> Step:
    """Picks pairs whose metric is above a threshold alone."""
    return lambda exact, sound, pairs: sound(pairs) & (pairs.metric > threshold)


def _ranked(rank: Any) -> Step:
    """Picks by other numbers; ``rank`` takes the pairs."""

    def step(exact: Any, sound: Any, pairs: Pairs) -> Tensor:
        return sound(pairs._replace(ranked_metric=torch.where(pairs.metric > 0, rank(pairs), 0.0)))  # type: ignore[no-any-return]

    return step


def _nearness(pairs: Pairs) -> Tensor:
    grid, boxes = pairs.scene.grid, pairs.scene.truth.corners[pairs.rows].double()
    centres = grid.centres * grid.strides[:, None]
    return 1 / (1 + ((boxes[:, :2] + boxes[:, 2:4]) / 2)[:, None].sub(centres).square().sum(2))


def _by_level(exact: Any, sound: Any, pairs: Pairs) -> Tensor:
    """Picks K anchors of every level."""
    strides = pairs.scene.grid.strides
    levels = [sound(pairs._replace(ranked_metric=pairs.ranked_metric * (strides == s))) & (strides == s) for s in strides.unique()]
    return torch.stack(levels).any(0)


def _dynamic(exact: Any, sound: Any, pairs: Pairs) -> Tensor:
    """Picks as many anchors as the K largest overlaps sum up to, at least one."""
    picked = sound(pairs)
    most = pairs.overlap.topk(min(exact.spec.topk, pairs.overlap.shape[1]), 1).values.sum(1).int().clamp(min=1)
    place = torch.where(picked, pairs.ranked_metric, -1.0).argsort(1, descending=True).argsort(1)
    return picked & (place < most[:, None])  # type: ignore[no-any-return]


def _winners(rank: Any) -> Step:
    """Settles conflicts by other numbers; ``rank`` takes criterion, pairs and picks, and returns (M, A)."""

    def step(exact: Any, sound: Any, pairs: Pairs, picked: Tensor) -> Tensor:
        if len(picked) == 0:
            return sound(pairs, picked)  # type: ignore[no-any-return]
        pickers = picked.sum(0)
        holder = torch.where(pickers > 1, rank(exact, pairs, picked).argmax(0), picked.int().argmax(0))
        return holder.where(pickers > 0, UNASSIGNED)

    return step


def _among(picked: Tensor, rank: Tensor) -> Tensor:
    return rank.where(picked, -torch.inf)


def _order(pairs: Pairs, sign: int) -> Tensor:
    return (sign * torch.arange(len(pairs.rows)).double())[:, None].expand_as(pairs.metric)


def _small(pairs: Pairs) -> Tensor:
    boxes = pairs.scene.truth.corners[pairs.rows].double()
    return -((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))[:, None].expand_as(pairs.metric)


CONFLICTS: dict[str, Any] = {
    "go to the largest overlap among pickers": lambda exact, pairs, picked: _among(picked, pairs.ranked_overlap),
    "go to the best metric among pickers": lambda exact, pairs, picked: _among(picked, pairs.ranked_metric),
    "go to the best metric of all candidates": lambda exact, pairs, picked: pairs.ranked_metric,
    "go to the largest overlap of all boxes, also those that the anchor is no candidate of": lambda exact, pairs, picked: everywhere(
        exact, pairs
    )[0],
    "go to the best metric of all boxes, also those that the anchor is no candidate of": lambda exact, pairs, picked: everywhere(
        exact, pairs
    )[1],
    "go to the first picker": lambda exact, pairs, picked: _among(picked, _order(pairs, -1)),
    "go to the last picker": lambda exact, pairs, picked: _among(picked, _order(pairs, 1)),
    "go to the smallest box that picked the anchor": lambda exact, pairs, picked: _among(picked, _small(pairs)),
    "go to the picker with the nearest centre": lambda exact, pairs, picked: _among(picked, _nearness(pairs)),
    "go to the first candidate": lambda exact, pairs, picked: _among(pairs.candidate, _order(pairs, -1)),
    **{
        f"go to the largest overlap of the candidates with a metric above {least:g}": lambda exact, pairs, picked, n=least: (
            pairs.ranked_overlap.where(pairs.metric > n, -1.0)
        )
        for least in (1e-9, 1e-6)
    },
    "go to the last of equal overlaps": lambda exact, pairs, picked: _last_of_equals(pairs.ranked_overlap),
}


def _last_of_equals(overlap: Tensor) -> Tensor:
    leads = (overlap == overlap.amax(0)) & (overlap > 0)
    return leads * torch.arange(1, len(overlap) + 1)[:, None]


def _dropped(exact: Any, sound: Any, pairs: Pairs, picked: Tensor) -> Tensor:
    return sound(pairs, picked & (picked.sum(0) == 1))  # type: ignore[no-any-return]


def _shared_largest(exact: Any, sound: Any, pairs: Pairs, picked: Tensor) -> Tensor:
    """Gives every anchor that is picked, contested or not, to the largest overlap of all candidates."""
    holder = sound(pairs, picked)
    return torch.where(holder == UNASSIGNED, holder, pairs.ranked_overlap.argmax(0)) if len(picked) else holder


def _weights(change: Any) -> Step:
    """Changes the soft targets; ``change`` takes metric and overlap of the held, their largest of the box, and ε_a."""

    def step(exact: Any, sound: Any, pairs: Pairs, holder: Tensor) -> Tensor:
        weight = torch.zeros_like(sound(pairs, holder))
        for j in range(len(pairs.metric)):
            held = holder == j
            if held.any():
                m, o = pairs.metric[j, held], pairs.overlap[j, held]
                weight[held] = torch.where(m > 0, change(m, o, m.max(), o.max(), exact.spec.assign_eps), 0.0)
        return weight

    return step


def _maxima(over: str, which: str) -> Step:
    """Takes the largest metric, overlap or both of a box over more anchors than it holds in the end: all its picks, or candidates."""

    def step(exact: Any, sound: Any, pairs: Pairs, holder: Tensor) -> Tensor:
        mask = exact.picks(pairs) if over == "picks" else pairs.candidate
        weight = torch.zeros_like(sound(pairs, holder))
        for j in range(len(pairs.metric)):
            held = holder == j
            if held.any():
                more = mask[j] | held
                most_m = pairs.metric[j, more if which != "overlap" else held].max()
                most_o = pairs.overlap[j, more if which != "metric" else held].max()
                weight[held] = pairs.metric[j, held] * most_o / (most_m + exact.spec.assign_eps)
        return weight

    return step


def _largest_anywhere(exact: Any, sound: Any, pairs: Pairs, holder: Tensor) -> Tensor:
    """Takes O over all anchors, candidates or not."""
    overlap = everywhere(exact, pairs)[0]
    weight = torch.zeros_like(sound(pairs, holder))
    for j in range(len(pairs.metric)):
        held = holder == j
        if held.any():
            weight[held] = pairs.metric[j, held] * overlap[j].max() / (pairs.metric[j, held].max() + exact.spec.assign_eps)
    return weight


SOFT_TARGETS: dict[str, Any] = {
    "m / (M + ε_a), without O": lambda m, o, most_m, most_o, eps: m / (most_m + eps),
    "m · o / (M + ε_a), with the anchor's own overlap": lambda m, o, most_m, most_o, eps: m * o / (most_m + eps),
    "m · O / M, without ε_a": lambda m, o, most_m, most_o, eps: m * most_o / most_m,
    "o, the overlap alone": lambda m, o, most_m, most_o, eps: o,
    "o / O": lambda m, o, most_m, most_o, eps: o / (most_o + eps),
    "m, the metric alone": lambda m, o, most_m, most_o, eps: m,
    "m · O": lambda m, o, most_m, most_o, eps: m * most_o,
    "O": lambda m, o, most_m, most_o, eps: most_o.expand_as(m),
    "1": lambda m, o, most_m, most_o, eps: torch.ones_like(m),
    "m · O / (Σm + ε_a)": lambda m, o, most_m, most_o, eps: m * most_o / (m.sum() + eps),
    "m · mean o / (M + ε_a)": lambda m, o, most_m, most_o, eps: m * o.mean() / (most_m + eps),
    "√(m · O / (M + ε_a))": lambda m, o, most_m, most_o, eps: (m * most_o / (most_m + eps)).sqrt(),
    "m · O / (M + ε_a) with ε_a = 1e-7 there alone": lambda m, o, most_m, most_o, eps: m * most_o / (most_m + 1e-7),
    "m · O / (M + ε_a) with ε_a = 1e-8 there alone": lambda m, o, most_m, most_o, eps: m * most_o / (most_m + 1e-8),
    "m · O / (M + ε_a) with ε_a = 1e-6 there alone": lambda m, o, most_m, most_o, eps: m * most_o / (most_m + 1e-6),
    "m · O / max(M, ε_a)": lambda m, o, most_m, most_o, eps: m * most_o / most_m.clamp(min=eps),
    "(m + ε_a) · O / (M + ε_a)": lambda m, o, most_m, most_o, eps: (m + eps) * most_o / (most_m + eps),
    "m · O / (M + ε_a), at least 0.1": lambda m, o, most_m, most_o, eps: (m * most_o / (most_m + eps)).clamp(min=0.1),
}


def metric_of_a_level(which: str, factor: float) -> Step:
    """Changes the metric of the anchors of the finest or of the coarsest level."""

    def pairs(exact: Any, sound: Any, scene: Any, *given: Any) -> Pairs:
        found, strides = sound(scene, *given), scene.grid.strides
        there = torch.where(strides == (strides.max() if which == "coarsest" else strides.min()), factor, 1.0)
        return found._replace(metric=found.metric * there, ranked_metric=found.ranked_metric * there)  # type: ignore[no-any-return]

    return pairs


def _rounded_probability(dtype: torch.dtype) -> Step:
    """Rounds the probabilities that the metric reads."""
    return lambda exact, sound, probability, overlap: sound(probability.to(dtype).to(probability.dtype), overlap)


def _second_cut_by_overlap(exact: Any, sound: Any, pairs: Pairs, picked: Tensor) -> Tensor:
    """Keeps the topk2 anchors of largest overlap; the cut by the metric then finds no more than these."""
    holder, topk2 = sound(pairs, picked), exact.spec.topk2
    if topk2 is None or topk2 == exact.spec.topk:
        return holder  # type: ignore[no-any-return]
    kept = torch.full_like(holder, UNASSIGNED)
    for j, overlap in enumerate(pairs.ranked_overlap):
        held = holder == j
        first = exact._largest(overlap.where(held, 0.0), topk2)
        kept[first[held[first]]] = j
    return kept


def _limited(change: Any) -> Step:
    """Changes the finished soft targets (A,)."""
    return lambda exact, sound, pairs, holder: change(sound(pairs, holder))


def catalogue() -> Iterator[Variant]:
    """Yields every variant of this chapter."""
    metrics: dict[str, Any] = {
        "p · o^β, without the probability's power": lambda p, o, a, b: p * o**b,
        "p^α · o, without the overlap's power": lambda p, o, a, b: p**a * o,
        "the overlap alone": lambda p, o, a, b: o,
        "the probability alone": lambda p, o, a, b: torch.where(o > 0, p**a, 0.0),
        "p^α · o^β, √ of it": lambda p, o, a, b: (p**a * o**b).sqrt(),
        "p^α · o^β + 1e-9": lambda p, o, a, b: p**a * o**b + 1e-9,
        "p at least 1e-6": lambda p, o, a, b: p.clamp(min=1e-6) ** a * o**b,
        "p at least 1e-9": lambda p, o, a, b: p.clamp(min=1e-9) ** a * o**b,
    }
    for name, change in metrics.items():
        yield Variant(f"metric: {name}", "5.3", steps={"metric": _metric(change)})
    yield Variant("metric: p of class 0 for every box", "5.3", steps={"pairs": _first_class})
    yield Variant("metric: p of the anchor's best class", "5.3", steps={"pairs": _best_class})
    for level in ("finest", "coarsest"):
        for words, factor in (("halved", 0.5), ("doubled", 2.0)):
            yield Variant(f"metric of the {level} level {words}", "5.3", steps={"pairs": metric_of_a_level(level, factor)})
    for dtype in (torch.float16, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        yield Variant(f"metric: p rounded to {name}", "5.3", steps={"metric": _rounded_probability(dtype)})
    for threshold in (1e-9, 1e-8, 1e-7, 1e-6, 1e-4, 1e-3, 0.01):
        yield Variant(f"picks above a metric of {threshold:g} alone", "5.4", steps={"picks": _above(threshold)})
    for name, rank in (
        ("overlap", lambda pairs: pairs.overlap),
        ("probability", lambda pairs: pairs.probability),
        ("nearness to the box's centre", _nearness),
    ):
        yield Variant(f"picks by {name}", "5.4", steps={"picks": _ranked(rank)})
    yield Variant("K picks on each level", "5.4", steps={"picks": _by_level})
    yield Variant("as many picks as the K largest overlaps sum up to", "5.4", steps={"picks": _dynamic})
    for name, rank in CONFLICTS.items():
        yield Variant(f"conflicts {name}", "5.5", steps={"winners": _winners(rank)})
    yield Variant("contested anchors dropped", "5.5", steps={"winners": _dropped})
    yield Variant("picked anchors go to the largest overlap, contested or not", "5.5", steps={"winners": _shared_largest})
    for name, change in SOFT_TARGETS.items():
        yield Variant(f"soft target {name}", "5.7", steps={"soft_targets": _weights(change)})
    for least in (1e-2, 1e-3, 1e-4, 1e-6):
        lost = _limited(lambda weight, n=least: torch.where(weight < n, 0.0, weight))
        yield Variant(f"soft targets below {least:g} lost", "5.7", steps={"soft_targets": lost})
    yield Variant("the second cut by overlap", "5.6", steps={"winners": _second_cut_by_overlap})
    yield Variant(
        "a second cut above K left out", "5.6", numbers=lambda s: {"topk2": s.topk2 if s.topk2 is not None and s.topk2 < s.topk else None}
    )
    for over in ("picks", "candidates"):
        for which, symbol in (("both", "M and O"), ("metric", "M"), ("overlap", "O")):
            yield Variant(f"{symbol} over all {over} of the box", "5.7", steps={"soft_targets": _maxima(over, which)})
    yield Variant("O over all anchors of the image", "5.7", steps={"soft_targets": _largest_anywhere})
