"""Generated batches: in float64 the same decisions and the same numbers to 1e-10, in the working dtypes within their rounding."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import HealthCheck, given, seed, settings

from oracle.cases.case import Case
from properties.differential.plan import GeneratedShare
from properties.differential.recorder import Recorder
from properties.differential.search import PHASES, Search, SearchEnded
from properties.strategies import PROFILES
from properties.tasks import TASKS
from reports.escape import plain


def test_generated(generated_share: GeneratedShare, recorder: Recorder) -> None:
    share = generated_share
    search = Search(recorder, share)
    if left_out := recorder.all_left_out(share.contenders):
        pytest.fail(f"not compared: {left_out}", pytrace=False)

    @seed(zlib.crc32(f"{recorder.seed} {share.name}".encode()))
    @settings(max_examples=share.examples, database=recorder.database, phases=PHASES, suppress_health_check=list(HealthCheck))
    @given(TASKS[share.task].cases(PROFILES[share.profile]))
    def agrees(case: Case) -> None:
        search.judge(case)

    ended = ""
    try:
        agrees()
    except SearchEnded as end:
        ended = str(end)
    if search.failed or ended:
        pytest.fail(plain("\n".join(filter(None, [search.conclusion(), ended]))), pytrace=False)
