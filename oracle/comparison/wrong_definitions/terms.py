"""Other terms, weights, normalisers and gradients (spec sections 7 and 8)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from oracle.contract.contender import Batch, Preds
from oracle.definition.criterion import Grid, Held
from oracle.definition.variant import Step, Variant
from twinloss import LossSpec

UPRIGHT = ("detect", "segment", "pose")


def _held(change: Any) -> Step:
    """Changes the entries of the assignment; ``change`` takes them, predictions and ground truth."""

    def step(exact: Any, sound: Any, preds: Preds, grid: Grid, truth: Any, assignment: Any) -> Held:
        return change(sound(preds, grid, truth, assignment), preds, truth)  # type: ignore[no-any-return]

    return step


def _normaliser(number: Any) -> Step:
    """Replaces S; ``number`` takes the soft targets (H,), the number of images, and the ground truth."""

    def change(held: Held, preds: Preds, truth: Any) -> Held:
        other = torch.as_tensor(number(held.weight, len(preds["scores"]), truth), dtype=torch.float64)
        return held._replace(normaliser=other)

    return _held(change)


def _share(number: Any) -> Step:
    """Replaces the anchors' factors in box and distribution terms, by a function of the soft targets (H,)."""
    return _held(lambda held, preds, truth: held._replace(share=number(held.weight)))


NORMALISERS: dict[str, Any] = {
    "Σ t, not at least 1": lambda t, images, truth: t.sum() if float(t.sum()) > 0 else 1.0,
    "Σ t + 1": lambda t, images, truth: t.sum() + 1,
    "max(Σ t, 2)": lambda t, images, truth: t.sum().clamp(min=2),
    "max(Σ t, 10)": lambda t, images, truth: t.sum().clamp(min=10),
    "max(Σ t, 1) + 1e-9": lambda t, images, truth: t.sum().clamp(min=1) + 1e-9,
    "Σ t + 1e-6": lambda t, images, truth: t.sum() + 1e-6,
    "Σ t + 1e-9": lambda t, images, truth: t.sum() + 1e-9,
    "max(Σ t, 1) rounded": lambda t, images, truth: t.sum().clamp(min=1).round(),
    "the number of held anchors": lambda t, images, truth: max(len(t), 1),
    "the number of boxes": lambda t, images, truth: max(len(truth.image), 1),
    "the number of images": lambda t, images, truth: images,
    "the number of images with boxes": lambda t, images, truth: max(len(truth.image.unique()), 1),
    "max(Σ t, number of images)": lambda t, images, truth: t.sum().clamp(min=images),
    "max(Σ t / images, 1)": lambda t, images, truth: (t.sum() / images).clamp(min=1),
    "1": lambda t, images, truth: 1.0,
}
SHARES: dict[str, Any] = {
    "all alike": lambda t: torch.ones_like(t),
    "by the mean of the soft targets": lambda t: torch.ones_like(t) * (t.sum() / max(len(t), 1)),
    "by the square of the soft target": lambda t: t.square(),
}


def _normalised(part: str, number: Any) -> Step:
    """Divides the classification term, or the others, by another number than the other terms."""

    def change(exact: Any, sound: Any, preds: Preds, truth: Any, held: Held) -> Tensor:
        return sound(preds, truth, held) * held.normaliser / number(held.weight, len(preds["scores"]), truth)  # type: ignore[no-any-return]

    def boxes(exact: Any, sound: Any, preds: Preds, grid: Grid, held: Held) -> dict[str, Tensor]:
        factor = held.normaliser / number(held.weight, len(preds["scores"]), _Images(held.image))
        return {name: term * factor for name, term in sound(preds, grid, held).items()}

    return change if part == "cls" else boxes


class _Images:
    """The images of held anchors, where a normaliser counts those of boxes."""

    def __init__(self, image: Tensor) -> None:
        self.image = image


def _attached(classification: bool, normaliser: bool, share: bool) -> dict[str, Step]:
    """Lets the gradient flow through the soft targets, in some of the places where they stand."""

    def trace(exact: Any, sound: Any, preds: Preds, batch: Batch) -> Any:
        scene = exact.scene(preds, batch)
        return [exact._trace_image(image, scene) for image in range(len(scene.predicted))]

    def change(held: Held, preds: Preds, truth: Any) -> Held:
        return held._replace(
            normaliser=held.normaliser if normaliser else held.normaliser.detach(), share=held.share if share else held.share.detach()
        )

    def target(exact: Any, sound: Any, preds: Preds, truth: Any, held: Held) -> Tensor:
        return sound(preds, truth, held if classification else held._replace(weight=held.weight.detach()))  # type: ignore[no-any-return]

    return {"trace": trace, "held": _held(change), "classification": target}


def _attached_in_one_term(term: str) -> dict[str, Step]:
    """Lets the gradient flow through the weights of the box term, or of the distribution term, alone."""

    def terms(exact: Any, sound: Any, preds: Preds, grid: Grid, held: Held) -> dict[str, Tensor]:
        return {**sound(preds, grid, held._replace(share=held.share.detach())), term: sound(preds, grid, held)[term]}

    return {**_attached(classification=False, normaliser=False, share=True), "box_terms": terms}


def _third(change: Any, *, bins: bool | None = None) -> Step:
    """Changes the distribution or distance term (H,); ``change`` takes the sound step, its arguments and the criterion."""

    def step(exact: Any, sound: Any, predicted: Tensor, target: Tensor, grid: Grid, held: Held) -> Tensor:
        if bins is not None and bins != (exact.spec.reg_max > 1):
            return sound(predicted, target, grid, held)  # type: ignore[no-any-return]
        return change(sound, predicted, target, grid, held, exact.spec)  # type: ignore[no-any-return]

    return step


def _target(change: Any) -> Step:
    return _third(lambda sound, predicted, target, grid, held, spec: sound(predicted, change(target, spec), grid, held), bins=True)


def _distance(number: Any) -> Step:
    """Replaces the distance term (H,) for R = 1; ``number`` takes the differences (H, 4) in cells, strides (H, 1), width and height."""

    def change(sound: Any, predicted: Tensor, target: Tensor, grid: Grid, held: Held, spec: LossSpec) -> Tensor:
        return number((predicted - target).abs(), held.strides[:, None], grid.width, grid.height) * spec.distance_term  # type: ignore[no-any-return]

    return _third(change, bins=False)


def _smooth(sound: Any, predicted: Tensor, target: Tensor, grid: Grid, held: Held, spec: LossSpec) -> Tensor:
    size = torch.tensor([grid.width, grid.height] * 2, dtype=torch.float64) / held.strides[:, None]
    return smooth_l1_loss(predicted / size, target / size, reduction="none").mean(1) * spec.distance_term


def _two_bins(log_probability: Tensor, target: Tensor, spec: LossSpec) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the cross-entropies of the lower and the upper bin around each clamped target, and the upper bin's share."""
    clamped = target.clamp(0, spec.largest_target)
    lower = clamped.floor()
    low, high = (-log_probability.gather(-1, (lower + up).long()[..., None])[..., 0] for up in (0, 1))
    return low, high, clamped - lower


def _swapped_bins(sound: Any, predicted: Tensor, target: Tensor, grid: Grid, held: Held, spec: LossSpec) -> Tensor:
    """Exchanges the shares of the two bins."""
    low, high, share = _two_bins(held.logits.unflatten(-1, (4, spec.reg_max)).log_softmax(-1), target, spec)
    return (low * share + high * (1 - share)).mean(-1)


def _one_bin(rounded: Any) -> Any:
    def change(sound: Any, predicted: Tensor, target: Tensor, grid: Grid, held: Held, spec: LossSpec) -> Tensor:
        chosen = rounded(target.clamp(0, spec.largest_target)).long()
        nll: Tensor = -held.logits.unflatten(-1, (4, spec.reg_max)).log_softmax(-1)
        return nll.gather(-1, chosen[..., None])[..., 0].mean(-1)

    return change


def _clamped_bins(least: float) -> Any:
    """Takes the logarithms of the bins' probabilities, which are at least a small number."""

    def change(sound: Any, predicted: Tensor, target: Tensor, grid: Grid, held: Held, spec: LossSpec) -> Tensor:
        probability = held.logits.unflatten(-1, (4, spec.reg_max)).softmax(-1)
        low, high, share = _two_bins(probability.clamp(min=least).log(), target, spec)
        return (low * (1 - share) + high * share).mean(-1)

    return change


DISTANCES: dict[str, Any] = {
    "summed over the sides": lambda d, s, w, h: (d * s / d.new_tensor([w, h, w, h])).sum(1),
    "in cells": lambda d, s, w, h: d.mean(1),
    "summed, in cells": lambda d, s, w, h: d.sum(1),
    "in pixels": lambda d, s, w, h: (d * s).mean(1),
    "summed, in pixels": lambda d, s, w, h: (d * s).sum(1),
    "in shares of the width alone": lambda d, s, w, h: (d * s / w).mean(1),
    "in shares of the height alone": lambda d, s, w, h: (d * s / h).mean(1),
    "in shares of width and height exchanged": lambda d, s, w, h: (d * s / d.new_tensor([h, w, h, w])).mean(1),
    "in shares of the longer side": lambda d, s, w, h: (d * s / max(w, h)).mean(1),
    "with a stride of 8 for every level": lambda d, s, w, h: (d * 8 / d.new_tensor([w, h, w, h])).mean(1),
    "without the stride": lambda d, s, w, h: (d / d.new_tensor([w, h, w, h])).mean(1),
    "squared": lambda d, s, w, h: (d * s / d.new_tensor([w, h, w, h])).square().mean(1),
}


def _no_truth(value: Any) -> Any:
    """Changes the loss of a batch without boxes."""
    return lambda loss, preds, batch: loss if len(batch["bboxes"]) else loss * value(loss)


def _images(loss: Tensor, preds: Preds, batch: Batch) -> Tensor:
    return loss / len(preds["scores"])


def _only_with_boxes(loss: Tensor, preds: Preds, batch: Batch) -> Tensor:
    images = len(preds["scores"])
    return loss * (max(len(batch["batch_idx"].reshape(-1).unique()), 1) / images)


def _detached(*terms: str) -> Step:
    """Takes the gradient of some terms away."""
    return lambda exact, sound, *given: {name: term.detach() if name in terms else term for name, term in sound(*given).items()}


def _detached_with_bins(exact: Any, sound: Any, predicted: Tensor, boxes: Tensor) -> Tensor:
    overlap: Tensor = sound(predicted, boxes)
    return overlap.detach() if exact.spec.reg_max > 1 else overlap


def _no_classification_gradient(exact: Any, sound: Any, *given: Any) -> Tensor:
    return sound(*given).detach()  # type: ignore[no-any-return]


def _in_order(order: Sequence[int]) -> Any:
    return lambda loss, preds, batch: loss[list(order)]


def catalogue() -> Iterator[Variant]:
    """Yields every variant of this chapter."""
    for name, number in NORMALISERS.items():
        yield Variant(f"S = {name}", "7", steps={"held": _normaliser(number)})
        yield Variant(f"S = {name} for the classification term alone", "7", steps={"classification": _normalised("cls", number)})
        if "boxes" not in name:
            yield Variant(f"S = {name} for the other terms alone", "7", steps={"box_terms": _normalised("box", number)})
    for name, number in SHARES.items():
        yield Variant(f"anchors weighed {name} in box and distribution terms", "7", steps={"held": _share(number)})
    for name, places in (
        ("everywhere", (True, True, True)),
        ("in the classification target alone", (True, False, False)),
        ("in S alone", (False, True, False)),
        ("in the box weights alone", (False, False, True)),
        ("in the box weights and S", (False, True, True)),
        ("in the classification target and S", (True, True, False)),
        ("in the classification target and the box weights", (True, False, True)),
    ):
        yield Variant(f"the gradient flows through t {name}", "8", steps=_attached(*places), tasks=UPRIGHT)
    for term, name in (("box", "box"), ("dfl", "distribution")):
        yield Variant(
            f"the gradient flows through t in the weights of the {name} term alone", "8", steps=_attached_in_one_term(term), tasks=UPRIGHT
        )
    yield Variant("no gradient of the box term", "8", steps={"box_terms": _detached("box")})
    yield Variant("no gradient of the box term where there are bins", "8", steps={"term_overlap": _detached_with_bins})
    yield Variant("no gradient of the distribution term", "8", steps={"box_terms": _detached("dfl")})
    for name, other, bins in (("distribution", "distance", True), ("distance", "distribution", False)):
        detached = _third(lambda sound, *given: sound(*given[:-1]).detach(), bins=bins)
        yield Variant(f"no gradient of the {name} term, but of the {other} term", "8", steps={"distance_or_distribution": detached})
    yield Variant("no gradient of the classification term", "8", steps={"classification": _no_classification_gradient})
    thirds: dict[str, Any] = {
        "distribution term summed over the sides": _third(lambda sound, *given: sound(*given[:-1]) * 4, bins=True),
        "distribution term with its bins' shares exchanged": _third(_swapped_bins, bins=True),
        "distribution term of the lower bin alone": _third(_one_bin(torch.floor), bins=True),
        "distribution term of the nearest bin alone": _third(_one_bin(torch.round), bins=True),
        **{
            f"distribution term with probabilities of at least {least:g}": _third(_clamped_bins(least), bins=True)
            for least in (1e-12, 1e-9, 1e-8, 1e-7, 1e-6)
        },
        **{
            f"target distances beyond {most} cells cut for R = 1": _third(
                lambda sound, predicted, target, grid, held, spec, n=most: sound(predicted, target.clamp(max=n), grid, held), bins=False
            )
            for most in (14.99, 15, 16)
        },
        "negative target distances mirrored": _target(lambda target, spec: target.abs()),
        "target distances in 16ths of R": _target(lambda target, spec: target / 16 * spec.reg_max),
        "distance term smooth": _third(_smooth, bins=False),
        "target distances clamped at 0 for R = 1": _third(
            lambda sound, predicted, target, grid, held, spec: sound(predicted, target.clamp(min=0), grid, held), bins=False
        ),
    }
    for name, step in thirds.items():
        yield Variant(name, "7", steps={"distance_or_distribution": step})
    for name, number in DISTANCES.items():
        yield Variant(f"distance term {name}", "7", steps={"distance_or_distribution": _distance(number)})
    yield Variant("no factor of the number of images", "7", after=_images)
    yield Variant("the factor of the number of images twice", "7", after=lambda loss, preds, batch: loss * len(preds["scores"]))
    yield Variant("the number of images with boxes for that of images", "7", after=_only_with_boxes)
    yield Variant("at least two images counted", "7", after=lambda loss, p, b: loss * (max(len(p["scores"]), 2) / len(p["scores"])))
    yield Variant("a loss of 0 without boxes", "7", after=_no_truth(lambda loss: 0.0))
    for order in list(permutations(range(3)))[1:]:
        names = ", ".join(("box", "classification", "distribution")[k] for k in order)
        yield Variant(f"terms in the order {names}", "7", after=_in_order(order), tasks=("detect",))
