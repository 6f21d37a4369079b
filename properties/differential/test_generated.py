"""Generated batches: in float64 the same decisions and the same numbers to 1e-10, in the working dtypes within their rounding."""

from __future__ import annotations

from hypothesis import HealthCheck, given, seed, settings

from oracle.case import Case
from oracle.compare import Comparison
from oracle.finding import Verdict
from properties.differential.plan import GeneratedShare
from properties.differential.recorder import Difference, Recorder
from properties.strategies import PROFILES, cases


def test_generated(generated_share: GeneratedShare, recorder: Recorder) -> None:
    share = generated_share
    failed: list[Comparison] = []

    @seed(hash((recorder.seed, share.profile, share.setting.name, share.index)))
    @settings(max_examples=share.examples, database=None, suppress_health_check=list(HealthCheck))
    @given(cases(PROFILES[share.profile]))
    def agrees(case: Case) -> None:
        # Rows of the batches that a failure shrinks through would count one fault many times.
        comparison = recorder.compare(case, share.setting, share.contenders, stages=share.stages, keep=not failed)
        if comparison.verdict is Verdict.DIFFER:
            failed.append(comparison)
            raise Difference(comparison.report())

    try:
        agrees()
    except Difference as difference:
        raise Difference(recorder.save(failed[-1])) from difference
