"""Compares each release's answers with the twin that computes the definition of that release."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from oracle.cases.build import build
from oracle.cases.case import PAIRS, Setting
from oracle.ladder.answers import Answers
from oracle.ladder.changes import difference
from oracle.ladder.inside.messages import Arrays
from oracle.ladder.questions import PRECISE, Question
from oracle.ladder.rows import no_twin
from oracle.ladder.tasks import flow_of
from oracle.tools.options import DETECT
from twinloss import LossSpec
from twinloss.loss import LOSSES
from twinloss.release_definitions import number, refusal, switches

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
        task: of the questions.
    """

    first: str
    last: str
    kind: str
    dtypes: tuple[str, ...]
    why: str
    task: str = DETECT


DEPARTURES = (
    Departure("8.0.100", "8.0.100", "reg_max 1", ("float32", "float64"), "anchors that were picked with weight 0 count too"),
    # With ground truth rounded to float32 the twin, too, picks other anchors for these predictions.
    Departure(
        "8.3.44", "8.3.236", "predictions exact", ("float64",), "float32 ground truth decides between float64 predictions that are exact"
    ),
    # With corners rounded to float32 the twin, too, takes other pixels.
    Departure(
        "8.3.44",
        "8.3.236",
        "borders on whole pixels",
        ("float64",),
        "float32 ground truth decides on which side of a whole pixel a border lies",
        "segment",
    ),
    Departure(
        "8.1.0", "8.4.95", "fewer instance masks than images", PRECISE, "images beyond the number of instance masks are left out", "segment"
    ),
    Departure(
        "8.4.7",
        "8.4.104",
        "instance masks, semantic, an image without boxes",
        PRECISE,
        "class 0 covers an image without instance masks",
        "segment",
    ),
    Departure("8.4.1", "8.4.178", "predictions saturated", ("float32",), "deviations that float32 rounds to 0 have no floor", "pose"),
)


class Matcher:
    """Compares releases with twins, and keeps the twins' answers, since many releases share a definition."""

    def __init__(self) -> None:
        self._twins: dict[tuple[str, str], Arrays] = {}

    def __call__(self, answers: Answers, question: Question) -> dict[str, Any]:
        """Returns ``definition``, and whether its twin ``agrees`` or ``differs``, by how much, and why if that is known.

        Of a release that the twin refuses, ``twin`` is ``refused`` and the reason is given. The twin's columns are empty for stages, bad
        input, half precision and two heads, which are not compared.
        """
        reply, release = answers.replies[question.name], answers.release
        blank = no_twin(answers, question) | {"definition": definition_name(release, question.task)}
        precise = question.dtype in ("float32", "float64")
        if question.entry_point != "loss" or question.kind.startswith("input:") or not precise or reply.fields["outcome"] != "answered":
            return blank
        options = followed(release, question)
        if isinstance(options, str):
            return blank | {"twin": "refused", "twin_why": options}
        # Some releases compute no gradient on batches without boxes: it counts as zeros.
        mine = self._twin(question, options)
        size = max(difference(array, reply.arrays.get(name, array * 0)) for name, array in mine.items())
        agrees = size <= AGREEMENT
        why = "" if agrees else departure(release, question)
        return blank | {"twin": "agrees" if agrees else "differs", "twin_size": size, "twin_why": why}

    def _twin(self, question: Question, options: dict[str, Any]) -> Arrays:
        key = (question.name, repr(options))
        if key not in self._twins:
            self._twins[key] = twin_answer(question, options)
        return self._twins[key]


def followed(release: str, question: Question) -> dict[str, Any] | str:
    """Returns the options of a release's definition, or the reason why the twin refuses the question's definition for it."""
    assert question.case is not None
    numbers = dict(vars(question.case.spec))
    if reason := refusal(release, numbers, question.task):
        return reason
    try:
        return switches(release, question.task)
    except ValueError as error:
        return str(error)


def departure(release: str, question: Question) -> str:
    """Returns why a release is known to differ from the twin of its definition; an empty text where it is not."""
    asked = [d for d in DEPARTURES if (d.task, d.kind) == (question.task, question.kind) and question.dtype in d.dtypes]
    return next((d.why for d in asked if number(d.first) <= number(release) <= number(d.last)), "")


def definition_name(release: str, task: str = DETECT) -> str:
    """Returns the options of a release's definition in one line."""
    try:
        how = switches(release, task)
    except ValueError:
        return "refused"
    return ", ".join(f"{name}={value!r}" for name, value in how.items()) or "newest"


def twin_answer(question: Question, options: dict[str, Any]) -> Arrays:
    """Returns sum, items and gradients of the twin with the options of an older definition."""
    assert question.case is not None
    case, setting = question.case, Setting("float64" if question.dtype == "float64" else "float32")
    spec: LossSpec = dataclasses.replace(case.spec, **options)
    preds, batch = build(case, setting)
    flow = flow_of(spec)
    density: dict[str, Any] = {} if flow is None else {"flow": flow.to(setting.torch_dtype).log_prob}
    loss, items = LOSSES[spec.task](spec, ties="reference", **density)(preds, batch)
    loss.sum().backward()
    arrays = {"total": loss.sum().detach().reshape(1), "items": torch.stack(list(items.values()))}
    leaves = leaves_of(preds) | ({} if flow is None else {"flow": flow.matrix})
    gradients = {f"gradient of {name}": torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for name, leaf in leaves.items()}
    return {name: tensor.detach().numpy() for name, tensor in (arrays | gradients).items()}


def leaves_of(preds: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Returns the predictions by name, the two tensors of a pair by the name of each."""
    found: dict[str, torch.Tensor] = {}
    for name, value in preds.items():
        if name != "feats":
            found |= dict(zip(PAIRS[name], value, strict=True)) if isinstance(value, tuple) else {name: value}
    return found
