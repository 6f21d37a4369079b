"""Other classification terms (spec sections 7 and 13)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from oracle.contract.contender import Preds
from oracle.definition.criterion import Held
from oracle.definition.variant import Step, Variant


def _entropy(change: Any) -> Step:
    """Replaces the classification term's entropy; ``change`` takes scores and targets (B, C, A), and returns their losses."""

    def step(exact: Any, sound: Any, preds: Preds, truth: Any, held: Held) -> Tensor:
        scores = preds["scores"].double()
        target = torch.zeros_like(scores)
        target[held.image, truth.label[held.row], held.anchor] = held.weight.detach()
        factors = torch.tensor(exact.spec.class_weights or (1.0,) * exact.spec.num_classes, dtype=torch.float64)
        return (change(scores, target) * factors[:, None]).sum()  # type: ignore[no-any-return]

    return step


def _bce(scores: Tensor, target: Tensor) -> Tensor:
    return binary_cross_entropy_with_logits(scores, target, reduction="none")


def _focal(gamma: float, alpha: float) -> Any:
    def loss(scores: Tensor, target: Tensor) -> Tensor:
        p = scores.sigmoid()
        right = target * p + (1 - target) * (1 - p)
        balance = target * alpha + (1 - target) * (1 - alpha) if alpha else 1.0
        return _bce(scores, target) * (1 - right) ** gamma * balance

    return loss


def _varifocal(scores: Tensor, target: Tensor) -> Tensor:
    weight = 0.75 * scores.sigmoid() ** 2 * (target == 0) + target
    return _bce(scores, target) * weight.detach()


def _quality_focal(scores: Tensor, target: Tensor) -> Tensor:
    return _bce(scores, target) * (target - scores.sigmoid()).abs() ** 2


def _clamped_logs(scores: Tensor, target: Tensor) -> Tensor:
    p = scores.sigmoid()
    return -(target * p.clamp(min=1e-7).log() + (1 - target) * (1 - p).clamp(min=1e-7).log())


def _linear_beyond(most: float) -> Any:
    """BCE by a softplus that is taken for its argument beyond ``most``, as ``torch.nn.functional.softplus`` does beyond 20."""
    return lambda scores, target: torch.where(scores > most, scores, torch.nn.functional.softplus(scores)) - scores * target


ENTROPIES: dict[str, Any] = {
    "targets of 1": lambda s, t: _bce(s, (t > 0).double()),
    "focal, γ 1.5 and α 0.25": _focal(1.5, 0.25),
    "focal, γ 2 and α 0.25": _focal(2.0, 0.25),
    "focal, γ 2 without α": _focal(2.0, 0.0),
    "varifocal": _varifocal,
    "quality focal": _quality_focal,
    "mean over the classes": lambda s, t: _bce(s, t) / s.shape[1],
    "mean over the anchors": lambda s, t: _bce(s, t) / s.shape[2],
    "mean over images, classes and anchors": lambda s, t: _bce(s, t) / s.numel(),
    "of held anchors alone": lambda s, t: _bce(s, t) * (t > 0).any(1, keepdim=True),
    "of images with held anchors alone": lambda s, t: _bce(s, t) * (t > 0).flatten(1).any(1)[:, None, None],
    "probabilities clamped at 1e-7": _clamped_logs,
    "logits clamped to ±10": lambda s, t: _bce(s.clamp(-10, 10), t),
    "logits clamped to ±20": lambda s, t: _bce(s.clamp(-20, 20), t),
    "logits clamped to ±50": lambda s, t: _bce(s.clamp(-50, 50), t),
    **{f"softplus linear beyond {most}": _linear_beyond(most) for most in (16, 20, 30)},
    "squared error of the probabilities": lambda s, t: (s.sigmoid() - t).square(),
}


def _images_with_boxes(exact: Any, sound: Any, preds: Preds, truth: Any, held: Held) -> Tensor:
    """Leaves images without boxes out of the classification term."""
    scores = preds["scores"]
    mask = torch.isin(torch.arange(len(scores)), truth.image)[:, None, None]
    return sound({**preds, "scores": torch.where(mask, scores, -torch.inf)}, truth, held)  # type: ignore[no-any-return]


def _images_with_boxes_if_any(exact: Any, sound: Any, preds: Preds, truth: Any, held: Held) -> Tensor:
    return _images_with_boxes(exact, sound, preds, truth, held) if len(truth.image) else sound(preds, truth, held)


def _weights_of_held(exact: Any, sound: Any, preds: Preds, truth: Any, held: Held) -> Tensor:
    """Leaves the class weights out of the targets' part."""
    if exact.spec.class_weights is None:
        return sound(preds, truth, held)  # type: ignore[no-any-return]
    factors = torch.tensor(exact.spec.class_weights, dtype=torch.float64)[truth.label[held.row]]
    return sound(preds, truth, held._replace(weight=held.weight / factors.clamp(min=0.1)))  # type: ignore[no-any-return]


def catalogue() -> Iterator[Variant]:
    """Yields every variant of this chapter."""
    for name, change in ENTROPIES.items():
        yield Variant(f"classification: {name}", "7", steps={"classification": _entropy(change)})
    yield Variant("classification of images with boxes alone", "7", steps={"classification": _images_with_boxes})
    yield Variant("classification of images with boxes alone, if there are any", "7", steps={"classification": _images_with_boxes_if_any})
    yield Variant("class weights left out at held anchors", "13", steps={"classification": _weights_of_held})
