"""Which definition a release computes: the twin, told of the release, against what the release answered."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from oracle.case import Setting
from oracle.ladder.answers import Answers
from oracle.ladder.cases import Question
from oracle.ladder.changes import difference
from oracle.ladder.wire import Arrays
from twinloss import DetectionLoss, LossSpec
from twinloss.releases import switches

# Releases differ in what they round, not in what they define, within this, relative to the largest element: float32's rounding, also for
# float64 questions, since some releases keep ground truth in float32 throughout.
AGREEMENT = 2e-5


class Matcher:
    """Compares releases with twins; a twin's answer to a question is kept, for many releases share a definition."""

    def __init__(self) -> None:
        self._twins: dict[tuple[str, str], Arrays] = {}

    def __call__(self, answers: Answers, question: Question) -> dict[str, Any]:
        """``definition``, and whether its twin ``agrees`` or ``differs`` and by how much.

        Empty for what the twin is not asked: stages, bad input, half precision, two heads.
        """
        reply = answers.replies[question.name]
        precise = question.dtype in ("float32", "float64")
        if question.opening != "loss" or question.kind.startswith("input:") or not precise or reply.facts["outcome"] != "answered":
            return {"definition": named(answers.release), "twin": "", "twin_size": float("nan")}
        # A gradient that a release leaves out, as some do when there is no box, is one of zeros.
        mine = self._twin(question, switches(answers.release))
        size = max(difference(array, reply.arrays.get(name, array * 0)) for name, array in mine.items())
        return {"definition": named(answers.release), "twin": "agrees" if size <= AGREEMENT else "differs", "twin_size": size}

    def _twin(self, question: Question, how: dict[str, Any]) -> Arrays:
        key = (question.name, repr(how))
        if key not in self._twins:
            self._twins[key] = twin_answer(question, how)
        return self._twins[key]


def named(release: str) -> str:
    """The switches of a release's definition in one line."""
    return ", ".join(f"{name}={value!r}" for name, value in switches(release).items()) or "newest"


def twin_answer(question: Question, how: dict[str, Any]) -> Arrays:
    """Sum, items and gradients of the twin with an older definition's switches."""
    assert question.case is not None
    spec: LossSpec = dataclasses.replace(question.case.spec, **how)
    preds, batch = question.case.build(Setting("float64" if question.dtype == "float64" else "float32"))
    loss, items = DetectionLoss(spec, ties="reference")(preds, batch)
    loss.sum().backward()
    arrays = {"total": loss.sum().detach().reshape(1), "items": torch.stack(list(items.values()))}
    gradients = {f"gradient of {name}": preds[name].grad for name in ("boxes", "scores")}
    return {name: tensor.numpy() for name, tensor in (arrays | gradients).items()}
