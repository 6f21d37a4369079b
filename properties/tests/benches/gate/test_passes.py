"""The passes of a gate run on a simulated machine, whose times are drawn at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from benches.gate.decision import GateVerdict, Limits
from benches.gate.passes import EXTENSION, Clock, Pair, PassRunner

ROWS = ("coco", "crowded", "one image")
CLUSTERS, TURNS = 8, 10
PASS, FAIL, INCONCLUSIVE = GateVerdict.PASS, GateVerdict.FAIL, GateVerdict.INCONCLUSIVE


@dataclass
class Machine:
    """A machine with the noise of a busy one.

    Attributes:
        seed: of everything that is drawn.
        slower: how many times slower the head's twin is, by row.
        process: deviation between processes, in logarithm: their layouts in memory.
        call: deviation between turns of a process.
        drift: by how much the reference is slower in the head's processes: the machine moves.
        wall: factor on the wall's clock alone, by row: time spent waiting.
        busy: deviation of the wall's clock on top.
    """

    seed: int
    slower: dict[str, float] = field(default_factory=dict)
    process: float = 0.02
    call: float = 0.06
    drift: float = 0.0
    wall: dict[str, float] = field(default_factory=dict)
    busy: float = 0.0
    asked: list[tuple[tuple[str, ...], int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def __call__(self, rows: Sequence[str], cluster: int) -> list[Pair]:
        self.asked.append((tuple(rows), cluster))
        return [pair for row in rows for program in ("twin", "reference") for pair in self._pairs(row, program, cluster)]

    def _pairs(self, row: str, program: str, cluster: int) -> list[Pair]:
        factor = self.slower.get(row, 1.0) if program == "twin" else float(np.exp(self.rng.normal(0, self.drift)))
        waits = self.wall.get(row, 1.0) if program == "twin" else 1.0
        bias = self.rng.normal(0, self.process, 2)
        pairs = []
        for _ in range(TURNS):
            base, head = np.exp(self.rng.normal(bias, self.call)) * 1e7 * (1, factor)
            waited = np.exp(np.abs(self.rng.normal(0, self.busy, 2)))
            clocks: tuple[dict[Clock, int], ...] = tuple(
                {"cpu": int(time), "wall": int(time * wait)} for time, wait in ((base, waited[0]), (head, waited[1] * waits))
            )
            pairs.append(Pair(row, program, cluster, *clocks))
        return pairs


def run(machine: Machine, limits: Limits | None = None) -> tuple[PassRunner, GateVerdict]:
    runner = PassRunner(machine, ROWS, CLUSTERS, limits or Limits())
    return runner, runner.decide(runner.run()).verdict


@pytest.mark.parametrize("seed", range(6))
def test_the_same_program_on_both_sides_passes(seed: int) -> None:
    machine = Machine(seed, busy=0.3)
    assert run(machine)[1] is PASS


@pytest.mark.parametrize("seed", range(6))
def test_a_planted_slow_down_of_15_percent_fails(seed: int) -> None:
    machine = Machine(seed, slower={"crowded": 1.15}, busy=0.3)
    runner, verdict = run(machine)
    assert verdict is FAIL
    later = {rows for rows, cluster in machine.asked if cluster >= EXTENSION * CLUSTERS}
    assert all("crowded" in rows for rows in later), "later passes measure what is open, and that is what was planted"
    assert len(later) >= 1, "one pass is not enough to fail"
    assert runner.limits.slower == 1.10


@pytest.mark.parametrize("seed", range(6))
def test_a_control_that_moves_is_inconclusive(seed: int) -> None:
    assert run(Machine(seed, drift=0.3))[1] is INCONCLUSIVE


@pytest.mark.parametrize("seed", range(6))
def test_a_slow_down_on_a_machine_that_moves_is_not_red(seed: int) -> None:
    assert run(Machine(seed, slower=dict.fromkeys(ROWS, 1.5), drift=0.3))[1] is INCONCLUSIVE


@pytest.mark.parametrize("seed", range(3))
def test_waiting_fails_by_the_clock_on_the_wall(seed: int) -> None:
    machine = Machine(seed, wall={"coco": 1.4}, busy=0.02)
    runner = PassRunner(machine, ROWS, CLUSTERS, Limits())
    decision = runner.decide(runner.run())
    assert decision.verdict is FAIL
    assert any("by the wall clock" in finding.text for finding in decision.findings)


@pytest.mark.parametrize("seed", range(3))
def test_a_wall_clock_that_is_all_noise_changes_nothing(seed: int) -> None:
    assert run(Machine(seed, busy=1.0))[1] is PASS


def test_a_speed_up_takes_one_pass() -> None:
    machine = Machine(0, slower=dict.fromkeys(ROWS, 0.5), process=0.01)
    assert run(machine)[1] is PASS
    assert len(machine.asked) == CLUSTERS


def test_a_row_in_doubt_gets_more_pairs_and_the_others_do_not() -> None:
    machine = Machine(0, slower={"coco": 1.11}, process=0.01, call=0.03)
    run(machine)
    extended = [rows for rows, cluster in machine.asked if CLUSTERS <= cluster < EXTENSION * CLUSTERS]
    assert extended
    assert set(extended) == {("coco",)}


def test_passes_end() -> None:
    machine = Machine(0, drift=0.5)
    assert len(PassRunner(machine, ROWS, CLUSTERS, Limits(void=2)).run()) == 2
    assert len(PassRunner(machine, ROWS, CLUSTERS, Limits(passes=3, void=9)).run()) == 3
