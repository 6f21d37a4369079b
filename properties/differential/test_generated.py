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

TURNS = 6
"""Searches of a share, at most: where few different batches exist, it ends with fewer than it asks for."""

FEW = 20
"""Draws of a later search, at least, because the first draw of each search is the same simplest batch."""


def test_generated(generated_share: GeneratedShare, recorder: Recorder) -> None:
    share = generated_share
    search = Search(recorder, share)
    if left_out := recorder.all_left_out(share.contenders):
        pytest.fail(f"not compared: {left_out}", pytrace=False)

    ended, turn = "", 0
    while search.left and turn < TURNS and not ended:
        draws = max(share.examples, FEW if turn else 0)
        ended = _searched(search, f"{recorder.seed} {share.name}{f' {turn}' if turn else ''}", draws)
        turn += 1
    if search.failed or ended:
        pytest.fail(plain("\n".join(filter(None, [search.conclusion(), ended]))), pytrace=False)


def _searched(search: Search, seeded: str, draws: int) -> str:
    """Compares the new batches among ``draws`` draws; returns why the search cannot go on, or an empty text."""
    share, recorder = search.share, search.recorder

    @seed(zlib.crc32(seeded.encode()))
    @settings(max_examples=draws, database=recorder.database, phases=PHASES, suppress_health_check=list(HealthCheck))
    @given(TASKS[share.task].cases(PROFILES[share.profile]))
    def agrees(case: Case) -> None:
        search.judge(case)

    try:
        agrees()
    except SearchEnded as end:
        return str(end)
    return ""
