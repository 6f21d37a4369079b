"""Wrong definitions of the loss, with which :mod:`oracle.comparison.explain` explains a contender's difference."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from oracle.contract.contender import Batch, Criterion, LossAndItems, Preds
from oracle.definition.tasks import DEFINITIONS
from twinloss import LossSpec


class WrongDefinition(NamedTuple):
    """A fault in words, and a criterion in float64 that has it."""

    fault: str
    criterion: Criterion


class TransformedCriterion:
    """The definition in float64 with its inputs or its loss transformed."""

    leaf_dtype = torch.float64

    def __init__(
        self,
        exact: Criterion,
        before: Callable[[Any, Any], tuple[Any, Any]] | None = None,
        after: Callable[[Tensor, Any], Tensor] | None = None,
    ) -> None:
        self.exact, self.before, self.after = exact, before, after

    def __call__(self, preds: Preds, batch: Batch) -> LossAndItems:
        """Returns the transformed loss, and the items that follow from it."""
        if self.before is not None:
            preds, batch = self.before(preds, batch)
        loss, items = self.exact(preds, batch)
        loss = loss if self.after is None else self.after(loss, preds)
        images = preds["scores"].shape[0]
        return loss, {name: value / images for name, value in zip(items, loss.detach(), strict=True)}


def wrong_definitions(spec: LossSpec, flow: nn.Module | None = None) -> Iterator[WrongDefinition]:
    """Yields the wrong definitions that differ from this definition: of any task, but wrong in what all share.

    Args:
        spec: the definition.
        flow: the case's flow, where the definition has a likelihood term.
    """
    options: dict[str, Any] = {} if flow is None else {"flow": flow}
    exact: Callable[..., Criterion] = partial(DEFINITIONS[spec.task], **options)
    for fault, numbers in _other_numbers(spec):
        changed = {name: value for name, value in numbers.items() if getattr(spec, name) != value}
        if changed:
            yield WrongDefinition(fault, exact(dataclasses.replace(spec, **changed)))
    yield WrongDefinition("conflicts settled among the boxes that picked the anchor alone [5.5]", exact(spec, conflicts="pickers"))
    yield WrongDefinition(
        "no factor of the number of images [7]",
        TransformedCriterion(exact(spec), after=lambda loss, preds: loss / preds["scores"].shape[0]),
    )
    yield WrongDefinition(
        "the factor of the number of images applied twice [7]",
        TransformedCriterion(exact(spec), after=lambda loss, preds: loss * preds["scores"].shape[0]),
    )
    yield WrongDefinition("image width and height exchanged [3]", TransformedCriterion(exact(spec), before=_exchanged))
    yield WrongDefinition("a box's width and height exchanged [3]", TransformedCriterion(exact(spec), before=_turned))
    if spec.task != "segment":  # whose index maps would name boxes that are gone
        yield WrongDefinition("the first image's boxes alone [3]", TransformedCriterion(exact(spec), before=_first_image))
    yield WrongDefinition("class c taken as c + 1, or c - 1 for the last [1]", TransformedCriterion(exact(spec), before=_next_class))
    yield WrongDefinition("every box taken as class 0 [1]", TransformedCriterion(exact(spec), before=_class_zero))


def _other_numbers(spec: LossSpec) -> Iterator[tuple[str, dict[str, Any]]]:
    k = spec.topk
    for count in (k - 1, k + 1, 13 if k == 10 else 10):
        if count >= 1:
            yield f"K = {count} instead of {k} [5.4]", {"topk": count}
    yield "no second cut [5.6]", {"topk2": None}
    for name, symbol, section in (("alpha", "α", "5.3"), ("beta", "β", "5.3")):
        value = getattr(spec, name)
        for other in (1.0, value / 2, value * 2, value - 1, value + 1):
            if other > 0:
                yield f"{symbol} = {other:g} instead of {value:g} [{section}]", {name: other}
    yield "α and β exchanged [5.3]", {"alpha": spec.beta, "beta": spec.alpha}
    for name, symbol, section in (("assign_eps", "ε_a", "5"), ("ciou_eps", "ε_c", "6")):
        for other in (1e-5, 1e-7, 1e-9):
            yield f"{symbol} = {other:g} instead of {getattr(spec, name):g} [{section}]", {name: other}
    for other in (1e-6, 1e-3, 0.1, 1.0):
        yield f"distances clamped to R - 1 - {other:g} instead of R - 1 - {spec.clamp_margin:g} [7]", {"clamp_margin": other}
    yield "short sides not lengthened [5.1]", {"lengthen": "never"}
    yield "sides lengthened below the first level's stride alone [5.1]", {"lengthen": "first"}
    yield "no distance term for R = 1 [7]", {"distance_term": False}
    yield "every anchor weighed by the sum of the soft targets [7]", {"anchor_weights": "sum"}
    yield "class weights ignored [13]", {"class_weights": None}
    box, classification, third, *further = spec.gains
    yield "gains left out [7]", {"gains": (1.0,) * len(spec.gains)}
    yield "gains of the classification and the box term exchanged [7]", {"gains": (classification, box, third, *further)}
    yield "gains of the box and the distribution term exchanged [7]", {"gains": (third, classification, box, *further)}


def _exchanged(preds: Any, batch: Any) -> tuple[Any, Any]:
    """Scales the boxes as if the image's width and height were exchanged."""
    strides = preds["feats"][0].shape
    ratio = strides[2] / strides[3]
    boxes = batch["bboxes"].clone()
    boxes[:, :4] *= boxes.new_tensor([ratio, 1 / ratio, ratio, 1 / ratio])
    return preds, {**batch, "bboxes": boxes}


def _turned(preds: Any, batch: Any) -> tuple[Any, Any]:
    return preds, {**batch, "bboxes": batch["bboxes"][:, [0, 1, 3, 2, *range(4, batch["bboxes"].shape[1])]]}


def _first_image(preds: Any, batch: Any) -> tuple[Any, Any]:
    first = batch["batch_idx"].reshape(-1) == 0
    return preds, {name: value[first] for name, value in batch.items()}


def _next_class(preds: Any, batch: Any) -> tuple[Any, Any]:
    last = preds["scores"].shape[1] - 1
    labels = batch["cls"]
    return preds, {**batch, "cls": torch.where(labels < last, labels + 1, (labels - 1).clamp(min=0))}


def _class_zero(preds: Any, batch: Any) -> tuple[Any, Any]:
    return preds, {**batch, "cls": torch.zeros_like(batch["cls"])}
