"""The search for a failing batch: which batches of a share failed, and where Hypothesis is steered.

It is steered towards numbers nearly as far off as they may be, and towards decisions that are nearly, but not quite, open.
"""

from __future__ import annotations

import math
import time

from hypothesis import target

from oracle.cases.case import Case
from oracle.comparison.compare import Comparison
from oracle.contract.verdict import Verdict
from properties.differential.plan import GeneratedShare
from properties.differential.recorder import Difference, Recorder


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
