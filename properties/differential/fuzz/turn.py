"""One turn of the search: a worker compares some batches of one kind as the differential run does."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis.database import ExampleDatabase

from oracle.cases.case import Case, Setting
from oracle.tools.options import DETECT
from properties.differential import plan
from properties.differential.recorder import Recorder
from properties.differential.saved_cases import ReplayCommand
from properties.differential.search import PHASES, Search, SearchEnded
from properties.strategies import PROFILES
from properties.tasks import TASKS


@dataclass(frozen=True)
class Turn:
    """The parameters of one turn.

    Attributes:
        number: number of the turn; together with the seed it determines the batches.
        seed: seed of the whole search.
        setting, profile: kind of the batches.
        examples: number of batches.
        contenders: names of the contenders.
        time_limit: time limit of one call of a candidate, in seconds.
        shrink: time to make a failing batch smaller, in seconds.
        replay: the command that replays a failing batch.
        task: task of the batches.
    """

    number: int
    seed: int
    setting: Setting
    profile: str
    examples: int
    contenders: tuple[str, ...]
    time_limit: float
    shrink: float
    replay: ReplayCommand
    task: str = DETECT

    @property
    def kind(self) -> str:
        """Key of the turn's examples in the database, shared by all turns of a kind."""
        task = () if self.task == DETECT else (self.task,)
        return "-".join((*task, self.setting.name, self.profile, "+".join(self.contenders)))


class Difference(AssertionError):  # noqa: N818 - a finding, not an error
    """A contender differs; it ends the turn, and makes Hypothesis save the batch in its database."""


@dataclass(frozen=True)
class TurnResult:
    """The result of a turn: the rows of its comparisons, and the digest, JSON and report of the failing case, or empty texts."""

    turn: Turn
    rows: pd.DataFrame
    digest: str
    case: str
    report: str


def kinds(tasks: Sequence[str] = (DETECT,)) -> list[tuple[str, Setting, str]]:
    """Returns all combinations of task, setting and profile of the differential run."""
    return [
        (name, setting, profile)
        for name in tasks
        for setting, profile in [
            *((plan.DEFINITION, profile) for profile, _ in TASKS[name].definition),
            *((setting, profile) for setting, profile, _ in TASKS[name].arithmetic),
        ]
    ]


def run_turn(turn: Turn, database: ExampleDatabase | None, folder: Path) -> TurnResult:
    """Runs a turn; failing cases are also written to ``folder``."""
    torch.set_num_threads(1)
    candidates = [name for name in turn.contenders if ":" in name]
    recorder = Recorder(candidates, "fuzz", turn.seed, folder, time_limit=turn.time_limit, isolated=True)
    recorder.shrink, recorder.replay = turn.shrink, turn.replay
    share = plan.GeneratedShare(turn.setting, turn.profile, turn.examples, turn.number, turn.contenders, turn.task)
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
    @given(TASKS[turn.task].cases(PROFILES[turn.profile]))
    def agrees(case: Case) -> None:
        search.judge(case)
        if search.failed:
            raise Difference

    # Hypothesis stores examples by the name of the test; each kind needs a name of its own.
    agrees.__qualname__ = agrees.__name__ = f"agrees_{zlib.crc32(turn.kind.encode()):08x}"
    digest = text = report = ""
    try:
        agrees()
    except (Difference, SearchEnded) as end:
        report = search.conclusion() or str(end)
        if recorder.saved:
            digest, text = recorder.saved[0].stem, recorder.saved[0].read_text("utf-8")
    rows = pd.concat(recorder.frames, ignore_index=True) if recorder.frames else pd.DataFrame()
    return TurnResult(turn, rows, digest, text, report)
