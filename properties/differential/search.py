"""The search for a failing batch: which batches of a share failed, and where Hypothesis is steered.

It is steered towards numbers nearly as far off as they may be, and towards decisions that are nearly, but not quite, open. It goes on after
a batch that differs, so that how many do is known.
"""

from __future__ import annotations

import math

from hypothesis import Phase, target

from oracle.cases.case import Case
from oracle.comparison.compare import Comparison
from oracle.contract.verdict import Verdict
from properties.differential.plan import GeneratedShare
from properties.differential.recorder import Recorder

PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.target)
"""Batches are made smaller by :mod:`properties.differential.shrink`, at the end of a share."""


class Enough(BaseException):
    """Nobody is left to ask; no :class:`Exception`, which Hypothesis takes for a failure."""


class Search:
    """The batches of a share, and those of them that failed."""

    def __init__(self, recorder: Recorder, share: GeneratedShare) -> None:
        self.recorder, self.share = recorder, share
        self.asked = 0
        self.failed: list[Comparison] = []

    def judge(self, case: Case) -> None:
        """Compare a batch.

        Raises:
            Enough: a contender hangs.
        """
        share, recorder = self.share, self.recorder
        comparison = recorder.compare(case, share.setting, share.contenders, stages=share.stages)
        self.asked += 1
        if comparison.verdict is not Verdict.DIFFER:
            if left_out := recorder.all_left_out(share.contenders):
                raise Enough(f"not compared any further: {left_out}")
            steer(comparison)
            return
        self.failed.append(comparison)
        if any(said.contender.name in recorder.hung for said in comparison.said):
            raise Enough("not compared any further: who hangs is not asked again")

    def conclusion(self) -> str:
        """The report on those that failed, if any did."""
        return self.recorder.conclude(self.failed, self.asked) if self.failed else ""


def steer(comparison: Comparison) -> None:
    """Tell the search how near the batch came to a difference: by error ÷ allowance, and by its narrowest decision that is not open."""
    judgements = [j for said in comparison.said for j in said.judgements if j.verdict is Verdict.AGREE]
    ratios = [j.error_over_allowance for j in judgements if 0 < j.error_over_allowance < math.inf]
    margins = [j.margin for j in judgements if 1 < j.margin < math.inf]
    if ratios:
        target(math.log10(max(ratios)), label="error ÷ allowance")
    if margins:
        target(-math.log10(min(margins)), label="narrowest decision")
