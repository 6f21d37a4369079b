"""``python -m properties.differential.fuzz``: search for batches on which a contender differs, for a given time.

Workers are Ray's: processes of this machine or, with ``--ray ADDRESS``, of a cluster, whose machines need the same checkout on Python's
path (a cluster started from the project's root has it). Exit codes: 0 nothing differs, 1 something differs, 2 the arguments are wrong, 130
the search was interrupted before anything differed.
"""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pandas as pd

from oracle.comparison.registry import TIME_LIMIT, CandidateError, load_isolated
from oracle.tools.atomic_files import write_frame, write_text
from oracle.tools.options import CANDIDATE, DETECT, QUIET, TASK, chosen_tasks
from oracle.tools.progress import Progress
from properties.differential.fuzz.shared_database import DatabaseActor, SharedDatabase
from properties.differential.fuzz.turn import Turn, TurnResult, kinds, run_turn
from properties.differential.options import CASES, LIMIT, SHRINK
from properties.differential.saved_cases import ReplayCommand
from properties.tasks import TASKS

OUT = Path("reports", "out", "fuzz")
NIGHT = 6 * 3600.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Searches, prints the result, and returns the exit code."""
    options = _options(arguments)
    try:
        for path in options.candidate:
            load_isolated(path)
    except CandidateError as error:
        print(f"fuzz: {error}", file=sys.stderr)
        return 2
    found: list[TurnResult] = []
    with Progress("batches compared", found=("differ", "none differs"), quiet=options.quiet, limit_s=options.seconds) as progress:
        try:
            found.extend(_search(options, progress))
        except KeyboardInterrupt:
            progress.print_line("interrupted: the rows of the finished turns are kept")
            return _conclude(found, options) or 130
    return _conclude(found, options)


def _conclude(found: Sequence[TurnResult], options: argparse.Namespace) -> int:
    """Writes the rows, prints the result, and returns the exit code."""
    frames = [one.rows for one in found if len(one.rows)]
    differ = [one for one in found if one.digest]
    if frames:
        write_frame(pd.concat(frames, ignore_index=True), options.out / "rows.parquet")
    cases = sum(one.rows["case"].nunique() for one in found if len(one.rows))
    print(f"{cases:,} batches in {len(found)} turns, seed {options.seed}: {len(differ)} differ; rows in {options.out / 'rows.parquet'}")
    return int(bool(differ))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("nox -s fuzz --", description="Search for batches on which a contender differs.")
    parser.add_argument("--ray", metavar="ADDRESS", help="a Ray cluster, such as HOST:6379 (default: one on this machine)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="parallel turns (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=600.0, help="time of the whole search (default: %(default)g)")
    parser.add_argument("--nightly", action="store_true", help=f"the nightly profile: {NIGHT:g} seconds, and longer turns")
    parser.add_argument("--examples", type=int, default=100, help="batches per turn (default: %(default)s)")
    TASK.add_to(parser.add_argument, help="search batches of this task; repeatable (default: all; with --candidate: detect)")
    CANDIDATE.add_to(parser.add_argument, help="compare this contender; repeatable")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31))
    for option in (LIMIT, SHRINK, CASES):
        option.add_to(parser.add_argument)
    parser.add_argument("--database", type=Path, default=Path(".hypothesis", "fuzz"), help="folder of Hypothesis' examples")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the rows")
    QUIET.add_to(parser.add_argument)
    options = parser.parse_args(arguments)
    options.task = chosen_tasks(options.task or ([DETECT] if options.candidate else []), tuple(TASKS))
    if options.nightly:
        options.seconds, options.examples = max(options.seconds, NIGHT), max(options.examples, 2000)
    return options


def _search(options: argparse.Namespace, progress: Progress) -> Iterator[TurnResult]:
    """Yields the results of the turns in order of completion."""
    import ray  # an optional group of dependencies

    root = Path(__file__).parents[3]
    paths = [str(root / "impl"), str(root), str(Path.cwd()), os.environ.get("PYTHONPATH", "")]
    environment = {"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}}
    local = {} if options.ray else {"num_cpus": max(options.workers, 1), "include_dashboard": False}
    ray.init(address=options.ray or "local", runtime_env=environment, log_to_driver=False, logging_level=logging.ERROR, **local)
    try:
        keeper = ray.remote(num_cpus=0)(DatabaseActor).remote(str(options.database.resolve()))
        work = ray.remote(num_cpus=1, max_retries=0)(remote_turn)
        yield from _turns(ray, work, keeper, options, progress)
    finally:
        ray.shutdown()


def _turns(ray: Any, work: Any, keeper: Any, options: argparse.Namespace, progress: Progress) -> Iterator[TurnResult]:
    until, waiting = time.monotonic() + options.seconds, _plan(options)
    running: dict[Any, Turn] = {}
    while True:
        while time.monotonic() < until and len(running) < options.workers:
            turn = next(waiting)
            running[work.remote(turn, keeper)] = turn
        if not running:
            return
        done, _ = ray.wait(list(running), num_returns=1)
        turn = running.pop(done[0])
        try:
            found: TurnResult = ray.get(done[0])
        except ray.exceptions.WorkerCrashedError:
            where = f"turn {turn.number} ({turn.kind})"
            progress.print_line(f"{where}: the process ended in a contender's code; run `nox -s diff` to see which contender it is")
            yield TurnResult(turn, pd.DataFrame(), "unknown", "", "the process ended")
            continue
        if found.digest:
            write_text(found.case, Path(options.cases) / f"{found.digest}.json")
        if found.report:  # also the reason why nothing more could be compared
            progress.print_line(found.report)
        _count(found, progress)
        yield found


def _count(found: TurnResult, progress: Progress) -> None:
    if found.rows.empty:
        return
    progress.done(found.turn.kind, found.rows["case"].nunique())
    first = found.rows[found.rows["verdict"] == "DIFFER"].drop_duplicates(["contender", "case"])
    for name, stage in zip(first["contender"], first["stage"], strict=True):
        progress.differs(name, stage)


def _plan(options: argparse.Namespace) -> Iterator[Turn]:
    contenders = tuple(options.candidate) or ("twin", "reference")
    every = kinds(options.task)
    given = ("--cases", options.cases) if options.cases != CASES.keywords["default"] else ()
    limit = ("--time-limit", str(options.time_limit)) if options.time_limit != TIME_LIMIT else ()
    replay = ReplayCommand.here(*given, *limit)
    for number in count():
        task, setting, profile = every[number % len(every)]
        yield Turn(number, options.seed, setting, profile, options.examples, contenders, options.time_limit, options.shrink, replay, task)


def remote_turn(turn: Turn, keeper: Any) -> TurnResult:
    """Runs a turn in a worker's process."""
    with tempfile.TemporaryDirectory(prefix="fuzz-cases-") as folder:
        return run_turn(turn, SharedDatabase(keeper), Path(folder))


if __name__ == "__main__":
    sys.exit(main())
