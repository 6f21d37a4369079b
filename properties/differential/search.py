"""The search for failing batches of a share, with targets for Hypothesis.

The targets are the largest error in units of its tolerance, and the smallest margin of a decision that is not open. The search continues
after a failing batch, to count the failures.
"""

from __future__ import annotations

import math

from hypothesis import Phase, assume, target

from oracle.cases.case import Case
from oracle.comparison.compare import Comparison
from oracle.contract.verdict import Verdict
from properties.differential.plan import GeneratedShare
from properties.differential.recorder import Recorder

PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.target)
"""Without Hypothesis' shrinking: :mod:`properties.differential.shrink` makes batches smaller at the end of a share."""


class SearchEnded(BaseException):
    """No contender is left to compare; not an :class:`Exception`, which Hypothesis would count as a failure."""


class Search:
    """Compares the batches of a share, and collects the failed ones."""

    def __init__(self, recorder: Recorder, share: GeneratedShare) -> None:
        self.recorder, self.share = recorder, share
        self.asked = 0
        self.drawn: set[str] = set()
        self.failed: list[Comparison] = []

    def judge(self, case: Case) -> None:
        """Compares a batch, or rejects it where it was drawn before: Hypothesis, which varies its draws, draws many again.

        Raises:
            SearchEnded: a contender hangs.
        """
        assume(case.digest not in self.drawn)
        self.drawn.add(case.digest)
        share, recorder = self.share, self.recorder
        comparison = recorder.compare(case, share.setting, share.contenders)
        self.asked += 1
        if comparison.verdict is not Verdict.DIFFER:
            if left_out := recorder.all_left_out(share.contenders):
                raise SearchEnded(f"not compared any further: {left_out}")
            steer(comparison)
            return
        self.failed.append(comparison)
        if any(result.contender.name in recorder.hung for result in comparison.results):
            raise SearchEnded("not compared any further: a contender that hangs is not called again")

    def conclusion(self) -> str:
        """Returns the report on the failed batches; empty if there is none."""
        return self.recorder.conclude(self.failed, self.asked) if self.failed else ""


def steer(comparison: Comparison) -> None:
    """Passes Hypothesis the batch's largest error ÷ tolerance, and its smallest margin of a decision that is not open."""
    judgements = [j for result in comparison.results for j in result.judgements if j.verdict is Verdict.AGREE]
    ratios = [j.error_over_allowance for j in judgements if 0 < j.error_over_allowance < math.inf]
    margins = [j.margin for j in judgements if 1 < j.margin < math.inf]
    if ratios:
        target(math.log10(max(ratios)), label="error ÷ allowance")
    if margins:
        target(-math.log10(min(margins)), label="narrowest decision")
