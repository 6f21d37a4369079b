"""Wrong definitions with one free number, which :mod:`oracle.comparison.fitted_numbers` fits."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from oracle.comparison.wrong_definitions import gradients
from oracle.comparison.wrong_definitions.assignment import metric_of_a_level
from oracle.comparison.wrong_definitions.inputs import where_bins, within
from oracle.comparison.wrong_definitions.overlaps import Formula
from oracle.definition.variant import Step, Variant


@dataclass(frozen=True)
class Family:
    """A variant with one free number.

    Attributes:
        name: with ``{}`` in place of the number.
        section: section of the specification that says it right.
        make: returns the fields of the variant for a number.
        right: the number with which it is the definition.
        step: a first step away from that.
    """

    name: str
    section: str
    make: Callable[[float], dict[str, Any]]
    right: float
    step: float

    def variant(self, number: float) -> Variant:
        """Returns the variant with a number."""
        return Variant(self.name.format(f"{number:.8g}"), self.section, **self.make(number))


def of_gradient(name: str, text: str, change: Callable[[Tensor, float], Tensor]) -> Family:
    """Returns the family that changes the gradient of one prediction, and not the loss; ``change`` takes gradient and number."""

    def make(number: float) -> dict[str, Any]:
        return {"before": gradients.of(name, lambda gradient, logits, spec: change(gradient, number))}

    return Family(f"the gradient of {name} {text.format()}", "8", make, 1.0, 0.1)


def _number(change: Callable[[Any, float], dict[str, Any]]) -> Callable[[float], dict[str, Any]]:
    return lambda number: {"numbers": lambda spec: change(spec, number)}


def _step(name: str, change: Callable[..., Any]) -> Callable[[float], dict[str, Any]]:
    """Changes the result of a step; ``change`` takes it and the number."""
    return lambda number: {"steps": {name: lambda exact, sound, *given: change(sound(*given), number)}}


def _formula(part: str, *places: str) -> Callable[[float], dict[str, Any]]:
    """Changes a part of the CIoU in the assigner, in the box term, or in both."""

    def make(number: float) -> dict[str, Any]:
        formula = replace(Formula(), **{part: number})  # type: ignore[arg-type]
        steps = {
            "overlap": lambda exact, sound, a, b: formula(a, b, exact.spec.ciou_eps).clamp(min=0),
            "term_overlap": lambda exact, sound, a, b: formula(a, b, exact.spec.ciou_eps),
        }
        return {"steps": {place: steps[place] for place in places}, "tasks": ("detect", "segment", "pose")}

    return make


def _scores(number: float) -> dict[str, Any]:
    return {"before": lambda preds, batch, spec: ({**preds, "scores": preds["scores"] * number}, batch)}


def _box_logits(number: float) -> dict[str, Any]:
    return {"before": lambda preds, batch, spec: ({**preds, "boxes": preds["boxes"] * number}, batch)}


def _anchors_of(stride: int) -> Any:
    """Moves the anchors of one stride."""
    return lambda grid, number: grid._replace(centres=torch.where((grid.strides == stride)[:, None], grid.centres + number, grid.centres))


def _but_candidates(move: Callable[[Any, float], Any], back: Callable[[float], float]) -> Callable[[float], dict[str, Any]]:
    """Moves the anchors in decoding and in the terms, and not where candidates are sought; ``back`` gives the number that undoes it."""

    def make(number: float) -> dict[str, Any]:
        return {
            "steps": {
                "grid": lambda exact, sound, preds: move(sound(preds), number),
                "border": lambda exact, sound, boxes, grid: sound(boxes, move(grid, back(number))),
            }
        }

    return make


def _longer(number: float) -> Step:
    return lambda exact, sound, logits: sound(logits) + number


def _in_the_assigner(step: Callable[[float], Step]) -> Callable[[float], dict[str, Any]]:
    """Replaces the predicted distances of the assigner."""
    return lambda number: {"steps": within("decode", step(number)), "tasks": ("detect", "segment", "pose")}


def _expectation(number: float) -> Step:
    return where_bins(_longer(number))


def _moved(grid: Any, number: float) -> Any:
    return grid._replace(centres=grid.centres + number)


def _anchors_of_the_last_level(grid: Any, number: float) -> Any:
    return _anchors_of(int(grid.strides.max()))(grid, number)


def _metric_of_a_level(which: str) -> Callable[[float], dict[str, Any]]:
    return lambda number: {"steps": {"pairs": metric_of_a_level(which, number)}}


def _last_stride(grid: Any, number: float) -> Any:
    return grid._replace(strides=torch.where(grid.strides == grid.strides.max(), grid.strides * number, grid.strides))


STRIDES = (4, 8, 16, 32, 64)
BOTH = ("overlap", "term_overlap")
BUT = ", but in the search for candidates"
FAMILIES: tuple[Family, ...] = (
    Family("α + {}", "5.3", _number(lambda spec, n: {"alpha": spec.alpha + n}), 0.0, 0.01),
    Family("α times {}", "5.3", _number(lambda spec, n: {"alpha": spec.alpha * n}), 1.0, 0.01),
    Family("β + {}", "5.3", _number(lambda spec, n: {"beta": spec.beta + n}), 0.0, 0.01),
    Family("β times {}", "5.3", _number(lambda spec, n: {"beta": spec.beta * n}), 1.0, 0.01),
    Family("ε_a times {}", "5", _number(lambda spec, n: {"assign_eps": spec.assign_eps * n}), 1.0, 10.0),
    Family("ε_c times {}", "6", _number(lambda spec, n: {"ciou_eps": spec.ciou_eps * n}), 1.0, 1.0),
    Family("target distances clamped to R - 1 - {}", "7", _number(lambda spec, n: {"clamp_margin": n}), 0.01, 0.01),
    Family("anchors off by {} cells", "2", _step("grid", lambda grid, n: grid._replace(centres=grid.centres + n)), 0.0, 1e-3),
    *(Family(f"anchors of stride {stride} off by {{}} cells", "2", _step("grid", _anchors_of(stride)), 0.0, 1e-3) for stride in STRIDES),
    Family(f"anchors off by {{}} cells{BUT}", "2", _but_candidates(_moved, operator.neg), 0.0, 1e-3),
    Family(
        f"anchors of the last level off by {{}} cells{BUT}",
        "2",
        _but_candidates(_anchors_of_the_last_level, operator.neg),
        0.0,
        1e-3,
    ),
    Family("predicted distances off by {} cells, in the assigner alone", "4", _in_the_assigner(_longer), 0.0, 1e-3),
    Family("anchors of the last level off by {} cells", "2", _step("grid", _anchors_of_the_last_level), 0.0, 1e-3),
    Family("strides times {}", "2", _step("grid", lambda grid, n: grid._replace(strides=grid.strides * n)), 1.0, 1e-3),
    Family("expectation off by {} bins", "4", lambda n: {"steps": {"distances": _expectation(n)}}, 0.0, 1e-3),
    Family("expectation off by {} bins, in the assigner alone", "4", _in_the_assigner(_expectation), 0.0, 1e-3),
    Family(f"the last level's stride times {{}}{BUT}", "2", _but_candidates(_last_stride, lambda n: 1 / n), 1.0, 1e-3),
    Family("the last level's stride times {}", "2", _step("grid", _last_stride), 1.0, 1e-3),
    Family("boxes in pixels times {}", "3", _step("boxes_in_pixels", lambda boxes, n: boxes * n), 1.0, 1e-3),
    Family("boxes in pixels off by {}", "3", _step("boxes_in_pixels", lambda boxes, n: boxes + n), 0.0, 1e-2),
    Family("predicted distances times {}", "4", _step("distances", lambda sides, n: sides * n), 1.0, 1e-3),
    Family("predicted distances off by {} cells", "4", _step("distances", lambda sides, n: sides + n), 0.0, 1e-3),
    Family("the assigner's overlap times {}", "5.2", _step("overlap", lambda overlap, n: overlap * n), 1.0, 1e-3),
    Family("the metric times {}", "5.3", _step("metric", lambda metric, n: metric * n), 1.0, 1e-3),
    *(
        Family(f"the metric of the {which} level times {{}}", "5.3", _metric_of_a_level(which), 1.0, 1e-2)
        for which in ("finest", "coarsest")
    ),
    Family("soft targets at most {}", "5.7", _step("soft_targets", lambda weight, n: weight.clamp(max=n)), 1.0, -0.05),
    Family("soft targets times {}", "5.7", _step("soft_targets", lambda weight, n: weight * n), 1.0, 1e-3),
    Family("S + {}", "7", _step("held", lambda held, n: held._replace(normaliser=held.normaliser + n)), 0.0, 1e-3),
    Family("S at least {}", "7", _step("held", lambda held, n: held._replace(normaliser=held.normaliser.clamp(min=n))), 1.0, 1.0),
    Family("aspect of {} v in the CIoU, in the assigner and in the box term", "6", _formula("aspect", *BOTH), 1.0, 1e-2),
    Family("aspect of {} v in the CIoU, in the assigner", "6", _formula("aspect", "overlap"), 1.0, 1e-2),
    Family("aspect of {} v in the CIoU, in the box term", "6", _formula("aspect", "term_overlap"), 1.0, 1e-2),
    Family("{} ρ²/c² in the CIoU, in the assigner and in the box term", "6", _formula("distance", *BOTH), 1.0, 1e-2),
    Family("{} ρ²/c² in the CIoU, in the assigner", "6", _formula("distance", "overlap"), 1.0, 1e-2),
    Family("{} ρ²/c² in the CIoU, in the box term", "6", _formula("distance", "term_overlap"), 1.0, 1e-2),
    Family("c² times {} in the CIoU, in the assigner and in the box term", "6", _formula("diagonal", *BOTH), 1.0, 1e-2),
    Family("class logits times {}", "1", _scores, 1.0, 1e-3),
    Family("box logits times {}", "1", _box_logits, 1.0, 1e-3),
)
