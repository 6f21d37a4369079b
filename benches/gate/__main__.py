"""``python -m benches.gate --against REV``: is this checkout's twin slower, heavier or less exact than REV's?

Exit codes: 0 no, 1 yes, 2 wrong arguments, 3 inconclusive: the speed of the machine varied too much.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console

from benches.gate import batches
from benches.gate.decision import Limits
from benches.gate.run import Options, records, run
from benches.gate.wheels import RevisionError
from benches.measure.worker_client import WorkerError
from oracle.tools.atomic_files import write_frame

OUT = Path("reports", "out", "gate")
USAGE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the gate; returns the exit code."""
    options, out = parsed(arguments)
    console = Console(stderr=True)
    try:
        outcome = run(options, lambda what: console.print(what, style="dim", markup=False, highlight=False))
    except (RevisionError, WorkerError) as error:
        sys.stderr.write(f"gate: {error}\n")
        return USAGE
    write_frame(pd.DataFrame(list(records(outcome))), out / "rows.parquet")
    return int(outcome.decision.verdict)


def parsed(arguments: Sequence[str] | None) -> tuple[Options, Path]:
    """Returns the options, and the folder of the rows."""
    parser = argparse.ArgumentParser("python -m benches.gate", description="Compare this checkout's twin with another revision's.")
    parser.add_argument("--against", required=True, metavar="REV", help="the base: a revision of this repository")
    parser.add_argument("--pairs", type=int, default=8, help="pairs of processes in a pass, 8 or more (default: 8)")
    parser.add_argument(
        "--threshold", type=float, default=Limits.slower, help="slower by more than this ratio fails (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of each process (default: 1, which varies least)")
    parser.add_argument("--row", action="append", default=[], choices=batches.names(), help="measure only this row; repeatable")
    parser.add_argument("--drop", action="append", default=[], metavar="ROW", help="accept that the head lacks this row; repeatable")
    parser.add_argument("--allow", action="append", default=[], metavar="ROW:MEASURE", help="accept that this measure grows; repeatable")
    parser.add_argument("--out", type=Path, default=OUT, help=f"where the rows go (default: {OUT})")
    given = parser.parse_args(arguments)
    if given.pairs < 8:
        parser.error(f"--pairs {given.pairs}: a pass takes at least 8 pairs")
    if given.threshold <= 1:
        parser.error(f"--threshold {given.threshold}: it is a ratio, and must be above 1")
    limits = Limits(slower=given.threshold)
    options = Options(given.against, given.pairs, limits, given.threads, tuple(given.row), tuple(given.drop), tuple(given.allow))
    return options, given.out


if __name__ == "__main__":
    sys.exit(main())
