"""When something changed: climbing from release to release, and halving the steps in which something did."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Protocol

from oracle.ladder.answers import Answers
from oracle.ladder.cases import Question
from oracle.ladder.changes import Change, compare


class Ask(Protocol):
    """Gives a release's answers, to all questions or to those of some names."""

    def __call__(self, release: str, /, names: Collection[str] | None = None) -> Answers:
        """Ask, or remember."""
        ...


Asked = Callable[[str], Answers]
Differs = Callable[[Answers, Answers], bool]


def differs(questions: Sequence[Question]) -> Differs:
    """Whether two releases differ in anything that a user could notice."""

    def decide(before: Answers, after: Answers) -> bool:
        return any(not change.quiet for change in compare(before, after, questions))

    return decide


def first_changes(releases: Sequence[str], ask: Asked, changed: Differs) -> Iterator[tuple[str, str]]:
    """Adjacent pairs of releases between which something changed, found by halving.

    A step whose ends agree is taken as unchanged throughout: what came and went within it stays unseen, unless every release is asked. A
    release that can't be asked is stepped over; the pair then names the last that could and the first that could again.
    """
    usable = [release for release in (releases[0], releases[-1]) if ask(release).asked]
    if len(releases) < 2 or len(usable) < 2:
        return
    yield from _halve(list(releases), ask, changed)


def _halve(releases: list[str], ask: Asked, changed: Differs) -> Iterator[tuple[str, str]]:
    first, last = ask(releases[0]), ask(releases[-1])
    if not changed(first, last):
        return
    middle = _usable_middle(releases, ask)
    if middle is None:
        yield releases[0], releases[-1]
        return
    yield from _halve(releases[: middle + 1], ask, changed)
    yield from _halve(releases[middle:], ask, changed)


def _usable_middle(releases: list[str], ask: Asked) -> int | None:
    """Index of the release nearest to the middle, the ends left out, that can be asked."""
    inner = sorted(range(1, len(releases) - 1), key=lambda index: abs(2 * index - len(releases) + 1))
    return next((index for index in inner if ask(releases[index]).asked), None)


def steps(releases: Sequence[str], ask: Asked) -> Iterator[tuple[Answers, Answers]]:
    """Each release that can be asked with the one before it that could."""
    before: Answers | None = None
    for release in releases:
        answers = ask(release)
        if not answers.asked:
            continue
        if before is not None:
            yield before, answers
        before = answers


def all_changes(releases: Sequence[str], ask: Asked, questions: Sequence[Question]) -> Iterator[Change]:
    """Every comparison of every step."""
    for before, after in steps(releases, ask):
        yield from compare(before, after, questions)
