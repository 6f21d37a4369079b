"""Wrong location, visibility and likelihood terms of pose, and wrong gradients (pose spec sections 5 to 8a)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from properties.selfcheck.planted_faults.fault import Patch, Result
from properties.selfcheck.planted_faults.pose import PoseFault, number
from properties.selfcheck.planted_faults.terms import _through
from twinloss.terms import keypoints, pose, registry


def term(name: str, change: Any) -> tuple[Patch, ...]:
    """Replaces one term's formula; ``change`` takes the sound function and its arguments."""
    return (Patch(pose, name, lambda sound: lambda *given: change(sound, *given)),)


def held_term(key: str, change: Any) -> tuple[Patch, ...]:
    """Replaces a whole term; ``change`` takes the sound function and the held anchors."""

    def make(sound: Any) -> Any:
        return {**sound, key: lambda held: change(sound[key], held)}

    return (Patch(registry, "TERMS", make),)


def location(change: Any) -> tuple[Patch, ...]:
    """Replaces the mean of the location term; ``change`` takes costs (H, n), visibility (H, n), and returns a number."""

    def found(_: Any, difference: Tensor, visible: Tensor, area: Tensor, doubled: Tensor) -> Tensor:
        error = difference.square().sum(-1) / ((area.double()[:, None] + keypoints.EPS) * doubled)
        return change(1 - (-error).exp(), visible)  # type: ignore[no-any-return]

    return term("location_term", found)


def density(change: Any) -> tuple[Patch, ...]:
    """Changes the flow in the likelihood term; ``change`` takes the flow and the errors (P, 2)."""

    def found(sound: Any, *given: Any) -> Tensor:
        *before, flow, dtype, floor = given
        return sound(*before, lambda errors: change(flow, errors), dtype, floor)  # type: ignore[no-any-return]

    return term("likelihood_term", found)


def likelihood(change: Any) -> tuple[Patch, ...]:
    """Replaces the likelihood term; ``change`` takes offset (P, 2), deviation (P, 2), ω (P,), flow and dtype."""

    def found(
        _: Any, difference: Tensor, raw: Tensor, visible: Tensor, weight: Tensor, flow: Any, dtype: torch.dtype, floor: float
    ) -> Tensor:
        share = weight.expand_as(visible)[visible]
        return change(difference[visible], keypoints.deviations(raw[visible], floor), share, flow, dtype)  # type: ignore[no-any-return]

    return term("likelihood_term", found)


def pairs(offset: Tensor, deviation: Tensor, weight: Tensor, flow: Any, dtype: torch.dtype, **change: Any) -> Tensor:
    """Returns the likelihood of each pair (P,), with parts changed: ``attached``, ``absolute``, ``double``, ``limit``, ``eps``."""
    divisor = deviation.detach() if change.get("attached") is False else deviation
    limit = change.get("limit", keypoints.MOST_LATENT)
    errors = (offset / (divisor + change.get("eps", keypoints.EPS))).clamp(-limit, limit)
    each = 2 * deviation.log() + change.get("double", 0.6931471805599453) + errors.abs() * change.get("absolute", 1.0)
    found: Tensor = weight * (each.sum(1) - 2 * flow(errors.to(dtype)).double())
    return found


def changed(**change: Any) -> tuple[Patch, ...]:
    """Changes parts of the likelihood term."""
    return likelihood(lambda *given: pairs(*given, **change).sum().div(max(len(given[0]), 1)).clamp(min=0))


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum().clamp(min=1)


def _per_anchor(cost: Tensor, visible: Tensor) -> Tensor:
    return (cost * visible).sum(1) / (visible.sum(1).double() + keypoints.EPS)


def _weighted(sound: Any, held: Any) -> Tensor:
    """Weighs each held anchor's share of the location term by its soft target."""
    found: list[Tensor] = [sound(_Only(held, index)) * weight for index, weight in enumerate(held.weight)]
    total: Tensor = (torch.stack(found).sum() if found else sound(held)) / held.weight.sum().clamp(min=1)
    return total


class _Only:
    """The held anchors of a call, of which one is left."""

    def __init__(self, held: Any, index: int) -> None:
        self._held, self._index = held, slice(index, index + 1)

    def __len__(self) -> int:
        return 1

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._held, name)
        return found[self._index] if name in ("image", "anchor", "row", "weight", "centres", "strides", "share") else found

    def columns(self, name: str) -> Tensor:
        return self._held.columns(name)[self._index]  # type: ignore[no-any-return]


def _reordered(result: Result, preds: Any, batch: Any) -> Result:
    order = [0, 2, 1, *range(3, len(result[0]))]
    return result[0][order], result[1]


def _through_predictions(key: str, change: Any) -> Any:
    def before(preds: Any, batch: Any) -> tuple[Any, Any]:
        return {**preds, key: _through(preds[key], change)} if preds.get(key) is not None else preds, batch

    return before


def _narrowed(preds: Any, batch: Any) -> tuple[Any, Any]:
    return {**preds, "kpts": preds["kpts"].float().to(preds["kpts"].dtype)}, batch


_LOCATION = "pose = (1/|F|) Σ_i (1/(V_i + ε_k)) Σ_k v_ik·(1 − exp(−e_ik))."
_VISIBILITY = "kobj = (1/(|F|·n)) Σ_i Σ_k BCE-with-logits(logit_ik, v_ik): all keypoints, visible or not."
_LIKELIHOOD = "ℓ = (1/P) Σ ω_k · Σ_c (log ς_c + log(2ς_c) + |u_c| − log φ(u)); rle = max(ℓ, 0)."
_ERRORS = "u_c = (x̂_c − x_c)/(ς_c + ε_k), clamped to [−100, 100]."
_DEVIATION = "ς = max(sigmoid(raw), τ), τ the smallest positive normal number of the raw value's dtype."
_FLOWS = "The keypoint terms reach kpts, kpts_sigma and the flow only, by the gradients of section 8."

ENTRIES = (
    PoseFault("location weighted by t", "The keypoint terms are not weighted.", "5", patches=held_term("pose", _weighted)),
    PoseFault("location over all visible keypoints at once", _LOCATION, "6", patches=location(_mean)),
    PoseFault(
        "anchors without visible keypoint not counted",
        "A held anchor without a visible keypoint contributes 0 and still counts in |F|.",
        "6",
        patches=location(lambda cost, visible: _per_anchor(cost, visible).sum() / visible.any(1).sum().clamp(min=1)),
    ),
    PoseFault(
        "location summed over keypoints",
        _LOCATION,
        "6",
        patches=location(lambda cost, visible: (cost * visible).sum() / max(len(cost), 1)),
    ),
    PoseFault(
        "location divided by n",
        _LOCATION,
        "6",
        patches=location(lambda cost, visible: (cost * visible).sum() / max(cost.numel(), 1)),
    ),
    PoseFault(
        "0.53 of the area in the location term",
        "Area q_i = w_j·h_j / s_i²; no factor 0.53 here.",
        "6",
        patches=term("location_term", lambda sound, d, v, area, c: sound(d, v, 0.53 * area, c)),
    ),
    PoseFault(
        "exponent of the location term halved",
        _LOCATION,
        "6",
        patches=term("location_term", lambda sound, d, v, area, c: sound(d, v, area, 2 * c)),
    ),
    PoseFault("ε_k of 1e-6", "ε_k = 1e-9.", "0", patches=(*number(keypoints, "EPS", 1e-6),)),
    PoseFault("location too large by 1e-4", _LOCATION, "6", patches=term("location_term", lambda sound, *given: sound(*given) * 1.0001)),
    PoseFault(
        "visibility of visible keypoints alone",
        _VISIBILITY,
        "6",
        patches=term("visibility_term", lambda sound, logits, visible: sound(logits[visible][None], visible[visible][None])),
    ),
    PoseFault(
        "visibility summed over keypoints",
        _VISIBILITY,
        "6",
        patches=term("visibility_term", lambda sound, logits, visible: sound(logits, visible) * logits.shape[1]),
    ),
    PoseFault(
        "visibility against 1 everywhere",
        _VISIBILITY,
        "6",
        patches=term("visibility_term", lambda sound, logits, visible: sound(logits, torch.ones_like(visible))),
    ),
    PoseFault(
        "visibility logits clamped to ±20",
        _VISIBILITY,
        "6",
        patches=term("visibility_term", lambda sound, logits, visible: sound(logits.clamp(-20, 20), visible)),
    ),
    PoseFault(
        "log φ subtracted once", "log φ is subtracted once per coordinate.", "6", patches=density(lambda flow, errors: flow(errors) / 2)
    ),
    PoseFault("log φ of |u|", _LIKELIHOOD, "6", patches=density(lambda flow, errors: flow(errors.abs()))),
    PoseFault("log φ without gradient", _FLOWS, "8", patches=density(lambda flow, errors: flow(errors.detach()))),
    PoseFault("log φ of (y, x)", _LIKELIHOOD, "6", patches=density(lambda flow, errors: flow(errors.flip(-1)))),
    PoseFault("|u| forgotten", _LIKELIHOOD, "6", patches=changed(absolute=0.0)),
    PoseFault("2ς without its 2", _LIKELIHOOD, "6", patches=changed(double=0.0)),
    PoseFault("u clamped to ±50", _ERRORS, "6", patches=changed(limit=50.0)),
    PoseFault("u not clamped", _ERRORS, "6", patches=changed(limit=1e30)),
    PoseFault("u by ς + 1e-6", _ERRORS, "6", patches=changed(eps=1e-6)),
    PoseFault("ς detached in u", "ς is not detached in u.", "8", patches=changed(attached=False)),
    PoseFault(
        "negative likelihood kept",
        "rle = max(ℓ, 0).",
        "6",
        patches=likelihood(lambda *given: pairs(*given).sum() / max(len(given[0]), 1)),
    ),
    PoseFault(
        "maximum of each pair",
        "The maximum is taken of the batch's mean, not per pair.",
        "6",
        patches=likelihood(lambda *given: pairs(*given).clamp(min=0).sum() / max(len(given[0]), 1)),
    ),
    PoseFault(
        "likelihood over all keypoints",
        "Over all pairs (i, k) with v_ik = 1.",
        "6",
        patches=term("likelihood_term", lambda sound, d, raw, visible, *rest: sound(d, raw, torch.ones_like(visible), *rest)),
    ),
    PoseFault(
        "likelihood divided by |F| · n",
        "P is the number of pairs that remain.",
        "6",
        patches=term(
            "likelihood_term", lambda sound, d, raw, visible, *rest: sound(d, raw, visible, *rest) * visible.sum() / max(visible.numel(), 1)
        ),
    ),
    PoseFault(
        "weights of the likelihood all 1",
        "ω_k for the shape [17, 3]: 1, 1.2 and 1.5.",
        "6",
        patches=(Patch(pose, "likelihood_weights", lambda sound: lambda *given: torch.ones_like(sound(*given))),),
    ),
    PoseFault(
        "floor of float32 in every dtype",
        _DEVIATION,
        "3",
        patches=term("likelihood_term", lambda sound, *given: sound(*given[:-1], 1.1754943508222875e-38)),
    ),
    PoseFault(
        "deviation of at least 1e-3", _DEVIATION, "3", patches=term("likelihood_term", lambda sound, *given: sound(*given[:-1], 1e-3))
    ),
    PoseFault("location and visibility swapped", "Result: box, pose, kobj, cls, dfl, rle.", "7", after=_reordered),
    PoseFault("float64 keypoints rounded to float32", "The arithmetic is float64 for float64 logits.", "8a", before=_narrowed),
    PoseFault("gradient of kpts too large by 1e-4", _FLOWS, "8", before=_through_predictions("kpts", lambda g: g * 1.0001)),
    PoseFault("gradient of kpts_sigma too large by 1e-4", _FLOWS, "8", before=_through_predictions("kpts_sigma", lambda g: g * 1.0001)),
    PoseFault("gradient of kpts clipped at 0.1", _FLOWS, "8", before=_through_predictions("kpts", lambda g: g.clamp(-0.1, 0.1))),
    PoseFault("no gradient of kpts_sigma", _FLOWS, "8", before=_through_predictions("kpts_sigma", lambda g: g * 0)),
)
