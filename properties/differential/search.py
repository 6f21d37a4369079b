"""The search for failing batches of a share, with targets for Hypothesis.

The targets are the largest error in units of its tolerance, and the smallest margin of a decision that is not open. The search continues
after a failing batch, to count the failures.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from hypothesis import Phase, target

from oracle.cases.case import Case
from oracle.comparison.compare import Comparison
from oracle.contract.verdict import Verdict
from properties.differential.plan import GeneratedShare
from properties.differential.recorder import Recorder

PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.target)
"""Without Hypothesis' shrinking: :mod:`properties.differential.shrink` makes batches smaller at the end of a share."""


class SearchEnded(BaseException):
    """No contender is left to compare; not an :class:`Exception`, which Hypothesis would count as a failure."""


class Scores(NamedTuple):
    """The largest error ÷ tolerance of a batch, and its smallest margin of a decision that is not open, where there is one."""

    error: float | None = None
    margin: float | None = None


class Search:
    """Compares the batches of a share, and collects the failed ones."""

    def __init__(self, recorder: Recorder, share: GeneratedShare) -> None:
        self.recorder, self.share = recorder, share
        self.scores: dict[str, Scores] = {}
        self.failed: list[Comparison] = []

    @property
    def asked(self) -> int:
        """Number of batches that were compared."""
        return len(self.scores)

    @property
    def left(self) -> int:
        """Number of batches that are still to be compared."""
        return self.share.examples - self.asked

    def judge(self, case: Case) -> None:
        """Compares a batch, if it was not drawn before and the share has batches left: Hypothesis repeats many of its draws.

        Raises:
            SearchEnded: a contender hangs.
        """
        if case.digest not in self.scores:
            if not self.left:
                return
            comparison = self.recorder.compare(case, self.share.setting, self.share.contenders)
            self.scores[case.digest] = Scores() if comparison.verdict is Verdict.DIFFER else scores_of(comparison)
            self._note(comparison)
        steer(self.scores[case.digest])

    def _note(self, comparison: Comparison) -> None:
        if comparison.verdict is not Verdict.DIFFER:
            if left_out := self.recorder.all_left_out(self.share.contenders):
                raise SearchEnded(f"not compared any further: {left_out}")
            return
        self.failed.append(comparison)
        if any(result.contender.name in self.recorder.hung for result in comparison.results):
            raise SearchEnded("not compared any further: a contender that hangs is not called again")

    def conclusion(self) -> str:
        """Returns the report on the failed batches; empty if there is none."""
        return self.recorder.conclude(self.failed, self.asked) if self.failed else ""


def scores_of(comparison: Comparison) -> Scores:
    """Returns the scores of a batch that does not differ."""
    judgements = [j for result in comparison.results for j in result.judgements if j.verdict is Verdict.AGREE]
    ratios = [j.error_over_allowance for j in judgements if 0 < j.error_over_allowance < math.inf]
    margins = [j.margin for j in judgements if 1 < j.margin < math.inf]
    return Scores(max(ratios, default=None), min(margins, default=None))


def steer(scores: Scores) -> None:
    """Passes Hypothesis a batch's scores; those of a batch that is drawn again must be the same."""
    if scores.error is not None:
        target(math.log10(scores.error), label="error ÷ allowance")
    if scores.margin is not None:
        target(-math.log10(scores.margin), label="narrowest decision")
