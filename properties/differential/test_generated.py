"""Generated batches: in float64 the same decisions and the same numbers to 1e-10, in the working dtypes within their rounding.

The search is steered: towards numbers nearly as far off as they may be, and towards decisions that are nearly, but not quite, open.
"""

from __future__ import annotations

import math
import time
import zlib

import pytest
from hypothesis import HealthCheck, given, seed, settings, target

from oracle.cases.case import Case
from oracle.comparison.compare import Comparison
from oracle.contract.verdict import Verdict
from properties.differential.plan import GeneratedShare
from properties.differential.recorder import Difference, Recorder
from properties.strategies import PROFILES, cases


def test_generated(generated_share: GeneratedShare, recorder: Recorder) -> None:
    share = generated_share
    search = Search(recorder, share)
    if recorder.hung.issuperset(share.contenders):
        pytest.fail(f"not compared: {', '.join(share.contenders)} hung before", pytrace=False)

    @seed(zlib.crc32(f"{recorder.seed} {share.name}".encode()))
    @settings(max_examples=share.examples, database=recorder.database, suppress_health_check=list(HealthCheck))
    @given(cases(PROFILES[share.profile]))
    def agrees(case: Case) -> None:
        search.judge(case)

    try:
        agrees()
    except (Difference, Enough) as end:
        raise Difference(recorder.save(search.smallest) if search.failed else str(end)) from None


class Enough(BaseException):
    """The time to look for a smaller failing batch is over; no :class:`Exception`, which Hypothesis takes for one more failure."""


class Search:
    """The batches of a share that failed, and until when smaller ones are looked for."""

    def __init__(self, recorder: Recorder, share: GeneratedShare) -> None:
        self.recorder, self.share = recorder, share
        self.failed: list[Comparison] = []
        self.until = math.inf

    @property
    def smallest(self) -> Comparison:
        """The failing batch of fewest boxes, images and anchors."""
        return min(self.failed, key=lambda c: (len(c.case.boxes), c.case.batch_size, c.case.num_anchors, len(c.case.to_json())))

    def judge(self, case: Case) -> None:
        """Compare a batch.

        Raises:
            Difference: a contender differs.
            Enough: one did, and the time to make its batch smaller is over, or it hangs.
        """
        share, recorder = self.share, self.recorder
        if time.monotonic() > self.until:
            raise Enough
        # Rows of the batches that a failure shrinks through would count one fault many times.
        comparison = recorder.compare(case, share.setting, share.contenders, stages=share.stages, keep=not self.failed)
        if comparison.verdict is not Verdict.DIFFER:
            steer(comparison)
            return
        if not self.failed:
            self.until = time.monotonic() + recorder.shrink
        self.failed.append(comparison)
        if any(said.contender.name in recorder.hung for said in comparison.said):
            raise Enough
        raise Difference(comparison.report())


def steer(comparison: Comparison) -> None:
    """Tell the search how near the batch came to a difference: by error ÷ allowance, and by its narrowest decision that is not open."""
    judgements = [j for said in comparison.said for j in said.judgements if j.verdict is Verdict.AGREE]
    ratios = [j.error_over_allowance for j in judgements if 0 < j.error_over_allowance < math.inf]
    margins = [j.margin for j in judgements if 1 < j.margin < math.inf]
    if ratios:
        target(math.log10(max(ratios)), label="error ÷ allowance")
    if margins:
        target(-math.log10(min(margins)), label="narrowest decision")
