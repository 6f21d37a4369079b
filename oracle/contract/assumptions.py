"""Assumptions of a candidate about its batches, by name. A batch that breaks one is left out, and reported as not asked."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from oracle.cases.build import build
from oracle.cases.case import Case, Inputs, Setting
from oracle.contract.contender import Contender
from twinloss import LossSpec

Holds = Callable[[LossSpec, Inputs, Setting], bool]
NOT_ASKED = "not asked"
"""Beginning of the reason of a batch that an assumption leaves out."""


@dataclass(frozen=True)
class Assumption:
    """One assumption.

    Attributes:
        name: value for the option ``--assume``.
        what: the assumption as a clause of a sentence.
        holds: whether a batch of a definition in a setting satisfies it.
    """

    name: str
    what: str
    holds: Holds


class AssumptionError(ValueError):
    """No assumption has this name; the message lists all names."""


def _enough_anchors(spec: LossSpec, inputs: Inputs, _: Setting) -> bool:
    return int(inputs.preds["boxes"].shape[2]) >= max(spec.topk, spec.topk2 or 0)


def _strides_divide(spec: LossSpec, inputs: Inputs, _: Setting) -> bool:
    sides = [[length * stride for length in level.shape[-2:]] for level, stride in zip(inputs.preds["feats"], spec.strides, strict=True)]
    return all(side == sides[0] for side in sides)


def _in_image(_: LossSpec, inputs: Inputs, __: Setting) -> bool:
    centre, size = inputs.batch["bboxes"].double().split(2, dim=1)
    corners = torch.cat([centre - size / 2, centre + size / 2], dim=1)
    return bool((size > 0).all() and (corners >= 0).all() and (corners <= 1).all())


def _no_empty_image(_: LossSpec, inputs: Inputs, __: Setting) -> bool:
    return len(inputs.batch["batch_idx"].unique()) == len(inputs.preds["boxes"])


def _in_dtypes(*dtypes: str) -> Holds:
    return lambda _, __, setting: setting.dtype in dtypes and setting.autocast is None


def _usual(*names: str) -> Holds:
    standard = LossSpec(num_classes=1)
    return lambda spec, _, __: all(getattr(spec, name) == getattr(standard, name) for name in names)


ASSUMPTIONS: dict[str, Assumption] = {
    name: Assumption(name, what, holds)
    for name, what, holds in (
        ("anchors>=K", "a batch has at least topk (and topk2) anchors an image", _enough_anchors),
        ("no-topk2", "there is no second cut, topk2", lambda spec, _, __: spec.topk2 is None),
        ("no-class-weights", "there are no class weights", lambda spec, _, __: spec.class_weights is None),
        ("reg-max>1", "sides are predicted as distributions", lambda spec, _, __: spec.reg_max > 1),
        ("reg-max=1", "sides are predicted as distances", lambda spec, _, __: spec.reg_max == 1),
        ("strides-divide", "every stride divides the image's sides", _strides_divide),
        ("no-empty-batch", "a batch has a box", lambda _, inputs, __: len(inputs.batch["bboxes"]) > 0),
        ("no-empty-image", "every image has a box", _no_empty_image),
        ("boxes-in-image", "boxes lie inside their images and have positive sides", _in_image),
        ("several-classes", "there is more than one class", lambda spec, _, __: spec.num_classes > 1),
        ("several-levels", "there is more than one level", lambda spec, _, __: len(spec.strides) > 1),
        ("usual-strides", "strides are 8, 16, 32", _usual("strides")),
        ("usual-topk", "topk is 10", _usual("topk")),
        ("usual-powers", "alpha is 0.5 and beta is 6", _usual("alpha", "beta")),
        ("usual-gains", "gains are 7.5, 0.5, 1.5", _usual("gains")),
        ("no-autocast", "there is no surrounding autocast", lambda _, __, setting: setting.autocast is None),
        ("float32", "logits are float32 and there is no autocast", _in_dtypes("float32")),
        ("no-half", "logits are float32 or float64 and there is no autocast", _in_dtypes("float32", "float64")),
    )
}  # fmt: skip


def find_assumptions(names: Iterable[str]) -> list[Assumption]:
    """Returns the assumptions of these names, without repetition; a name may be several, separated by commas.

    Raises:
        AssumptionError: no assumption has one of the names.
    """
    asked = dict.fromkeys(part.strip() for name in names for part in name.split(",") if part.strip())
    for name in asked:
        if name not in ASSUMPTIONS:
            close = difflib.get_close_matches(name, ASSUMPTIONS, n=1, cutoff=0.5)
            hint = f" Did you mean {close[0]!r}? Quote it where a shell reads it." if close else ""
            raise AssumptionError(f"there is no assumption {name!r}; choose from {', '.join(ASSUMPTIONS)}.{hint}")
    return [ASSUMPTIONS[name] for name in asked]


def with_assumptions(contender: Contender, assumptions: Sequence[Assumption]) -> Contender:
    """Returns the contender with a ``declines`` that also declines batches that break an assumption."""
    own = contender.declines

    def declines(spec: LossSpec, inputs: Inputs, setting: Setting) -> str | None:
        for assumption in assumptions:
            if not assumption.holds(spec, inputs, setting):
                return f"{NOT_ASKED}, by --assume {assumption.name}: that {assumption.what}"
        return own(spec, inputs, setting) if own else None

    return replace(contender, declines=declines) if assumptions else contender


def broken_assumptions(case: Case, setting: Setting) -> set[str]:
    """Returns the names of the assumptions that a batch breaks."""
    inputs = build(case, Setting(setting.dtype, setting.autocast))
    return {one.name for one in ASSUMPTIONS.values() if not one.holds(case.spec, inputs, setting)}
