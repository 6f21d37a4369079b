"""One turn of the search: some batches of one kind, compared as the differential run does, and what came of it."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis.database import ExampleDatabase

from oracle.cases.case import Case, Setting
from properties.differential import plan
from properties.differential.recorder import Recorder
from properties.differential.saved_cases import Replay
from properties.differential.search import PHASES, Enough, Search
from properties.strategies import PROFILES, cases


@dataclass(frozen=True)
class Turn:
    """What one worker is asked for.

    Attributes:
        number: of the turn; with the seed, it decides what is drawn.
        seed: of the whole search.
        setting, profile: which kind of batches.
        examples: how many of them.
        contenders: who is compared.
        time_limit: seconds for one call of a candidate.
        shrink: seconds to make a failing batch smaller.
        replay: with what a failing batch is replayed.
    """

    number: int
    seed: int
    setting: Setting
    profile: str
    examples: int
    contenders: tuple[str, ...]
    time_limit: float
    shrink: float
    replay: Replay

    @property
    def kind(self) -> str:
        """Turns of one kind share what they keep in the example database."""
        return f"{self.setting.name}-{self.profile}-{'+'.join(self.contenders)}"


class Difference(AssertionError):  # noqa: N818 - it is a finding, not an error
    """A contender differs: the turn ends, and Hypothesis keeps the batch in its database."""


@dataclass(frozen=True)
class Found:
    """What came of a turn: the rows of its comparisons, and the failing case and report if there is one."""

    turn: Turn
    rows: pd.DataFrame
    digest: str
    case: str
    report: str


def kinds() -> list[tuple[Setting, str]]:
    """Every setting and profile of the differential run, in turn."""
    definition = [(plan.DEFINITION, profile) for profile, _ in plan.DEFINITION_BATCHES]
    return [*definition, *((setting, profile) for setting, profile, _ in plan.ARITHMETIC)]


def take(turn: Turn, database: ExampleDatabase | None, folder: Path) -> Found:
    """Take a turn; failing cases are written to ``folder`` as well."""
    torch.set_num_threads(1)
    strangers = [name for name in turn.contenders if ":" in name]
    recorder = Recorder(strangers, "fuzz", turn.seed, folder, time_limit=turn.time_limit)
    recorder.shrink, recorder.replay = turn.shrink, turn.replay
    share = plan.GeneratedShare(turn.setting, turn.profile, turn.examples, turn.number, turn.contenders)
    search = Search(recorder, share)

    @seed(zlib.crc32(f"{turn.seed} {turn.number}".encode()))
    @settings(
        max_examples=turn.examples,
        database=database,
        deadline=None,
        phases=PHASES,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(cases(PROFILES[turn.profile]))
    def agrees(case: Case) -> None:
        search.judge(case)
        if search.failed:
            raise Difference

    # Hypothesis keeps examples by the name of the test, which all kinds would share.
    agrees.__qualname__ = agrees.__name__ = f"agrees_{zlib.crc32(turn.kind.encode()):08x}"
    digest = text = report = ""
    try:
        agrees()
    except (Difference, Enough) as end:
        report = search.conclusion() or str(end)
        if recorder.saved:
            digest, text = recorder.saved[0].stem, recorder.saved[0].read_text("utf-8")
    rows = pd.concat(recorder.frames, ignore_index=True) if recorder.frames else pd.DataFrame()
    return Found(turn, rows, digest, text, report)
