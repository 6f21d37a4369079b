"""Wrong terms and gradients of oriented boxes (sections 7 and 8 of the oriented specification)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from properties.selfcheck.planted_faults.fault import Make, Patch, Result, with_numbers
from properties.selfcheck.planted_faults.oriented import everywhere, method, oriented_fault
from twinloss.backends import torch as loss
from twinloss.geometry import oriented as geometry
from twinloss.geometry import probiou as overlaps
from twinloss.geometry import rectangles
from twinloss.geometry.probiou import probiou
from twinloss.terms import angle as angle_module
from twinloss.terms import registry
from twinloss.terms.held import HeldAnchors


def distances(make: Make) -> tuple[Patch, ...]:
    """Replaces the target distances."""
    return (Patch(geometry, "distances_from_boxes", make),)


def angle_terms(change: Any) -> tuple[Patch, ...]:
    """Replaces the angle term; ``change`` takes the difference of the angles, w and h (each (H,)) in cells, and λ."""

    def make(_: Any) -> Any:
        def angle_term(angle: Tensor, truth: Tensor, weight: Tensor, scale: float = 3.0, eps: float = 1e-9) -> Tensor:
            return (change(angle - truth[:, 4], truth[:, 2] + eps, truth[:, 3] + eps, scale) * weight).sum()  # type: ignore[no-any-return]

        return angle_term

    return (Patch(angle_module, "angle_term", make),)


def term(change: Any) -> tuple[Patch, ...]:
    """Changes the angle term times its gain and divided by S; ``change`` takes it and the held anchors."""

    def make(sound: Any) -> Any:
        def further_terms(held: HeldAnchors, computed: Any) -> Any:
            found = sound(held, computed)
            return found | {"angle": change(found["angle"], held)}

        return further_terms

    return (Patch(loss, "further_terms", make),)


def emphasis(w: Tensor, h: Tensor, scale: float) -> Tensor:
    """Returns ω."""
    return (-((w / h).log() / scale).square()).exp()


def sine(turn: Tensor, w: Tensor, h: Tensor, scale: float) -> Tensor:
    """Returns the angle term without its weight t."""
    return emphasis(w, h, scale) * (2 * turn).sin().square()


def _without_centre(sound: Any) -> Any:
    """The gradient of the angle does not flow through the box's centre."""

    def changed(centres: Tensor, sides: Tensor, angle: Tensor, dim: int = -1) -> Tensor:
        still, whole = sound(centres, sides, angle.detach(), dim=dim), sound(centres, sides, angle, dim=dim)
        return torch.cat([still.narrow(dim, 0, 2), whole.narrow(dim, 2, 3)], dim)

    return changed


def _own_frame(sound: Any) -> Any:
    """Target distances in the predicted box's frame."""

    def clamped_target(self: Any, held: Any) -> Tensor:
        boxes = torch.cat([held.truth[:, :4], held.columns("angle").detach()], 1)
        return rectangles.distances_from_boxes(held.centres, boxes).clamp(0, held.spec.largest_target)

    return clamped_target


def _straight_through(sound: Any) -> Any:
    """The clamp of β passes its gradient."""

    def changed(first: Tensor, second: Tensor, floor: float = 0.0, eps: float = 1e-7) -> Tensor:
        pairs = overlaps._Pairs.of(first, second, floor)
        beta = overlaps._distance(pairs, eps)
        beta = beta + (beta.clamp(eps, overlaps.LONGEST) - beta).detach()
        return 1 - (eps - torch.expm1(-beta)).sqrt()

    return changed


def _truth_angle(sound: Any) -> Any:
    """The box term takes the truth's angle for the predicted one."""

    def box_term(self: Any, distances: Tensor, held: HeldAnchors) -> Tensor:
        predicted = rectangles.boxes_from_distances(torch.zeros_like(held.centres), distances, held.truth[:, 4:])
        truth = torch.cat([held.truth[:, :2] - held.centres, held.truth[:, 2:]], -1)
        spec = geometry._numbers(held.spec)
        return ((1 - probiou(predicted, truth, spec.term_floor, spec.probiou_eps)) * held.share).sum()

    return box_term


def _in_pixels(sound: Any) -> Any:
    """The floor is added in squared pixels."""

    def box_term(self: Any, distances: Tensor, held: HeldAnchors) -> Tensor:
        scale = held.strides[:, None]
        predicted = rectangles.boxes_from_distances(torch.zeros_like(held.centres), distances * scale, held.columns("angle"))
        truth = torch.cat([held.pixels[:, :2] - held.centres * scale, held.pixels[:, 2:]], -1)
        spec = geometry._numbers(held.spec)
        return ((1 - probiou(predicted, truth, spec.term_floor, spec.probiou_eps)) * held.share).sum()

    return box_term


def _angle_gradient(change: Any) -> tuple[Patch, ...]:
    """Changes the gradient of the angles, and not the loss."""

    def make(sound: Any) -> Any:
        def admitted(self: Any, key: str) -> Tensor:
            found: Tensor = sound(self, key)
            if key == "angle" and found.requires_grad:
                found = found.view_as(found)
                found.register_hook(change)
            return found

        return admitted

    return (Patch(HeldAnchors, "columns", make),)


class _Detached:
    """Held anchors whose predicted angles have no gradient."""

    def __init__(self, held: Any) -> None:
        self._held = held

    def __getattr__(self, name: str) -> Any:
        return getattr(self._held, name)

    def columns(self, key: str) -> Tensor:
        """Returns the logits at the held anchors."""
        found: Tensor = self._held.columns(key)
        return found.detach() if key == "angle" else found


def _terms_reordered(result: Result, preds: Any, batch: Any) -> Result:
    return result[0][[0, 1, 3, 2]], result[1]


def _item_per_batch(result: Result, preds: Any, batch: Any) -> Result:
    return result[0], result[1] | {"angle_loss": result[1]["angle_loss"] * len(preds["boxes"])}


_BOX = "Σ_F (1 − ProbIoU(pred_i, gt_i)) · w_i / S with f = 0.01, in grid units."
_FRAME = "The distances are in the ground truth's own frame, turned by the ground truth's angle."
_SHARES = "l and r times stride divided by W, t and b times stride divided by H; the target is not clamped."
_ANGLE = "Σ_F ω_i · sin²(2 (θ̂_i − θ_i)) · w_i / S."
_OMEGA = "ω = exp(−(ln((w + 1e-9) / (h + 1e-9)))² / λ²) of the ground truth's w, h."
_RESULT = "Four terms, each times its gain and times B, in the order box, classification, distribution, angle."
_FLOWS = "Gradients flow through angle (box, by way of the centre and of the covariance; angle)."
_CLAMPED = "The clamp of β passes no gradient where β < ε_p or > 100."

ENTRIES = (
    oriented_fault("no floor in the box term", _BOX, "7", spec=with_numbers(term_floor=lambda spec: 1e-12)),
    oriented_fault("floor of 0.1 in the box term", _BOX, "7", spec=with_numbers(term_floor=lambda spec: 0.1)),
    oriented_fault("floor in squared pixels", _BOX, "7", *method("box_term", _in_pixels)),
    oriented_fault("truth's angle in the box term", _BOX, "7", *method("box_term", _truth_angle)),
    oriented_fault("clamped β with a gradient", _CLAMPED, "8", *everywhere(_straight_through)),
    oriented_fault(
        "target distances unturned",
        _FRAME,
        "7",
        *distances(lambda sound: lambda centres, boxes: sound(centres, boxes * boxes.new_tensor([1, 1, 1, 1, 0]))),
    ),
    oriented_fault(
        "target distances turned the other way",
        _FRAME,
        "7",
        *distances(lambda sound: lambda centres, boxes: sound(centres, boxes * boxes.new_tensor([1, 1, 1, 1, -1]))),
    ),
    oriented_fault("target distances in the predicted frame", _FRAME, "7", *method("clamped_target", _own_frame)),
    oriented_fault(
        "sides exchanged in target distances",
        _FRAME,
        "7",
        *distances(lambda sound: lambda centres, boxes: sound(centres, boxes[..., [0, 1, 3, 2, 4]])),
    ),
    oriented_fault(
        "width and height exchanged in distances",
        _SHARES,
        "7",
        Patch(geometry, "difference_term", lambda sound: lambda *given: sound(*given[:-1], given[-1][::-1])),
    ),
    oriented_fault(
        "target distances not below 0 for R = 1",
        _SHARES,
        "7",
        Patch(geometry, "difference_term", lambda sound: lambda d, target, *rest: sound(d, target.clamp(min=0), *rest)),
    ),
    oriented_fault(
        "angle term with the period π", _ANGLE, "7", *angle_terms(lambda turn, w, h, scale: emphasis(w, h, scale) * turn.sin().square())
    ),
    oriented_fault(
        "angle term with the period π/4",
        _ANGLE,
        "7",
        *angle_terms(lambda turn, w, h, scale: emphasis(w, h, scale) * (4 * turn).sin().square()),
    ),
    oriented_fault(
        "angle term not squared", _ANGLE, "7", *angle_terms(lambda turn, w, h, scale: emphasis(w, h, scale) * (2 * turn).sin().abs())
    ),
    oriented_fault(
        "angle term of the plain difference", _ANGLE, "7", *angle_terms(lambda turn, w, h, scale: emphasis(w, h, scale) * turn.square())
    ),
    oriented_fault("λ = 2", "λ = 3.", "7", spec=with_numbers(angle_scale=lambda spec: 2.0)),
    oriented_fault(
        "λ not squared",
        _OMEGA,
        "7",
        *angle_terms(lambda turn, w, h, scale: (-(w / h).log().square() / scale).exp() * (2 * turn).sin().square()),
    ),
    oriented_fault(
        "ω of the ratio without its logarithm",
        _OMEGA,
        "7",
        *angle_terms(lambda turn, w, h, scale: (-((w / h - 1) / scale).square()).exp() * (2 * turn).sin().square()),
    ),
    oriented_fault("ω of 1", _OMEGA, "7", *angle_terms(lambda turn, w, h, scale: (2 * turn).sin().square())),
    oriented_fault(
        "ω of 0 for squares", _OMEGA, "7", *angle_terms(lambda turn, w, h, scale: sine(turn, w, h, scale) * ((w - h).abs() > 1e-3 * w))
    ),
    oriented_fault("ω with an epsilon of 0.01", _OMEGA, "7", *angle_terms(lambda turn, w, h, scale: sine(turn, w + 0.01, h + 0.01, scale))),
    oriented_fault(
        "ω of sides in their order",
        _OMEGA,
        "7",
        *angle_terms(lambda turn, w, h, scale: torch.where(w >= h, sine(turn, w, h, scale), (2 * turn).sin().square())),
    ),
    oriented_fault("angle term not divided by S", _ANGLE, "7", Patch(registry, "WEIGHTED", lambda sound: sound - {"angle"})),
    oriented_fault("angle term without its gain", _RESULT, "7", *term(lambda value, held: registry.TERMS["angle"](held) / held.normaliser)),
    oriented_fault(
        "angle term with the gain of the distribution term",
        _RESULT,
        "7",
        spec=with_numbers(gains=lambda spec: (*spec.gains[:3], spec.gains[2])),
    ),
    oriented_fault("angle term too large by 1e-4", _ANGLE, "7", *term(lambda value, held: value * 1.0001)),
    oriented_fault(
        "angle term without weights",
        _ANGLE,
        "7",
        Patch(
            angle_module,
            "angle_term",
            lambda sound: lambda angle, truth, weight, *rest: sound(angle, truth, torch.ones_like(weight), *rest),
        ),
    ),
    oriented_fault("angle before the distribution term", _RESULT, "7", after=_terms_reordered),
    oriented_fault("logged angle term times images", "The same four without B, detached.", "7", after=_item_per_batch),
    oriented_fault("no gradient of the angle term", _FLOWS, "8", *term(lambda value, held: value.detach() + 0 * value)),
    oriented_fault(
        "no gradient of the box term in the angle",
        _FLOWS,
        "8",
        *method("box_term", lambda sound: lambda self, d, held: sound(self, d, _Detached(held))),
    ),
    oriented_fault("no gradient of the angle through the centre", _FLOWS, "8", Patch(geometry, "boxes_from_distances", _without_centre)),
    oriented_fault("gradient of the angle too large by 1e-4", _FLOWS, "8", *_angle_gradient(lambda g: g * 1.0001)),
    oriented_fault("gradient of the angle clipped at 0.1", _FLOWS, "8", *_angle_gradient(lambda g: g.clamp(-0.1, 0.1))),
    oriented_fault("sign of the angle's gradient", _FLOWS, "8", *_angle_gradient(lambda g: -g)),
)
