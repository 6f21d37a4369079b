"""The answers of releases, kept in a cache until the questions, the code in ``inside``, torch or numpy change."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from oracle.ladder.inside.messages import Arrays, Message, pack, unpack
from oracle.ladder.install import InstallError, release_folder
from oracle.ladder.questions import Question
from oracle.ladder.release_process import Release

INSIDE = ("eras.py", "stand_ins.py", "entry_points.py", "serve.py", "messages.py")
SEPARATOR = "\t"


@dataclass(frozen=True)
class Answers:
    """All answers of one release.

    Attributes:
        release: version of the release.
        greeting: outcome, version and era, or the reason why it could not be asked.
        replies: answers by the name of the question.
    """

    release: str
    greeting: Mapping[str, Any]
    replies: Mapping[str, Message]

    @property
    def asked(self) -> bool:
        """Whether the release was imported, so that it could be asked."""
        return bool(self.greeting.get("outcome") == "answered")

    @property
    def failed(self) -> bool:
        """Whether installing or importing the release failed."""
        return bool(self.greeting) and not self.asked

    @cached_property
    def summary(self) -> str:
        """Numbers of answers by outcome, for a line of progress."""
        if not self.asked:
            return f"{self.greeting.get('outcome')}: {self.greeting.get('message', '')}"
        outcomes = [reply.fields["outcome"] for reply in self.replies.values()]
        return ", ".join(f"{outcomes.count(outcome)} {outcome}" for outcome in sorted(set(outcomes)))


class AnswerCache:
    """Asks releases, and keeps their answers.

    Args:
        questions: all questions.
        cache: the ladder's cache folder.
        sources: folders of releases that are not installed here, by release; ``None`` stands for the suite's environment.
    """

    def __init__(self, questions: Sequence[Question], cache: Path, sources: Mapping[str, Path | None] | None = None) -> None:
        self.questions, self.cache, self.sources = questions, cache, sources or {}
        self._digest = digest(questions)
        self._remembered: dict[str, Answers] = {}

    def __call__(self, release: str, names: Collection[str] | None = None) -> Answers:
        """Returns the release's answers to the questions of these names (default: all), and to those that it was asked before."""
        wanted = [question for question in self.questions if names is None or question.name in names]
        answers = self._remembered.get(release) or self._recall(release) or Answers(release, {}, {})
        missing = [question for question in wanted if question.name not in answers.replies]
        if missing and not answers.failed:
            answers = self._ask(release, answers, missing)
        self._remembered[release] = answers
        return answers

    def replies(self, release: str) -> Mapping[str, Message]:
        """Returns the answers of a release so far, including those of earlier runs."""
        if release not in self._remembered and (recalled := self._recall(release)):
            self._remembered[release] = recalled
        return self._remembered[release].replies if release in self._remembered else {}

    def _file(self, release: str) -> Path:
        return self.cache / "answers" / self._digest / f"{release}.npz"

    def _recall(self, release: str) -> Answers | None:
        file = self._file(release)
        with contextlib.suppress(OSError, ValueError, KeyError):  # a damaged file is ignored
            return unflatten(release, unpack(file.read_bytes()))
        return None

    def _ask(self, release: str, before: Answers, missing: Sequence[Question]) -> Answers:
        try:
            folder = self.sources[release] if release in self.sources else release_folder(release, self.cache)
        except InstallError as error:
            return Answers(release, {"outcome": "not installed", "message": str(error)}, {})
        with Release(folder, self.cache) as process:
            replies = {question.name: process.ask(question.message) for question in missing} if process.answers else {}
            answers = Answers(release, dict(process.greeting), {**before.replies, **replies})
        if answers.asked:  # a failure is not kept, since it may not recur
            self._keep(answers)
        return answers

    def _keep(self, answers: Answers) -> None:
        file = self._file(answers.release)
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_suffix(".part")
        fresh.write_bytes(pack(flatten(answers), compress=True))
        fresh.replace(file)


def flatten(answers: Answers) -> Message:
    """Returns all answers of a release as one message."""
    fields = {"greeting": dict(answers.greeting), "replies": {name: reply.fields for name, reply in answers.replies.items()}}
    arrays: Arrays = {}
    for name, reply in answers.replies.items():
        arrays |= {f"{name}{SEPARATOR}{array}".replace("/", "|"): value for array, value in reply.arrays.items()}
    return Message(fields, arrays)


def unflatten(release: str, message: Message) -> Answers:
    """Inverse of :func:`flatten`."""
    by_question: dict[str, Arrays] = {}
    for key, value in message.arrays.items():
        name, array = key.replace("|", "/").split(SEPARATOR)
        by_question.setdefault(name, {})[array] = value
    replies = {name: Message(fields, by_question.get(name, {})) for name, fields in message.fields["replies"].items()}
    return Answers(release, message.fields["greeting"], replies)


def digest(questions: Sequence[Question]) -> str:
    """Returns a digest of everything besides the release on which an answer depends."""
    name = hashlib.sha256(f"torch {torch.__version__} numpy {np.__version__}".encode())
    for part in _parts(questions):
        name.update(part)
    return name.hexdigest()[:16]


def _parts(questions: Sequence[Question]) -> Iterator[bytes]:
    for file in INSIDE:
        yield (Path(__file__).parent / "inside" / file).read_bytes()
    for question in questions:
        yield question.name.encode()
        yield json.dumps(question.message.fields, sort_keys=True).encode()
        for array, value in sorted(question.message.arrays.items()):
            yield array.encode()
            yield value.tobytes()
