"""Wrong terms, sums, factors and gradients (spec sections 7, 8 and 8a)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from properties.selfcheck.planted_faults.assignment import formula, iou
from properties.selfcheck.planted_faults.fault import Fault, Patch, Result
from twinloss.backends import torch as loss
from twinloss.geometry import upright
from twinloss.terms import boxes as terms
from twinloss.terms import held as held_anchors


def factor(change: Any) -> tuple[Patch, ...]:
    """Multiplies terms and items by a factor, scalar or (3,); ``change`` takes the evaluation and the weights (H,)."""

    def make(sound: Any) -> Any:
        def loss(self: Any, held: Any) -> tuple[Tensor, Tensor]:
            terms, items = sound(self, held)
            factors = torch.as_tensor(change(self, held.weight.to(self.dtype)), dtype=terms.dtype).expand(3)
            return terms * factors, items * factors.detach()

        return loss

    return (Patch(loss.TorchEvaluation, "loss", make),)


def term(name: str, change: Any) -> tuple[Patch, ...]:
    """Replaces one term's function; ``change`` takes the sound function and its arguments."""
    holder = next(module for module in (loss, upright, held_anchors) if hasattr(module, name))
    return (Patch(holder, name, lambda sound: lambda *given: change(sound, *given)),)


def gradient(columns: str, change: Any) -> tuple[Patch, ...]:
    """Changes the gradient of the ``boxes`` or ``scores`` logits, and not the loss."""

    def make(sound: Any) -> Any:
        def prepared(logits: Tensor, *given: Any) -> Any:
            return sound(_through(logits, change), *given)

        return prepared

    return (Patch(held_anchors, "held_columns", make) if columns == "boxes" else Patch(loss, "classification_term", make),)


def _through(logits: Tensor, change: Any) -> Tensor:
    if logits.requires_grad:
        logits = logits.view_as(logits)
        logits.register_hook(change)
    return logits


def attached(values: Tensor, to: Tensor) -> Tensor:
    """Returns the values with a wrong gradient to other values."""
    # The added term is 0, but its gradient is not.
    return values * (1 + to.mean() - to.mean().detach())


def in_dtype(name: str, dtype: torch.dtype) -> tuple[Patch, ...]:
    """Rounds the result of one term to a dtype."""
    return term(name, lambda sound, *given: sound(*given).to(dtype).to(torch.float64 if given[0].dtype == torch.float64 else torch.float32))


def _lengths(evaluation: Any) -> int:
    return len(evaluation.call.boxes)


def _swapped_bins(sound: Any, logits: Tensor, target: Tensor) -> Any:
    lower = target.floor()
    return sound(logits, target)[0], sound(logits, (lower + 1 - (target - lower)).clamp(max=logits.shape[-1] - 1.01))[1]


def _detached_expectation(sound: Any, logits: Tensor, target: Tensor) -> Any:
    expected, entropy = sound(logits, target)
    return expected.detach(), entropy


def _detached_entropy(sound: Any, logits: Tensor, target: Tensor) -> Any:
    expected, entropy = sound(logits, target)
    return expected, entropy.detach()


def _weights_attached(sound: Any, distances: Tensor, centres: Tensor, corners: Tensor, weight: Tensor, *rest: Any) -> Any:
    return sound(distances, centres, corners, attached(weight, distances) if len(weight) else weight, *rest)


def _items_per_batch(result: Result, preds: Any, batch: Any) -> Result:
    return result[0], {name: item * len(preds["boxes"]) for name, item in result[1].items()}


def _third_without_clamp(sound: Any, centres: Tensor, corners: Tensor, bins: int, margin: float = 0.01) -> Tensor:
    left_top, right_bottom = centres - corners[:, :2], corners[:, 2:] - centres
    return torch.cat([left_top, right_bottom], 1).abs().clamp(max=bins - 1 - margin)


_WIDE = "Arithmetic is float32 (float64 for float64 logits)."
_S = "S = max(Σ t, 1) over the batch."
_CLASSIFICATION = "Σ over all B·A·C of BCE-with-logits(scores, target) / S."
_BOX = "Σ_F (1 − CIoU(pred_i, gt_i)) · w_i / S, both in grid units, prediction first."
_BINS = "A side's term is −log softmax at the lower bin weighted by (⌊d⌋ + 1 − d), plus that at the upper bin weighted by the rest."
_DISTANCE = "Distances are turned into pixels (× stride) and divided by W (left, right) or H (top, bottom); the target is not clamped."
_BATCH = "The three terms, each times its gain and times B."
_LOGGED = "The logged items are the three terms without B."
_FLOWS = "Gradients flow through boxes (box and distribution terms) and scores (classification term) only."
_CONSTANT = "α_c is a constant for differentiation."


def _unweighted_target(
    sound: Any, scores: Tensor, image: Tensor, label: Tensor, anchor: Tensor, weight: Tensor, factors: Tensor | None
) -> Tensor:
    """Leaves the class factors out of the targets' part of the term."""
    share = weight if factors is None else weight / factors[label].clamp(min=0.1)
    return sound(scores, image, label, anchor, share, factors)  # type: ignore[no-any-return]


def _without(values: Tensor, dim: int) -> Tensor:
    return values.index_fill(dim, torch.tensor([values.shape[dim] - 1]), 0.0)


def _with_boxes(scores: Tensor, image: Tensor) -> Tensor:
    mask = torch.ones(len(scores), 1, 1, dtype=torch.bool)
    if len(image):
        mask[:] = False
        mask[image] = True
    return torch.where(mask, scores, -100.0)


def _narrowed(preds: Any, of: torch.dtype, to: torch.dtype) -> Any:
    if preds["boxes"].dtype != of:
        return preds
    return {**preds, **{name: preds[name].to(to) for name in ("boxes", "scores")}}


def _rounded(preds: Any, of: torch.dtype, to: torch.dtype) -> Any:
    if preds["boxes"].dtype != of:
        return preds
    return {**preds, **{name: preds[name].to(to).to(of) for name in ("boxes", "scores")}}


def _scaled(preds: Any, of: torch.dtype, by: float) -> Any:
    if preds["boxes"].dtype != of:
        return preds
    return {**preds, "boxes": preds["boxes"] * by}


ENTRIES = (
    Fault("sum of weights at least 2", _S, "7", patches=factor(lambda e, w: w.sum().clamp(min=1) / w.sum().clamp(min=2))),
    Fault("sum of weights not at least 1", _S, "7", patches=factor(lambda e, w: w.sum().clamp(min=1) / w.sum() if w.sum() > 0 else 1.0)),
    Fault("number of anchors in place of the sum of weights", _S, "7", patches=factor(lambda e, w: w.sum().clamp(min=1) / max(len(w), 1))),
    Fault("sum of weights plus 1e-4", _S, "7", patches=factor(lambda e, w: w.sum().clamp(min=1) / (w.sum().clamp(min=1) + 1e-4))),
    Fault("no factor of images", _BATCH, "7", patches=factor(lambda e, w: 1 / _lengths(e))),
    Fault("images with boxes counted alone", _BATCH, "7", patches=factor(lambda e, w: max(len(e.truth.image.unique()), 1) / _lengths(e))),
    Fault("images padded to two", _BATCH, "7", patches=factor(lambda e, w: max(_lengths(e), 2) / _lengths(e))),
    Fault("items times images", _LOGGED, "7", after=_items_per_batch),
    Fault("terms in another order", "The loss is a vector (box, cls, distribution).", "7", after=lambda r, p, b: (r[0][[1, 0, 2]], r[1])),
    Fault("box term too large by 1e-4", _BOX, "7", patches=factor(lambda e, w: w.new_tensor([1.0001, 1, 1]))),
    Fault("classification term too large by 1e-4", _CLASSIFICATION, "7", patches=factor(lambda e, w: w.new_tensor([1, 1.0001, 1]))),
    Fault("third term too large by 1e-4", _BINS, "7", patches=factor(lambda e, w: w.new_tensor([1, 1, 1.0001]))),
    Fault(
        "no classification without boxes",
        "With no ground truth at all the classification term remains.",
        "7",
        patches=factor(lambda e, w: float(len(e.truth) > 0)),
    ),
    Fault(
        "classification of images with boxes alone",
        _CLASSIFICATION,
        "7",
        patches=term("classification_term", lambda sound, scores, image, *given: sound(_with_boxes(scores, image), image, *given)),
    ),
    Fault(
        "logits clamped to ±20",
        _CLASSIFICATION,
        "7",
        patches=term("classification_term", lambda sound, scores, *given: sound(scores.clamp(-20, 20), *given)),
    ),
    Fault(
        "targets of 1",
        "A held anchor's target score is t_i.",
        "5.7",
        patches=term("classification_term", lambda sound, *given: sound(*given[:4], torch.ones_like(given[4]), *given[5:])),
    ),
    Fault(
        "class weights at held anchors forgotten",
        "C factors multiply the classification term elementwise.",
        "13",
        patches=term("classification_term", _unweighted_target),
    ),
    Fault("IoU for CIoU in the box term", _BOX, "7", patches=(Patch(terms, "ciou", lambda _: iou),)),
    Fault("bins' shares swapped", _BINS, "7", patches=term("distributions", _swapped_bins)),
    Fault(
        "sides summed, not averaged",
        "The distribution term is the mean over the four sides.",
        "7",
        patches=factor(lambda e, w: w.new_tensor([1, 1, 4])),
    ),
    Fault(
        "negative target distances mirrored",
        "Target distances are clamped to [0, R − 1 − 0.01].",
        "7",
        patches=term("clamped_target", _third_without_clamp),
    ),
    Fault(
        "right and bottom alone clamped",
        "Target distances are clamped to [0, R − 1 − 0.01].",
        "7",
        patches=term("clamped_target", lambda sound, *given: sound(*given).clone().index_fill_(1, torch.tensor([0]), 0.0)),
    ),
    Fault(
        "distance in shares of width alone",
        _DISTANCE,
        "7",
        patches=term("distance_term", lambda sound, *given: sound(*given[:-1], (given[-1][1], given[-1][1]))),
    ),
    Fault(
        "width and height swapped in distances",
        _DISTANCE,
        "7",
        patches=term("distance_term", lambda sound, *given: sound(*given[:-1], given[-1][::-1])),
    ),
    Fault(
        "distance in cells",
        _DISTANCE,
        "7",
        patches=term("distance_term", lambda sound, d, c, k, strides, *rest: sound(d, c, k, torch.full_like(strides, 8), *rest)),
    ),
    Fault("classification summed in float16", _WIDE, "8a", patches=in_dtype("classification_term", torch.float16)),
    Fault("float64 computed in float32", _WIDE, "8a", before=lambda preds, batch: (_narrowed(preds, torch.float64, torch.float32), batch)),
    Fault("float16 computed in bfloat16", _WIDE, "8a", before=lambda preds, batch: (_rounded(preds, torch.float16, torch.bfloat16), batch)),
    Fault("bfloat16 off by one rounding", _WIDE, "8a", before=lambda preds, batch: (_scaled(preds, torch.bfloat16, 1 + 2**-8), batch)),
    Fault("float32 rounded to TF32", _WIDE, "8a", before=lambda preds, batch: (_rounded(preds, torch.float32, torch.float16), batch)),
    Fault("α_c differentiated", _CONSTANT, "8", patches=(Patch(terms, "ciou", formula(attached=True)),)),
    Fault("gradient through t", "Nothing flows through assignment, t, S or α_c.", "8", patches=term("box_term", _weights_attached)),
    Fault(
        "gradient through S",
        "Nothing flows through assignment, t, S or α_c.",
        "8",
        patches=factor(lambda e, w: attached(w.new_ones(3), e.call.scores.to(w.dtype))),
    ),
    Fault("no gradient of the box term", _FLOWS, "8", patches=term("distributions", _detached_expectation)),
    Fault("no gradient of the distribution term", _FLOWS, "8", patches=term("distributions", _detached_entropy)),
    Fault("gradient of boxes too large by 1e-4", _FLOWS, "8", patches=gradient("boxes", lambda g: g * 1.0001)),
    Fault("gradient of scores too large by 1e-4", _FLOWS, "8", patches=gradient("scores", lambda g: g * 1.0001)),
    Fault("gradient of boxes clipped at 0.5", _FLOWS, "8", patches=gradient("boxes", lambda g: g.clamp(-0.5, 0.5))),
    Fault("gradient of scores below 1e-4 lost", _FLOWS, "8", patches=gradient("scores", lambda g: torch.where(g.abs() < 1e-4, 0, g))),
    Fault("no gradient of the last class", _FLOWS, "8", patches=gradient("scores", lambda g: _without(g, 1))),
    Fault("no gradient of the last anchor", _FLOWS, "8", patches=gradient("scores", lambda g: _without(g, 2))),
    Fault("no gradient of boxes in the last image", _FLOWS, "8", patches=gradient("boxes", lambda g: _without(g, 0))),
    Fault("no gradient of the last bin", _FLOWS, "8", patches=gradient("boxes", lambda g: _without(g, 1))),
    Fault(
        "gradient missing where nothing is held",
        "Where nothing is held, the gradient of boxes is zero, not missing.",
        "8",
        patches=term("held_columns", lambda sound, logits, *given: sound(logits if len(given[0]) else logits.detach(), *given)),
    ),
)
