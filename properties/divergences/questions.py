"""The questions of the register. Each takes a criterion and a batch, and returns a short text that is the same on every machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from oracle.cases.case import Inputs, Setting
from oracle.contract.run import Outcome, fresh_leaves, in_setting, run_assign, run_loss

Question = Callable[[Any, Inputs, Setting], str]

TERMS = ("box", "cls", "third")


def holders(criterion: Any, inputs: Inputs, setting: Setting) -> str:
    """Returns pairs anchor→row of the held anchors with a positive weight."""
    held = run_assign(criterion, inputs, setting)
    several = len(inputs.preds["boxes"]) > 1
    rows = sorted(zip(held.image.tolist(), held.anchor.tolist(), held.box.tolist(), strict=True))
    found = [(f"{image}/" if several else "") + f"{anchor}→{box}" for image, anchor, box in rows]
    return ", ".join(found) or "nothing"


def rows_held(criterion: Any, inputs: Inputs, setting: Setting) -> str:
    """Returns the rows of the batch that an anchor holds, with the image."""
    held = run_assign(criterion, inputs, setting)
    rows = sorted(set(zip(held.box.tolist(), held.image.tolist(), strict=True)))
    return ", ".join(f"row {row} in image {image}" for row, image in rows) or "no row"


def weightless(criterion: Any, inputs: Inputs, setting: Setting) -> str:
    """Returns pairs anchor→row of the held anchors with weight 0."""
    held = run_assign(criterion, inputs, setting)
    recorder = getattr(criterion, "recorder", None)
    if recorder is None:
        found = zip(held.anchor[held.weight == 0].tolist(), held.box[held.weight == 0].tolist(), strict=True)
        return ", ".join(f"{anchor}→{box}" for anchor, box in found) or "none"
    last = recorder.last
    image, anchor = (last.foreground.bool() & (last.target_scores.amax(2) == 0)).nonzero(as_tuple=True)
    found = zip(anchor.tolist(), last.index[image, anchor].tolist(), strict=True)
    return ", ".join(f"{one}→{box}" for one, box in found) or "none"


def non_finite(criterion: Any, inputs: Inputs, setting: Setting) -> str:
    """Returns the terms and gradients that are not finite."""
    outcome = _outcome(criterion, inputs, setting)
    parts = [f"{name} {_name_of(value)}" for name, value in zip(_names(criterion), outcome.loss, strict=True) if not value.isfinite()]
    parts += [f"gradient of {name} not finite" for name, gradient in outcome.gradients.items() if not gradient.isfinite().all()]
    return ", ".join(parts) or "all finite"


def loss(criterion: Any, inputs: Inputs, setting: Setting) -> str:
    """Returns every term with three significant digits."""
    return ", ".join(_terms(criterion, inputs, setting))


def mask_terms(criterion: Any, inputs: Inputs, setting: Setting) -> str:
    """Returns the mask term and, if there is one, the semantic term, with three significant digits."""
    wanted = ("mask", "semantic") if isinstance(inputs.preds["proto"], tuple) else ("mask",)
    return ", ".join(text for text in _terms(criterion, inputs, setting) if text.split()[0] in wanted)


def keypoint_terms(criterion: Any, inputs: Inputs, setting: Setting) -> str:
    """Returns location, visibility and, if there is one, likelihood term, with three significant digits."""
    return ", ".join(text for text in _terms(criterion, inputs, setting) if text.split()[0] in ("pose", "kobj", "likelihood"))


def keypoint_gradients(criterion: Any, inputs: Inputs, setting: Setting) -> str:
    """Returns the likelihood term's sign, and which way descent moves the raw deviation."""
    outcome = _outcome(criterion, inputs, setting)
    gradient, value = outcome.gradients["kpts_sigma"], float(outcome.loss[-1])
    way = "smaller" if (gradient > 0).any() else "larger" if (gradient < 0).any() else "not"
    return f"the term is {'positive' if value > 0 else 'zero' if value == 0 else 'negative'}, the deviation changes: {way}"


def density_share(criterion: Any, inputs: Inputs, setting: Setting) -> str:
    """Returns how often the flow's log-density is subtracted for each keypoint, by the gradient of a scale of it."""
    flow = getattr(criterion.flow, "__self__", criterion.flow)
    scale = torch.nn.Parameter(torch.ones((), dtype=torch.float64))
    sound: Callable[[Tensor], Tensor] = flow.log_prob
    seen: list[Tensor] = []

    def scaled(errors: Tensor) -> Tensor:
        seen.append(sound(errors).detach().double())
        return sound(errors) * scale.to(errors.dtype)

    flow.log_prob = scaled
    if hasattr(criterion.flow, "__self__"):
        criterion.flow = scaled
    preds, batch = fresh_leaves(criterion, inputs)
    with in_setting(setting, criterion):
        loss = criterion(preds, batch)[0]
    (slope,) = torch.autograd.grad(loss[-1], scale)
    return f"{-float(slope) / float(seen[0].mean()):.3g} times"


def last_centre(criterion: Any, inputs: Inputs, setting: Setting) -> str:
    """Returns the centre of the last anchor in grid units."""
    return _numbers(_stage(criterion, inputs, setting, "anchors")[0][-1])


def one_term(name: str) -> Question:
    """Returns the question for one term, with three significant digits."""

    def question(criterion: Any, inputs: Inputs, setting: Setting) -> str:
        return next(text for text in _terms(criterion, inputs, setting) if text.split()[0] == name)

    return question


def corners(criterion: Any, inputs: Inputs, setting: Setting) -> str:
    """Returns the pixel corners of the prepared ground truth."""
    found = _stage(criterion, inputs, setting, "targets").corners
    return "; ".join(map(_numbers, found)) or "no box"


def candidates(criterion: Any, inputs: Inputs, setting: Setting) -> str:
    """Returns the number of candidate pairs."""
    return f"{len(_stage(criterion, inputs, setting, 'metrics').row)} candidates"


def candidates_with_wide_border(criterion: Any, inputs: Inputs, setting: Setting) -> str:
    """Returns the number of candidate pairs with an epsilon of 1 px, set in the definition or in the reference's assigner."""
    if hasattr(criterion, "recorder"):
        run_assign(criterion, inputs, setting)
        criterion.recorder.assigner.eps = 1.0
    else:
        criterion.spec = replace(criterion.spec, assign_eps=1.0)
    return candidates(criterion, inputs, setting)


def learnt_classes(criterion: Any, inputs: Inputs, setting: Setting) -> str:
    """Returns the classes whose score some anchor learns to raise."""
    gradient = _outcome(criterion, inputs, setting).gradients["scores"]
    return ", ".join(f"class {label}" for label in (gradient < 0).any(2).any(0).nonzero().flatten().tolist()) or "no class"


def learnt_images(criterion: Any, inputs: Inputs, setting: Setting) -> str:
    """Returns the images in which some anchor learns a box."""
    gradient = _outcome(criterion, inputs, setting).gradients["boxes"]
    return ", ".join(f"image {image}" for image in (gradient != 0).any(2).any(1).nonzero().flatten().tolist()) or "no image"


def _outcome(criterion: Any, inputs: Inputs, setting: Setting) -> Outcome:
    return run_loss(criterion, inputs, setting, terms=criterion.spec.terms)


def _names(criterion: Any) -> tuple[str, ...]:
    return TERMS if criterion.spec.task == "detect" else criterion.spec.terms


def _terms(criterion: Any, inputs: Inputs, setting: Setting) -> list[str]:
    values = _outcome(criterion, inputs, setting).loss.tolist()
    return [f"{name} {value:.3g}" for name, value in zip(_names(criterion), values, strict=True)]


def _stage(criterion: Any, inputs: Inputs, setting: Setting, name: str) -> Any:
    preds, batch = fresh_leaves(criterion, inputs)
    with in_setting(setting, criterion), torch.no_grad():
        method = getattr(criterion, name)
        return method(preds) if name in ("anchors", "decode") else method(preds, batch)


def _name_of(value: Tensor) -> str:
    return "NaN" if value.isnan() else "infinite"


def _numbers(values: Tensor) -> str:
    return "(" + ", ".join(f"{value:.10g}" for value in values.tolist()) + ")"
