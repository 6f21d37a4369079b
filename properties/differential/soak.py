"""The soak: late in a run a candidate answers early batches again, to the bit, after thousands of calls and with its clocks put ahead.

A criterion that counts its calls, looks at the clock, or keeps what it should not, answers otherwise then. One batch of the sizes of a
training is compared too, so that every run with a candidate has one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from oracle.cases.build import build
from oracle.cases.case import Case, Setting
from oracle.comparison.conduct import STAGE as CONDUCT
from oracle.comparison.conduct import Answer, call_once, difference, why_declined
from oracle.contract.calls import ContenderFailed, call_contender
from oracle.contract.contender import Contender, Criterion
from oracle.contract.run import fresh_leaves, make_criterion
from oracle.contract.verdict import Finding, Judgement, Verdict, differs, not_compared
from oracle.isolated.contender import set_clock
from oracle.ladder.questions import scene
from twinloss import LossSpec

MODE = "depends on history"
CALLS = 3500
"""Number of calls between the early answers and the late ones."""

TOGETHER = 50
"""Number of calls that are made between two looks at the process, which cost as much as a call."""

SECONDS = 900.0
"""Time after which no further calls are made; the row says how many were."""

AHEAD_S = 86_400.0 * 30
"""Seconds by which the clocks of an isolated candidate are put ahead."""

SETTING = Setting("float32")


def early_batches() -> tuple[Case, ...]:
    """Returns the batches of the soak: the first is the smallest, which is repeated."""
    tiny = scene(1, images=1, boxes=1, size=(32, 32), sides=(12.0, 30.0))
    return tiny, *(scene(seed, images=2, boxes=3, size=(96, 96), sides=(12.0, 90.0)) for seed in (2, 3))


def real_size() -> Case:
    """Returns a batch with the sizes of a training: 2 images of 640 x 640 px, 80 classes, 2.4 million logits."""
    return scene(4, images=2, boxes=8, size=(640, 640), sides=(12.0, 400.0), spec=LossSpec(num_classes=80), kind="middle")


class Soak:
    """The soak of one contender.

    Args:
        contender: the contender.
        cases: the early batches, the smallest first.
        calls: number of calls in between.
    """

    def __init__(self, contender: Contender, cases: Sequence[Case] = (), calls: int = CALLS) -> None:
        self.contender, self.calls, self.made = contender, calls, 0
        self.cases = [case for case in cases or early_batches() if not self._declined(case)]

    def _declined(self, case: Case) -> str | None:
        return why_declined(self.contender, case.spec, build(case, SETTING), SETTING)

    def judgements(self) -> list[Judgement]:
        """Returns the judgement on the late answers."""
        if not self.cases:
            return [not_compared(CONDUCT, "it declined every batch of the soak", MODE)]
        try:
            gap = next(filter(None, self._gaps()), "")
        except ContenderFailed as failure:
            return [differs(Finding(CONDUCT, failure.mode, f"after {self.made} calls: {failure.what}"))]
        return [differs(Finding(CONDUCT, MODE, gap)) if gap else Judgement(CONDUCT, MODE, Verdict.AGREE, reason=f"{self.made} calls")]

    def _gaps(self) -> Iterator[str]:
        """Yields a sentence for each late answer that is not the early one."""
        early = [self._answer(case) for case in self.cases]
        start, criterion = time.monotonic(), self._criterion(self.cases[0])
        inputs = build(self.cases[0], SETTING)
        for done in range(0, self.calls, TOGETHER):
            if time.monotonic() - start > SECONDS:
                break
            count = min(TOGETHER, self.calls - done)
            call_contender(self.contender, lambda: [criterion(*fresh_leaves(criterion, inputs)) for _ in range(count)])  # noqa: B023
            self.made += count
        yield from self._compared(early, f"after {self.made} calls")
        set_clock(self.contender, AHEAD_S)
        yield from self._compared(early, f"with its clocks {AHEAD_S / 86_400:g} days ahead")
        set_clock(self.contender, 0.0)

    def _compared(self, early: Sequence[Answer], when: str) -> Iterator[str]:
        for case, before in zip(self.cases, early, strict=True):
            if gap := difference(before, self._answer(case)):
                yield f"{when} the same batch gave another {gap}"

    def _criterion(self, case: Case) -> Criterion:
        return call_contender(self.contender, lambda: make_criterion(self.contender, case.spec, SETTING)).answer

    def _answer(self, case: Case) -> Answer:
        self.made += 1
        return call_once(self.contender, self._criterion(case), build(case, SETTING), SETTING)[0]
