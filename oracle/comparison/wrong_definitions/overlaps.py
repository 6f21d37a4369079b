"""Other overlaps, in the assigner, in the box term, or in both (spec sections 5.2 and 6)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from oracle.definition.variant import Step, Variant

UPRIGHT = ("detect", "segment", "pose")


@dataclass(frozen=True)
class Formula:
    """The overlap of two boxes with some of its parts otherwise; as it stands it is the CIoU of the definition.

    Attributes:
        distance: weight of ρ² / c².
        diagonal: factor of c², before ε_c is added.
        enclosing: weight of the share of the enclosing box that the union leaves empty, as in the GIoU.
        aspect: factor of v; 0 leaves α_c v out.
        attached: whether α_c is differentiated.
        height_eps, width_eps: whether ε_c is added to the heights, and to the widths.
        unclamped: whether the sides of the intersection may be negative.
        trade_off: α_c of v, 1 - IoU and ε_c.
        separate: of the SIoU-like losses, whether ρ² is taken by axis over the enclosing sides, as in the EIoU.
    """

    distance: float = 1.0
    diagonal: float = 1.0
    enclosing: float = 0.0
    aspect: float = 1.0
    attached: bool = False
    height_eps: bool = True
    width_eps: bool = False
    unclamped: bool = False
    trade_off: Callable[[Tensor, Tensor, float], Tensor] = lambda v, far, eps: v / (far + v + eps)
    separate: bool = False

    def __call__(self, a: Tensor, b: Tensor, eps: float) -> Tensor:
        """Returns the overlap (n,) of boxes (n, 4)."""
        aw, ah, bw, bh = self._sizes(a, b, eps)
        inner = torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])
        both = inner.prod(1) if self.unclamped else inner.clamp(min=0).prod(1)
        union = aw * ah + bw * bh - both + eps
        iou = both / union
        hull = torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])
        value = iou
        if self.distance:
            apart = ((b[:, :2] + b[:, 2:] - a[:, :2] - a[:, 2:]) ** 2) / 4
            value = value - self.distance * (apart.sum(1) / (hull.square().sum(1) * self.diagonal + eps))
            if self.separate:
                sizes = torch.stack([(aw - bw) ** 2, (ah - bh) ** 2], 1)
                value = value - (sizes / (hull.square() + eps)).sum(1)
        if self.enclosing:
            area = hull.prod(1) + eps
            value = value - self.enclosing * (area - union) / area
        if self.aspect:
            v = self.aspect * 4 / math.pi**2 * (torch.atan(bw / bh) - torch.atan(aw / ah)) ** 2
            factor = self.trade_off(v, 1 - iou, eps)
            value = value - (factor if self.attached else factor.detach()) * v
        return value

    def _sizes(self, a: Tensor, b: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        wide, high = eps * self.width_eps, eps * self.height_eps
        return a[:, 2] - a[:, 0] + wide, a[:, 3] - a[:, 1] + high, b[:, 2] - b[:, 0] + wide, b[:, 3] - b[:, 1] + high


KINDS = {
    "IoU": Formula(distance=0, aspect=0),
    "GIoU": Formula(distance=0, aspect=0, enclosing=1),
    "DIoU": Formula(aspect=0),
    "EIoU": Formula(aspect=0, separate=True),
}
PARTS = {
    "CIoU without ε_c in the heights": Formula(height_eps=False),
    "CIoU with ε_c in the widths too": Formula(width_eps=True),
    "CIoU without α_c": Formula(trade_off=lambda v, far, eps: torch.ones_like(v)),
    "CIoU with α_c as 0 below an IoU of 0.5": Formula(trade_off=lambda v, far, eps: torch.where(far > 0.5, 0.0, v / (far + v + eps))),
    "CIoU with an intersection that is not clamped": Formula(unclamped=True),
    "CIoU with the IoU's distance in place of v in α_c": Formula(trade_off=lambda v, far, eps: v / (1 - far + v + eps)),
}


def _assigner(formula: Any) -> Step:
    return lambda exact, sound, boxes, predicted: formula(boxes, predicted, exact.spec.ciou_eps).clamp(min=0)


def _term(formula: Any) -> Step:
    return lambda exact, sound, predicted, boxes: formula(predicted, boxes, exact.spec.ciou_eps)


def _everywhere(name: str, section: str, formula: Formula) -> Iterator[Variant]:
    for place, steps in (
        ("in the assigner and in the box term", {"overlap": _assigner(formula), "term_overlap": _term(formula)}),
        ("in the assigner", {"overlap": _assigner(formula)}),
        ("in the box term", {"term_overlap": _term(formula)}),
    ):
        yield Variant(f"{name} {place}", section, steps=steps, tasks=UPRIGHT)


def _raw(least: float) -> Step:
    """Clamps the CIoU of the assigner at another number than 0."""

    def step(exact: Any, sound: Any, boxes: Tensor, predicted: Tensor) -> Tensor:
        return Formula()(boxes, predicted, exact.spec.ciou_eps).clamp(min=least)

    return step


def _changed_term(change: Any) -> Step:
    return lambda exact, sound, predicted, boxes: change(sound(predicted, boxes))


def _in_cells(exact: Any, sound: Any, scene: Any, image: int, rows: Tensor, candidate: Tensor) -> Tensor:
    """Takes the overlap in cells of the anchor's level, where ε_c weighs more."""
    box, anchor = candidate.nonzero(as_tuple=True)
    overlap = torch.zeros(candidate.shape, dtype=torch.float64)
    scale = scene.grid.strides[anchor][:, None]
    overlap[box, anchor] = exact.overlap(scene.truth.corners[rows].double()[box] / scale, scene.predicted[image][anchor] / scale)
    return overlap


def _term_in_pixels(exact: Any, sound: Any, preds: Any, grid: Any, held: Any) -> Any:
    inner, stride = exact.term_overlap, held.strides[:, None]
    exact.term_overlap = lambda predicted, boxes: inner(predicted * stride, boxes * stride)
    try:
        return sound(preds, grid, held)
    finally:
        exact.term_overlap = inner


def catalogue() -> Iterator[Variant]:
    """Yields every variant of this chapter."""
    for name, formula in KINDS.items():
        yield from _everywhere(f"{name} for CIoU", "6", formula)
    for name, formula in PARTS.items():
        yield from _everywhere(name, "6", formula)
    yield Variant("α_c differentiated", "8", steps={"term_overlap": _term(Formula(attached=True))}, tasks=UPRIGHT)
    for least in (1e-9, 1e-7, 1e-6, 1e-4, 1e-3):
        yield Variant(f"the assigner's overlap at least {least:g}", "5.2", steps={"overlap": _raw(least)}, tasks=UPRIGHT)
    yield Variant("the assigner's overlap not clamped at 0", "5.2", steps={"overlap": _raw(-torch.inf)}, tasks=UPRIGHT)
    yield Variant("the box term's overlap clamped at 0", "7", steps={"term_overlap": _changed_term(lambda o: o.clamp(min=0))})
    yield Variant("the box term's overlap clamped to -1 and 1", "7", steps={"term_overlap": _changed_term(lambda o: o.clamp(-1, 1))})
    yield Variant("the box term 1 - overlap²", "7", steps={"term_overlap": _changed_term(lambda o: o.square())})
    yield Variant("the box term -log(overlap)", "7", steps={"term_overlap": _changed_term(lambda o: 1 + o.clamp(min=1e-6).log())})
    yield Variant("the assigner's overlap in cells", "5.2", steps={"pair_overlap": _in_cells}, tasks=("detect",))
    yield Variant("the box term's overlap in pixels", "7", steps={"box_terms": _term_in_pixels}, tasks=UPRIGHT)
