"""One run of the gate: builds both revisions, measures them, decides, and makes the rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benches.gate import batches
from benches.gate.decision import Counts, Decision, GateVerdict, Limits, RowFinding, conclude, count_findings, error_findings, row_findings
from benches.gate.paired_processes import CannotBeCalled, GateRow, SideBySide, open_row
from benches.gate.passes import Clock, Pair, PassRunner, compare
from benches.gate.wheels import ROOT, commit_of, text_at, tree_at, unpacked
from benches.measure.environment import commit as commit_name
from benches.measure.environment import machine, now
from benches.measure.worker_client import Worker
from benches.plan.contenders import AUTO_TWIN
from benches.plan.malloc_settings import environment

NAMES = "benches/gate/rows.txt"
Announce = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """Options of a gate run.

    Attributes:
        against: the base revision.
        pairs: pairs of processes in a pass, at least 8.
        limits: thresholds.
        threads: threads of each process. Processor time is exact with one; with more it includes threads that wait for each other.
        rows: rows to measure. By default all, and the error ÷ tolerance too, which has rows of its own.
        dropped: rows of the base that may be missing.
        allowed: exact measures that may grow, as ``row:measure``.
    """

    against: str
    pairs: int = 8
    limits: Limits = field(default_factory=Limits)
    threads: int = 1
    rows: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """The decision, the passes behind it, and the names of both revisions."""

    decision: Decision
    passes: tuple[tuple[Pair, ...], ...]
    clock: Clock
    base: str
    head: str
    limits: Limits


@dataclass(frozen=True)
class Sides:
    """Folders that contain the ``twinloss`` of each revision."""

    base: Path
    head: Path


def run(options: Options, announce: Announce) -> Outcome:
    """Build, measure, decide.

    Raises:
        RevisionError: the base revision does not exist or cannot be built.
        WorkerError: the base's twin raises an error on a row, or a worker fails.
    """
    commit = commit_of(options.against)
    with tempfile.TemporaryDirectory(prefix="gate-") as place:
        folder = Path(place)
        announce(f"building {options.against} ({commit[:12]}) and this checkout")
        sides = Sides(unpacked(tree_at(commit, folder / "tree"), folder / "base"), unpacked(ROOT, folder / "head"))
        named = text_at(commit, NAMES).splitlines()
        names = options.rows or batches.comparable(named)
        rows = batches.rows(folder / "inputs", names)
        others = row_findings(named, batches.names(), options.dropped) if not options.rows else []
        announce("exact measures")
        before, _ = exact_counts(sides.base, rows, options.threads, forgiving=False)
        after, failures = exact_counts(sides.head, rows, options.threads, forgiving=True)
        others += [*failures, *count_findings(before, after, options.allowed)]
        if not options.rows:
            announce("error ÷ tolerance")
            others += error_findings(accuracy(sides.base), accuracy(sides.head), options.limits)
        runner = PassRunner(
            announced(SideBySide(sides.base, sides.head, rows, options.threads), announce), tuple(after), options.pairs, options.limits
        )
        passes = runner.run()
    decision = conclude(runner.decide(passes), others)
    return Outcome(decision, tuple(map(tuple, passes)), runner.main, commit, commit_name(), options.limits)


def announced(measure: Callable[[Sequence[str], int], list[Pair]], announce: Announce) -> Callable[[Sequence[str], int], list[Pair]]:
    """Returns ``measure`` with an announcement before each call."""

    def measured(rows: Sequence[str], cluster: int) -> list[Pair]:
        announce(f"pair {cluster + 1}: {', '.join(rows)}")
        return measure(rows, cluster)

    return measured


def exact_counts(twin: Path, rows: dict[str, GateRow], threads: int, *, forgiving: bool) -> tuple[Counts, list[RowFinding]]:
    """Returns the exact measures of the twin by row; if ``forgiving``, a row on which it raises becomes a finding instead of an error."""
    counts, failures = {}, []
    with Worker("steady", threads, twin=twin) as worker:
        worker.ask("start", threads=threads)
        for name, row in rows.items():
            try:
                open_row(worker, row, seed=0)
            except CannotBeCalled as error:
                if not forgiving:
                    raise
                failures.append(RowFinding(GateVerdict.FAIL, name, str(error)))
                continue
            counts[name] = worker.ask("exact")[AUTO_TWIN.label]
    return counts, failures


def accuracy(twin: Path) -> Counts:
    """Returns the largest errors ÷ tolerance of the twin; empty, with a message on standard error, where it cannot be judged."""
    variables = {"PYTHONPATH": os.pathsep.join([str(twin), str(ROOT)])}
    command = [sys.executable, "-m", "benches.gate.accuracy"]
    ran = subprocess.run(command, env=environment("steady") | variables, capture_output=True, text=True, check=False)
    if ran.returncode:
        sys.stderr.write(f"error ÷ tolerance was not measured: {ran.stderr.strip().splitlines()[-1]}\n")
        return {}
    found: Counts = json.loads(ran.stdout.splitlines()[-1])
    return found


def records(outcome: Outcome) -> Iterator[dict[str, Any]]:
    """Yields the rows of a gate run: one for each finding, note and estimate."""
    empty = dict.fromkeys(("verdict", "text", "pass", "clock", "program", "ratio", "lo95", "hi95", "pairs"))
    run_wide = {"base": outcome.base, "head": outcome.head, "outcome": outcome.decision.verdict.name, "threshold": outcome.limits.slower}
    made = empty | run_wide | machine() | {"written": now()}
    for kind, findings in (("finding", outcome.decision.findings), ("note", outcome.decision.notes)):
        for finding in findings:
            yield made | _row(finding.row) | {"kind": kind, "verdict": finding.verdict.name, "text": finding.text}
    for at, pairs in enumerate(outcome.passes):
        for clock in ("cpu", "wall"):
            for row, ratios in compare(pairs, clock).items():
                for program, estimate in (("twin", ratios.twin), ("reference", ratios.control)):
                    figures = {"ratio": estimate.value, "lo95": estimate.lo95, "hi95": estimate.hi95, "pairs": estimate.clusters}
                    yield made | _row(row) | {"kind": "estimate", "pass": at + 1, "clock": clock, "program": program} | figures


def _row(name: str) -> dict[str, Any]:
    """Returns the columns that name a row of the gate; a row of the base alone, and one of an error ÷ tolerance, are detection's."""
    return {"row": name, "task": batches.task_of(name) if name in batches.names() else "detect"}
