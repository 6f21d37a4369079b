"""Generated batches: in float64 the same decisions and the same numbers to 1e-10, in the working dtypes within their rounding."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import HealthCheck, given, seed, settings

from oracle.cases.case import Case
from properties.differential.plan import GeneratedShare
from properties.differential.recorder import Difference, Recorder
from properties.differential.search import Enough, Search
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
