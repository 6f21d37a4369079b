"""Replays a row: prints the answers of releases to one question."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from oracle.ladder.answers import AnswerCache, Answers
from oracle.ladder.changes import compare_one
from oracle.ladder.questions import Question
from oracle.ladder.rows import case_line


def show(releases: Sequence[str], name: str, answers_of: AnswerCache, questions: Sequence[Question]) -> int:
    """Print each release's answer, and the verdict on it and the previous one; returns 2 when there is no such question, else 0."""
    question = next((question for question in questions if question.name == name), None)
    if question is None:
        print(f"there is no question {name!r}; the column 'question' of the rows has their names")
        return 2
    print(f"{question.name}\n{case_line(question.case, shown=99)}")
    before: Answers | None = None
    for release in releases:
        answers = answers_of(release)
        print(f"\n{release}: {describe(answers, question)}")
        if answers.asked and before is not None:
            change = compare_one(before, answers, question)
            print(f"  against {before.release}: {change.verdict} {change.array} {change.size:.3g} {change.message}")
        before = answers if answers.asked else before
    return 0


def describe(answers: Answers, question: Question) -> str:
    """Returns one release's answer as text, one line for each array."""
    if not answers.asked:
        return answers.summary
    reply = answers.replies[question.name]
    words = [str(reply.fields["outcome"]), str(reply.fields.get("message", ""))]
    fields = [f"  {name}: {value}" for name, value in reply.fields.get("interface", {}).items()]
    return "\n".join([" ".join(words).strip(), *fields, *(f"  {name}: {brief(array)}" for name, array in reply.arrays.items())])


def brief(array: NDArray[np.generic]) -> str:
    """Returns a small array as text; for a large one its shape, sums and number of non-zeros."""
    if array.size <= 8:
        return np.array2string(array, precision=10)
    values = array.astype(np.float64)
    return f"{array.dtype} {array.shape}, sum {values.sum():.10g}, of squares {(values**2).sum():.10g}, not zero {np.count_nonzero(values)}"
