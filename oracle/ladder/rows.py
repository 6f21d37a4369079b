"""The ladder's rows: one for each release and question, compared with the previous release."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pandas as pd
import torch

from oracle.cases.case import Case
from oracle.ladder.answers import Answers
from oracle.ladder.changes import Change, compare
from oracle.ladder.questions import Question
from oracle.ladder.search import AnswersOf

UNASKED = "release"
Match = Callable[[Answers, Question], dict[str, Any]]


def no_twin(_: Answers, __: Question) -> dict[str, Any]:
    """Returns empty columns, for questions that are not compared with a twin."""
    return {"definition": "", "twin": "", "twin_size": float("nan"), "twin_why": ""}


def rows(
    releases: Sequence[str], published: Sequence[str], ask: AnswersOf, questions: Sequence[Question], match: Match = no_twin
) -> pd.DataFrame:
    """Returns a frame of all comparisons; a release that could not be asked has one row, of kind ``release``, with the reason."""
    made = {"torch": torch.__version__, "python": platform.python_version()}
    return pd.DataFrame([made | row for row in _rows(releases, published, ask, list(questions), match)])


def _rows(
    releases: Sequence[str], published: Sequence[str], ask: AnswersOf, questions: list[Question], match: Match
) -> Iterator[dict[str, Any]]:
    before: Answers | None = None
    for release in releases:
        answers = ask(release)
        if not answers.asked:
            yield blank(release) | {"outcome": answers.greeting["outcome"], "message": answers.greeting.get("message", "")}
            continue
        changes = compare(before, answers, questions) if before else [Change("", release, question, "first") for question in questions]
        fields = {"era": answers.greeting["era"], "adjacent": int(bool(before) and _adjacent(before, release, published))}
        for change in changes:
            yield fields | _row(change, answers) | match(answers, change.question)
        before = answers


def _adjacent(before: Answers | None, release: str, published: Sequence[str]) -> bool:
    known = list(published)
    return before is not None and release in known and known.index(release) > 0 and known[known.index(release) - 1] == before.release


def blank(release: str) -> dict[str, Any]:
    """Returns the columns of a release that could not be asked."""
    columns = ("task", "before", "era", "question", "opening", "dtype", "verdict", "array", "case", "definition", "twin", "twin_why")
    numbers = {"adjacent": 0, "size": float("nan"), "twin_size": float("nan"), "boxes": 0, "images": 0, "anchors": 0}
    return {"release": release, "kind": UNASKED, **dict.fromkeys(columns, ""), **numbers}


def _row(change: Change, answers: Answers) -> dict[str, Any]:
    question = change.question
    boxes, images, anchors = question.weight
    reply = answers.replies[question.name]
    return {
        "release": change.release,
        "before": change.before,
        "task": question.task,
        "kind": question.kind,
        "question": question.name,
        "opening": question.entry_point,
        "dtype": question.dtype,
        "outcome": reply.fields["outcome"],
        "verdict": change.verdict,
        "array": change.array,
        "size": change.size,
        "message": change.message or _message(answers, question),
        "boxes": boxes,
        "images": images,
        "anchors": anchors,
        "case": case_line(question.case),
    }


def _message(answers: Answers, question: Question) -> str:
    """Returns the text of the release's exception, or of its interface."""
    fields = answers.replies[question.name].fields
    if question.entry_point == "interface" and fields["outcome"] == "answered":
        return "; ".join(f"{name}: {value}" for name, value in fields["interface"].items())
    return str(fields.get("message", ""))


def case_line(case: Case | None, shown: int = 3) -> str:
    """Returns a case in one line: unusual fields of its definition, its size, its first boxes."""
    if case is None:
        return ""
    spec, usual = case.spec, type(case.spec)(num_classes=case.spec.num_classes)
    differs = [f.name for f in dataclasses.fields(spec) if getattr(spec, f.name) != getattr(usual, f.name)]
    unusual = "".join(f", {name} {getattr(spec, name)}" for name in differs)
    boxes = [f"image {b.image} class {b.label} at {b.cx:g}, {b.cy:g} of {b.w:g} x {b.h:g}" for b in case.boxes[:shown]]
    more = [f"{len(case.boxes) - shown} more"] if len(case.boxes) > shown else []
    height, width = case.image_size
    head = f"{case.batch_size} x {height} x {width} px, predictions {case.prediction.kind} {case.prediction.seed}{unusual}"
    return f"{head}: {'; '.join([*boxes, *more]) or 'no boxes'}"
