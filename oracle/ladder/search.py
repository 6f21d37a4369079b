"""Finds the first release of each change by halving the steps between releases that differ."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Protocol

from oracle.ladder.answers import Answers
from oracle.ladder.changes import compare
from oracle.ladder.questions import Question


class Ask(Protocol):
    """A function that returns a release's answers to all questions, or to those of some names."""

    def __call__(self, release: str, /, names: Collection[str] | None = None) -> Answers:
        """Ask the release, or return its earlier answers."""
        ...


AnswersOf = Callable[[str], Answers]


def different(before: Answers, after: Answers, questions: Sequence[Question]) -> list[Question]:
    """Returns the questions on which two releases differ by more than rounding."""
    return [change.question for change in compare(before, after, questions) if not change.quiet]


def first_changes(releases: Sequence[str], ask: Ask, questions: Sequence[Question]) -> Iterator[tuple[str, str]]:
    """Yields adjacent pairs of releases between which an answer changed, found by halving; only what is needed is asked.

    Answers that are equal at both ends of a step count as unchanged within it: a change that was later undone is found only if every
    release is asked. Releases that cannot be asked are skipped; a pair then names the nearest ones that can.
    """
    usable = [release for release in (releases[0], releases[-1]) if ask(release, names=_names(questions)).asked]
    if len(releases) > 1 and len(usable) > 1:
        yield from _halve(list(releases), ask, questions)


def _halve(releases: list[str], ask: Ask, questions: Sequence[Question]) -> Iterator[tuple[str, str]]:
    first, last = (ask(release, names=_names(questions)) for release in (releases[0], releases[-1]))
    open_questions = different(first, last, questions)
    if not open_questions:
        return
    middle = _usable_middle(releases, ask, _names(open_questions))
    if middle is None:
        yield releases[0], releases[-1]
        return
    yield from _halve(releases[: middle + 1], ask, open_questions)
    yield from _halve(releases[middle:], ask, open_questions)


def _names(questions: Sequence[Question]) -> frozenset[str]:
    return frozenset(question.name for question in questions)


def _usable_middle(releases: list[str], ask: Ask, names: frozenset[str]) -> int | None:
    """Returns the index of the release nearest to the middle, excluding the ends, that can be asked; ``None`` if there is none."""
    inner = sorted(range(1, len(releases) - 1), key=lambda index: abs(2 * index - len(releases) + 1))
    return next((index for index in inner if ask(releases[index], names=names).asked), None)
