"""Wrong ground truth, candidates, decoding and overlaps of oriented boxes (sections 1 to 6 of the oriented specification)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from properties.selfcheck.planted_faults.fault import Fault, Make, Patch, with_numbers
from twinloss.backends import torch as loss
from twinloss.geometry import oriented as geometry
from twinloss.geometry import probiou as overlaps
from twinloss.geometry import rectangles
from twinloss.geometry.oriented import Oriented
from twinloss.geometry.probiou import probiou


def rows(rule: Any) -> tuple[Patch, ...]:
    """Replaces the rule by which rows count; ``rule`` takes boxes (N, 5) in pixels and the image size (height, width)."""

    def make(sound: Any) -> Any:
        def prepare_targets(batch_idx: Tensor, cls: Tensor, bboxes: Tensor, image_size: tuple[int, int], *rest: Any, **counts: Any) -> Any:
            with Patch(geometry, "counts", lambda _: lambda boxes: rule(boxes, image_size)).applied():
                return sound(batch_idx, cls, bboxes, image_size, *rest, **counts)

        return prepare_targets

    return (Patch(loss, "prepare_targets", make),)


def truths(change: Any) -> tuple[Patch, ...]:
    """Changes prepared boxes (N, 5); ``change`` takes them, the shares (N, 5) that they come from, and the image size."""
    return (Patch(geometry, "pixel_boxes", lambda sound: lambda shares, size: change(sound(shares, size), shares, size)),)


def candidates(rule: Any) -> tuple[Patch, ...]:
    """Replaces the inside test; ``rule`` takes ξ, η (P,) and half of the sides (P, 2), in pixels."""

    def make(_: Any) -> Any:
        def inside(boxes: Tensor, points: Tensor) -> Tensor:
            return rule(*rectangles.in_frame(boxes[:, :2] - points, boxes[:, 4]), boxes[:, 2:4] / 2)  # type: ignore[no-any-return]

        return inside

    return (Patch(geometry, "inside", make),)


def turned(change: Any) -> tuple[Patch, ...]:
    """Changes the predicted angles; ``change`` takes them (B, 1, A)."""

    def make(sound: Any) -> Any:
        return lambda centres, distances, angle, **options: sound(centres, distances, change(angle), **options)

    return decoded(make)


def decoded(make: Make) -> tuple[Patch, ...]:
    """Replaces the decoding of boxes in the assignment, in the box term and as a stage."""
    return Patch(geometry, "boxes_from_distances", make), Patch(rectangles, "boxes_from_distances", make)


def method(name: str, make: Make) -> tuple[Patch, ...]:
    """Replaces a method of the geometry."""
    return (Patch(Oriented, name, make),)


def formula(
    *,
    per_variance: float = 12.0,
    offset: float = 1.0,
    exchanged: bool = False,
    mixed: float = 1.0,
    covariance: float = 1.0,
    logarithm: float = 1.0,
    lowest: float | None = None,
    root: bool = True,
) -> Make:
    """Returns a replacement of the ProbIoU, as the specification writes it, with one part changed."""

    def covariances(box: Tensor, floor: float) -> tuple[Tensor, Tensor, Tensor]:
        u, v = (box[..., 2:4].square() / per_variance + floor).unbind(-1)
        cos, sin = box[..., 4].cos(), box[..., 4].sin()
        return u * cos**2 + v * sin**2, u * sin**2 + v * cos**2, covariance * (u - v) * cos * sin

    def changed(first: Tensor, second: Tensor, floor: float = 0.0, eps: float = 1e-7) -> Tensor:
        (p1, q1, c1), (p2, q2, c2) = covariances(first, floor), covariances(second, floor)
        p, q, c = p1 + p2, q1 + q2, c1 + c2
        dx, dy = (second - first)[..., :2].unbind(-1)
        if exchanged:
            dx, dy = dy, dx
        det = p * q - c**2
        one, two = ((a * b - m**2).clamp(min=0) for a, b, m in ((p1, q1, c1), (p2, q2, c2)))
        beta = offset * (p * dy**2 + q * dx**2) / (4 * (det + eps)) - mixed * c * dx * dy / (2 * (det + eps))
        beta = beta + logarithm * (det / (4 * (one * two).clamp(min=1e-12).sqrt() + eps) + eps).log() / 2
        least = (-beta.clamp(eps if lowest is None else lowest, 100)).exp()
        return 1 - (1 - least + eps).sqrt() if root else least

    return lambda _: changed


def everywhere(make: Make) -> tuple[Patch, ...]:
    """Replaces the ProbIoU in the assignment and in the box term."""
    return (Patch(geometry, "probiou", make),)


def _canonical(boxes: Tensor, *_: Any) -> Tensor:
    """Exchanges the sides where the second is longer, and turns the box by a right angle."""
    x, y, w, h, angle = boxes.unbind(-1)
    longer = h > w
    return torch.stack([x, y, torch.where(longer, h, w), torch.where(longer, w, h), angle + longer * (math.pi / 2)], -1)


def _wrapped(boxes: Tensor, *_: Any) -> Tensor:
    """Brings the angles into the loader's range."""
    return torch.cat([boxes[:, :4], (boxes[:, 4:] + math.pi / 4) % math.pi - math.pi / 4], 1)


def _stretched(boxes: Tensor, _: Tensor, size: tuple[int, int]) -> Tensor:
    """Turns the angles by the image's aspect, as if they were those of the shares."""
    height, width = size
    angle = torch.atan2(boxes[:, 4].sin() * height, boxes[:, 4].cos() * width)
    return torch.cat([boxes[:, :4], torch.where((boxes[:, 4].abs() < 1.5), angle, boxes[:, 4])[:, None]], 1)


def _axes_exchanged(boxes: Tensor, shares: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = size
    return torch.cat([boxes[:, :2], shares[:, 2:3] * height, shares[:, 3:4] * width, boxes[:, 4:]], 1)


def _with_floor(value: float) -> Make:
    return lambda _: lambda self, truth, predicted, spec: probiou(truth, predicted, value, spec.probiou_eps)


def _lengthened_overlap(sound: Any) -> Any:
    return lambda self, truth, predicted, spec: sound(self, geometry._lengthened(truth, spec), predicted, spec)


def _upright_overlap(_: Any) -> Any:
    def overlap(self: Any, truth: Tensor, predicted: Tensor, spec: Any) -> Tensor:
        first, second = (torch.cat([boxes[..., :4], torch.zeros_like(boxes[..., 4:])], -1) for boxes in (truth, predicted))
        return probiou(first, second, 0.0, spec.probiou_eps)

    return overlap


def _unturned(sound: Any) -> Any:
    """Decodes boxes whose centre is not turned."""

    def changed(centres: Tensor, sides: Tensor, angle: Tensor, dim: int = -1) -> Tensor:
        boxes = sound(centres, sides, torch.zeros_like(angle), dim=dim)
        return torch.cat([boxes.narrow(dim, 0, 4), angle.expand_as(boxes.narrow(dim, 4, 1))], dim)

    return changed


def _other_way(sound: Any) -> Any:
    """Decodes boxes whose centre is turned the other way."""

    def changed(centres: Tensor, sides: Tensor, angle: Tensor, dim: int = -1) -> Tensor:
        boxes = sound(centres, sides, -angle, dim=dim)
        return torch.cat([boxes.narrow(dim, 0, 4), -boxes.narrow(dim, 4, 1)], dim)

    return changed


def _exchanged_sides(sound: Any) -> Any:
    def changed(centres: Tensor, sides: Tensor, angle: Tensor, dim: int = -1) -> Tensor:
        x, y, w, h, turn = sound(centres, sides, angle, dim=dim).unbind(dim)
        return torch.stack([x, y, h, w, turn], dim)

    return changed


def _within(corners: Tensor, points: Tensor) -> Tensor:
    return ((points >= corners[:, :2]) & (points <= corners[:, 2:])).all(-1)


def _predicted(change: Any) -> Any:
    return lambda preds, batch: ({**preds, "angle": change(preds["angle"])}, batch)


def _given(change: Any) -> Any:
    """Changes the targets' boxes (N, 5)."""
    return lambda preds, batch: (preds, {**batch, "bboxes": change(batch["bboxes"])})


def oriented_fault(name: str, violates: str, section: str, *patches: Patch, **options: Any) -> Fault:
    """Returns a fault of the oriented loss."""
    return Fault(name, violates, section, patches, task="oriented", **options)


_TINY = "A row is kept when w·W ≥ 2 and h·H ≥ 2 (pixels)."
_VALID = "Valid is a row when cx + cy + w + h + θ > 0."
_PREPARED = "x and w are multiplied by W, y and h by H; θ is left alone."
_DECODING = "x = a_x + ((r − l) cos θ̂ − (b − t) sin θ̂) / 2, y = a_y + ((r − l) sin θ̂ + (b − t) cos θ̂) / 2, w = l + r, h = t + b."
_INSIDE = "Anchor i is a candidate of box j when |ξ| ≤ w'/2 and |η| ≤ h'/2."
_LONGER = "w' = s_1 where w < s_1; the lengthened side keeps its direction."
_OVERLAP = "o_ij = max(ProbIoU(gt_j, pred_i), 0) with f = 0 in pixels."
_PROBIOU = "ProbIoU = 1 − √(1 − e^(−β) + ε_p)."
_VARIANCE = "u = w²/12 + f, v = h²/12 + f."
_BETA = "β = β₁ + β₂ + β₃ clamped to [ε_p, 100]."
_AS_IT_COMES = "The angle is used as it comes, whatever its range."

ENTRIES = (
    oriented_fault(
        "tiny rule on the other axes",
        _TINY,
        "3",
        *rows(lambda b, s: rectangles.counts(b * b.new_tensor([1, 1, s[0] / s[1], s[1] / s[0], 1]))),
    ),
    oriented_fault("tiny limit left out", _TINY, "3", *rows(lambda b, s: (b[:, 2:4] > 2).all(-1) & (b.sum(-1) > 0))),
    oriented_fault("tiny limit of 1 px", _TINY, "3", *rows(lambda b, s: (b[:, 2:4] >= 1).all(-1) & (b.sum(-1) > 0))),
    oriented_fault("tiny limit of 3 px", _TINY, "3", *rows(lambda b, s: (b[:, 2:4] >= 3).all(-1) & (b.sum(-1) > 0))),
    oriented_fault("tiny rule of the longer side", _TINY, "3", *rows(lambda b, s: (b[:, 2:4] >= 2).any(-1) & (b.sum(-1) > 0))),
    oriented_fault("tiny rule of the area", _TINY, "3", *rows(lambda b, s: (b[:, 2] * b[:, 3] >= 4) & (b.sum(-1) > 0))),
    oriented_fault("no tiny rule", _TINY, "3", *rows(lambda b, s: (b[:, 2:4] > 0).all(-1) & (b.sum(-1) > 0))),
    oriented_fault("valid by the centre", _VALID, "3", *rows(lambda b, s: (b[:, 2:4] >= 2).all(-1) & (b[:, :2].sum(-1) > 0))),
    oriented_fault("valid without the angle", _VALID, "3", *rows(lambda b, s: (b[:, 2:4] >= 2).all(-1) & (b[:, :4].sum(-1) > 0))),
    oriented_fault("every row valid", _VALID, "3", *rows(lambda b, s: (b[:, 2:4] >= 2).all(-1))),
    oriented_fault("sides scaled by the other axes", _PREPARED, "3", *truths(_axes_exchanged)),
    oriented_fault("angle of the shares", _PREPARED, "3", *truths(_stretched)),
    oriented_fault("angle brought into the loader's range", _PREPARED, "3", *truths(_wrapped)),
    oriented_fault("sides brought into order", _PREPARED, "3", *truths(_canonical)),
    oriented_fault("angle in degrees", _PREPARED, "3", *truths(lambda b, *_: torch.cat([b[:, :4], torch.rad2deg(b[:, 4:])], 1))),
    oriented_fault(
        "angle rounded to half precision", _PREPARED, "3", before=_given(lambda b: torch.cat([b[:, :4], b[:, 4:].half().to(b.dtype)], 1))
    ),
    oriented_fault("border left out", _INSIDE, "5.1", *candidates(lambda x, y, half: (x.abs() < half[:, 0]) & (y.abs() < half[:, 1]))),
    oriented_fault(
        "border moved by 0.01 px",
        _INSIDE,
        "5.1",
        *candidates(lambda x, y, half: (x.abs() <= half[:, 0] - 0.01) & (y.abs() <= half[:, 1] - 0.01)),
    ),
    oriented_fault(
        "one border left out",
        _INSIDE,
        "5.1",
        *candidates(lambda x, y, half: (x < half[:, 0]) & (x >= -half[:, 0]) & (y.abs() <= half[:, 1])),
    ),
    oriented_fault(
        "sides exchanged in the inside test",
        _INSIDE,
        "5.1",
        *candidates(lambda x, y, half: (x.abs() <= half[:, 1]) & (y.abs() <= half[:, 0])),
    ),
    oriented_fault(
        "inside the ellipse", _INSIDE, "5.1", *candidates(lambda x, y, half: (x / half[:, 0]).square() + (y / half[:, 1]).square() <= 1)
    ),
    oriented_fault(
        "sign of the sine in the inside test",
        _INSIDE,
        "5.1",
        Patch(geometry, "inside", lambda sound: lambda boxes, points: sound(torch.cat([boxes[:, :4], -boxes[:, 4:]], 1), points)),
    ),
    oriented_fault(
        "inside the upright box around",
        _INSIDE,
        "5.1",
        Patch(geometry, "inside", lambda _: lambda boxes, points: _within(rectangles.enclosing_corners(boxes), points)),
    ),
    oriented_fault("short sides not lengthened", _LONGER, "5.1", spec=with_numbers(lengthen=lambda spec: "never")),
    oriented_fault("sides lengthened below the first stride", _LONGER, "5.1", spec=with_numbers(lengthen=lambda spec: "first")),
    oriented_fault(
        "one side lengthened",
        _LONGER,
        "5.1",
        Patch(geometry, "lengthen", lambda sound: lambda sides, *given: torch.cat([sound(sides, *given)[:, :1], sides[:, 1:]], 1)),
    ),
    oriented_fault("lengthened sides in the overlap", _LONGER, "5.1", *method("overlap", _lengthened_overlap)),
    oriented_fault("overlap without angles", _OVERLAP, "5.2", *method("overlap", _upright_overlap)),
    oriented_fault("floor of the term in the overlap", _OVERLAP, "5.2", *method("overlap", _with_floor(0.01))),
    oriented_fault("overlap too large by 1e-4", _OVERLAP, "5.2", *method("overlap", lambda sound: lambda *given: sound(*given) * 1.0001)),
    oriented_fault("centre not turned", _DECODING, "4", *decoded(_unturned)),
    oriented_fault("centre turned the other way", _DECODING, "4", *decoded(_other_way)),
    oriented_fault("sides of a prediction exchanged", _DECODING, "4", *decoded(_exchanged_sides)),
    oriented_fault("predicted angle clamped", _AS_IT_COMES, "1", *turned(lambda angle: angle.clamp(-math.pi / 4, 3 * math.pi / 4))),
    oriented_fault(
        "predicted angle brought into the loader's range",
        _AS_IT_COMES,
        "1",
        *turned(lambda angle: (angle + math.pi / 4) % math.pi - math.pi / 4),
    ),
    oriented_fault(
        "predicted angle from a sigmoid", _AS_IT_COMES, "1", before=_predicted(lambda angle: math.pi * (angle.sigmoid() - 0.25))
    ),
    oriented_fault(
        "predicted angle rounded to half precision",
        "Arithmetic is float32.",
        "8a",
        before=_predicted(lambda angle: angle.half().to(angle.dtype) if angle.dtype == torch.float32 else angle),
    ),
    oriented_fault("variance of w²/16", _VARIANCE, "6", *everywhere(formula(per_variance=16.0))),
    oriented_fault("covariance of twice the size", "c = (u − v) cos θ sin θ.", "6", *everywhere(formula(covariance=2.0))),
    oriented_fault("sign of the covariance", "c = (u − v) cos θ sin θ.", "6", *everywhere(formula(covariance=-1.0))),
    oriented_fault("β₁ halved", "β₁ = (P d_y² + Q d_x²) / (4 (E + ε_p)).", "6", *everywhere(formula(offset=0.5))),
    oriented_fault("axes exchanged in β₁", "β₁ = (P d_y² + Q d_x²) / (4 (E + ε_p)).", "6", *everywhere(formula(exchanged=True))),
    oriented_fault("sign of β₂", "β₂ = −M d_x d_y / (2 (E + ε_p)).", "6", *everywhere(formula(mixed=-1.0))),
    oriented_fault("β₃ doubled", "β₃ = ½ ln(E / (4 √(D₁ D₂) + ε_p) + ε_p).", "6", *everywhere(formula(logarithm=2.0))),
    oriented_fault("β clamped at 1e-3", _BETA, "6", *everywhere(formula(lowest=1e-3))),
    oriented_fault("β clamped at 10", _BETA, "6", Patch(overlaps, "LONGEST", lambda _: 10.0)),
    oriented_fault("ProbIoU without the root", _PROBIOU, "6", *everywhere(formula(root=False))),
    oriented_fault("ε_p of 1e-5", "ε_p = 1e-7.", "6", spec=with_numbers(probiou_eps=lambda spec: 1e-5)),
    oriented_fault("ε_p of 1e-9", "ε_p = 1e-7.", "6", spec=with_numbers(probiou_eps=lambda spec: 1e-9)),
)
