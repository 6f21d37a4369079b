"""Compares each release's answers with the twin that computes the definition of that release."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch

from oracle.cases.build import build
from oracle.cases.case import Setting
from oracle.ladder.answers import Answers
from oracle.ladder.changes import difference
from oracle.ladder.inside.messages import Arrays
from oracle.ladder.questions import Question
from oracle.ladder.rows import no_twin
from twinloss import DetectionLoss, LossSpec
from twinloss.release_definitions import number, switches

# Tolerance relative to the largest element: the rounding of float32, for float64 questions as well, since some releases keep ground truth
# in float32.
AGREEMENT = 2e-5


@dataclass(frozen=True)
class Departure:
    """A behaviour of some releases that no definition of the twin follows, found by experiment.

    Attributes:
        first, last: first and last release with it.
        kind, dtypes: kind and dtypes of the questions that show it.
        why: description.
    """

    first: str
    last: str
    kind: str
    dtypes: tuple[str, ...]
    why: str


DEPARTURES = (
    Departure("8.0.100", "8.0.100", "reg_max 1", ("float32", "float64"), "anchors that were picked with weight 0 count too"),
    # With ground truth rounded to float32 the twin, too, picks other anchors for these predictions.
    Departure(
        "8.3.44", "8.3.236", "predictions exact", ("float64",), "float32 ground truth decides between float64 predictions that are exact"
    ),
)


class Matcher:
    """Compares releases with twins, and keeps the twins' answers, since many releases share a definition."""

    def __init__(self) -> None:
        self._twins: dict[tuple[str, str], Arrays] = {}

    def __call__(self, answers: Answers, question: Question) -> dict[str, Any]:
        """Returns ``definition``, and whether its twin ``agrees`` or ``differs``, by how much, and why if that is known.

        The twin's columns are empty for stages, invalid input, half precision and two heads, which are not compared.
        """
        reply = answers.replies[question.name]
        precise = question.dtype in ("float32", "float64")
        if question.entry_point != "loss" or question.kind.startswith("input:") or not precise or reply.fields["outcome"] != "answered":
            return no_twin(answers, question) | {"definition": definition_name(answers.release)}
        # Some releases compute no gradient on batches without boxes: it counts as zeros.
        mine = self._twin(question, switches(answers.release))
        size = max(difference(array, reply.arrays.get(name, array * 0)) for name, array in mine.items())
        agrees = size <= AGREEMENT
        why = "" if agrees else departure(answers.release, question)
        return {
            "definition": definition_name(answers.release),
            "twin": "agrees" if agrees else "differs",
            "twin_size": size,
            "twin_why": why,
        }

    def _twin(self, question: Question, options: dict[str, Any]) -> Arrays:
        key = (question.name, repr(options))
        if key not in self._twins:
            self._twins[key] = twin_answer(question, options)
        return self._twins[key]


def departure(release: str, question: Question) -> str:
    """Returns why a release is known to differ from the twin of its definition; an empty text where it is not."""
    asked = [d for d in DEPARTURES if d.kind == question.kind and question.dtype in d.dtypes]
    return next((d.why for d in asked if number(d.first) <= number(release) <= number(d.last)), "")


def definition_name(release: str) -> str:
    """Returns the options of a release's definition in one line."""
    return ", ".join(f"{name}={value!r}" for name, value in switches(release).items()) or "newest"


def twin_answer(question: Question, options: dict[str, Any]) -> Arrays:
    """Returns sum, items and gradients of the twin with the options of an older definition."""
    assert question.case is not None
    spec: LossSpec = dataclasses.replace(question.case.spec, **options)
    preds, batch = build(question.case, Setting("float64" if question.dtype == "float64" else "float32"))
    loss, items = DetectionLoss(spec, ties="reference")(preds, batch)
    loss.sum().backward()
    arrays = {"total": loss.sum().detach().reshape(1), "items": torch.stack(list(items.values()))}
    gradients = {f"gradient of {name}": preds[name].grad for name in ("boxes", "scores")}
    return {name: tensor.numpy() for name, tensor in (arrays | gradients).items()}
