"""Generated batches: in float64 the same decisions and the same numbers to 1e-10, in the working dtypes within their rounding.

The search is steered: towards numbers nearly as far off as they may be, and towards decisions that are nearly, but not quite, open. It goes
on after a batch that differs, so that how many do is known.
"""

from __future__ import annotations

import math
import zlib

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings, target

from oracle.cases.case import Case
from oracle.comparison.compare import Comparison
from oracle.contract.verdict import Verdict
from properties.differential.plan import GeneratedShare
from properties.differential.recorder import Recorder
from properties.strategies import PROFILES, cases
from reports.escape import plain

PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.target)
"""Batches are made smaller by :mod:`properties.differential.shrink`, at the end of a share."""


def test_generated(generated_share: GeneratedShare, recorder: Recorder) -> None:
    share = generated_share
    search = Search(recorder, share)
    if left_out := recorder.all_left_out(share.contenders):
        pytest.fail(f"not compared: {left_out}", pytrace=False)

    @seed(zlib.crc32(f"{recorder.seed} {share.name}".encode()))
    @settings(max_examples=share.examples, database=recorder.database, phases=PHASES, suppress_health_check=list(HealthCheck))
    @given(cases(PROFILES[share.profile]))
    def agrees(case: Case) -> None:
        search.judge(case)

    ended = ""
    try:
        agrees()
    except Enough as end:
        ended = str(end)
    if search.failed or ended:
        pytest.fail(plain("\n".join(filter(None, [search.conclusion(), ended]))), pytrace=False)


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
