"""Other candidate pairs: borders, lengthened sides, limits (spec section 5.1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from oracle.definition.criterion import Grid, Pairs, Scene
from oracle.definition.formulas import lengthened
from oracle.definition.variant import Step, Variant
from twinloss import LossSpec

UPRIGHT = ("detect", "segment", "pose")
INCLUDED = 1e-300
"""Added to a distance: makes 0 positive, and changes no other."""


def _border(by: float) -> Step:
    """Takes the assigner's epsilon out of the inside test, and another number instead."""

    def step(exact: Any, sound: Any, boxes: Tensor, grid: Grid) -> Tensor:
        return sound(boxes, grid) + exact.spec.assign_eps - by + INCLUDED * (by == 0)  # type: ignore[no-any-return]

    return step


def _windows(change: Any) -> Step:
    return lambda exact, sound, boxes: change(exact.spec, sound, boxes)


def _first_to_first(spec: LossSpec, sound: Any, boxes: Tensor) -> Tensor:
    return lengthened(boxes, spec.strides[0], spec.strides[0])


def _second_to_first(spec: LossSpec, sound: Any, boxes: Tensor) -> Tensor:
    return lengthened(boxes, spec.strides[0], spec.shortest_side)


def _one_axis(axis: int) -> Any:
    def change(spec: LossSpec, sound: Any, boxes: Tensor) -> Tensor:
        long, mask = sound(boxes), torch.tensor([axis == 0, axis == 1] * 2)
        return torch.where(mask, long, boxes)

    return change


def _from_corner(spec: LossSpec, sound: Any, boxes: Tensor) -> Tensor:
    long = sound(boxes)
    return torch.cat([boxes[:, :2], boxes[:, :2] + (long[:, 2:] - long[:, :2])], 1)


def _both_sides(spec: LossSpec, sound: Any, boxes: Tensor) -> Tensor:
    """Lengthens both sides of a box that has one short side."""
    size = boxes[:, 2:] - boxes[:, :2]
    square = lengthened(boxes, spec.shortest_side, 1e9)
    return torch.where((size < spec.lengthened_below).any(1, keepdim=True), torch.where(square.abs() < 1e30, square, boxes), boxes)


def _grown(by: Any) -> Any:
    """Lengthens to another side, as long as ``by`` says of the definition."""
    return lambda spec, sound, boxes: lengthened(boxes, by(spec), by(spec))


def _by_a_pixel_more(spec: LossSpec, sound: Any, boxes: Tensor) -> Tensor:
    return lengthened(boxes, spec.shortest_side + 1, spec.lengthened_below)


def _limited(keep: Any) -> Step:
    """Keeps candidates for which ``keep`` holds, given centres in pixels (A, 2), strides (A,), boxes (M, 4) and the definition."""

    def step(exact: Any, sound: Any, scene: Scene, image: int, rows: Tensor, border: Tensor) -> Tensor:
        grid = scene.grid
        inside = sound(scene, image, rows, border)
        kept = keep(grid.centres * grid.strides[:, None], grid.strides, scene.truth.corners[rows].double(), exact.spec)
        return inside & kept  # type: ignore[no-any-return]

    return step


def _longest(centres: Tensor, strides: Tensor, boxes: Tensor) -> Tensor:
    """Returns the longest of the four distances (M, A) in cells."""
    left_top, right_bottom = centres - boxes[:, None, :2], boxes[:, None, 2:] - centres
    return torch.cat([left_top, right_bottom], 2).amax(2) / strides


def _off_centre(centres: Tensor, strides: Tensor, boxes: Tensor) -> Tensor:
    """Returns the larger of the two distances (M, A) of an anchor from the box's centre, in cells."""
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    return (centres - middle[:, None]).abs().amax(2) / strides


def _within_bins(less: float, *, inclusive: bool) -> Step:
    def keep(centres: Tensor, strides: Tensor, boxes: Tensor, spec: LossSpec) -> Tensor:
        if spec.reg_max == 1:
            return torch.ones(len(boxes), len(centres), dtype=torch.bool)
        longest = _longest(centres, strides, boxes)
        return longest <= spec.reg_max - less if inclusive else longest < spec.reg_max - less

    return _limited(keep)


def best_anywhere(rank: str) -> Step:
    """Gives a box without an anchor of positive metric its best anchor of the image, by overlap, metric, or distance of centres."""

    def step(exact: Any, sound: Any, scene: Scene, image: int, rows: Tensor, candidate: Tensor) -> Pairs:
        pairs: Pairs = sound(scene, image, rows, candidate)
        lone = ~(pairs.metric > 0).any(1)
        if not lone.any():
            return pairs
        overlap, metric = everywhere(exact, pairs)
        centres = scene.grid.centres * scene.grid.strides[:, None]
        boxes = scene.truth.corners[rows].double()
        near = -((boxes[:, :2] + boxes[:, 2:4]) / 2)[:, None].sub(centres).square().sum(2)
        best = {"overlap": overlap, "metric": metric, "centre": near}[rank].argmax(1)
        forced = torch.zeros_like(candidate)
        forced[lone, best[lone]] = True
        return pairs._replace(
            candidate=pairs.candidate | forced,
            overlap=torch.where(forced, overlap, pairs.overlap),
            metric=torch.where(forced, metric, pairs.metric),
            ranked_overlap=torch.where(forced, overlap, pairs.ranked_overlap),
            ranked_metric=torch.where(forced, metric, pairs.ranked_metric),
        )

    return step


def everywhere(exact: Any, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Returns overlap and metric (M, A) of all pairs, candidates or not."""
    overlap = exact.pair_overlap(pairs.scene, pairs.image, pairs.rows, torch.ones_like(pairs.candidate))
    return overlap, exact.metric(pairs.probability, overlap)


def catalogue() -> Iterator[Variant]:
    """Yields every variant of this chapter."""
    yield Variant("borders inclusive", "5.1", steps={"border": _border(0.0)})
    for by in (1e-6, 1e-7, 1e-3, 0.01, 0.5, 1.0):
        yield Variant(f"borders narrower by {by:g} px", "5.1", steps={"border": _border(by)})
        yield Variant(f"borders wider by {by:g} px", "5.1", steps={"border": _border(-by)})
    windows = {
        "sides below the first level's stride lengthened to that": _first_to_first,
        "short sides lengthened to the first level's stride": _second_to_first,
        "the width alone lengthened": _one_axis(0),
        "the height alone lengthened": _one_axis(1),
        "short sides lengthened from the top left corner": _from_corner,
        "both sides of a box with one short side lengthened": _both_sides,
        "sides lengthened to twice the second level's stride": _grown(lambda s: 2 * s.shortest_side),
        "sides lengthened to the last level's stride": _grown(lambda s: s.strides[-1]),
        "sides below the second level's stride and a pixel lengthened to that": _grown(lambda s: s.shortest_side + 1),
        "short sides lengthened by a pixel more": _by_a_pixel_more,
    }
    for name, change in windows.items():
        yield Variant(name, "5.1", steps={"windows": _windows(change)}, tasks=UPRIGHT)
    yield Variant(
        "every anchor of the image a candidate", "5.1", steps={"candidates": lambda e, s, scene, i, r, border: border > -torch.inf}
    )
    for name, step in (
        ("distances of at most R - 1", _within_bins(1.0, inclusive=True)),
        ("distances below R - 1", _within_bins(1.0, inclusive=False)),
        ("distances of at most R - 1.01", _within_bins(1.01, inclusive=True)),
        ("distances below R - 1.01", _within_bins(1.01, inclusive=False)),
        ("distances of at most R", _within_bins(0.0, inclusive=True)),
        ("distances below R", _within_bins(0.0, inclusive=False)),
    ):
        yield Variant(f"candidates limited by reg_max: {name}", "5.1", steps={"candidates": step}, tasks=UPRIGHT)
    for radius in (1.5, 2.5, 3.0, 5.0):
        yield Variant(
            f"candidates within {radius:g} cells of the box's centre alone",
            "5.1",
            steps={"candidates": _limited(lambda c, s, b, _, r=radius: _off_centre(c, s, b) < r)},
            tasks=UPRIGHT,
        )
    for rank in ("overlap", "metric", "centre"):
        yield Variant(f"a box without a pick gets its best anchor anywhere, by {rank}", "5.4", steps={"pairs": best_anywhere(rank)})
