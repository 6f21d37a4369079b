"""``python -m properties.selfcheck.planted_faults``: run the differential batches on every planted fault.

Every fault is compared twice: with its stages, and with its loss alone. Exit codes: 0 every fault was caught, 1 a fault survived or the
sound twin differed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from oracle.tools.atomic_files import write_frame
from oracle.tools.options import QUIET, TASK, chosen_tasks
from properties.selfcheck.planted_faults import CATALOGUE
from properties.selfcheck.planted_faults.parallel import print_line, run_in_processes
from properties.selfcheck.planted_faults.run_catalogue import SOUND

ROWS = Path("reports", "out", "faults", "rows.parquet")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = _options(arguments)
    chosen = chosen_faults(options.only, options.task)
    results = run_in_processes(options.processes, chosen, options.scale, options.run_seed, quiet=options.quiet)
    write_frame(pd.DataFrame([asdict(result) for result in results]), options.rows)
    faults = [result for result in results if result.fault != SOUND]
    survivors = [result for result in faults if not result.caught]
    alarms = [result for result in results if result.fault == SOUND and result.caught]
    for result in survivors:
        print_line(f"SURVIVED {result.examples} batches ({result.task}, {result.mode}): {result.fault}. {result.violates}")
    for result in alarms:
        print_line(f"FALSE ALARM ({result.task}, {result.mode}, {result.setting}, case {result.case}):\n{result.detail}")
    small = pd.DataFrame([asdict(result) for result in faults if result.caught], columns=["images", "boxes", "levels"])
    extent = ", ".join(f"{value:g} {name}" for name, value in small.median().items())
    print_line(f"{len(faults) - len(survivors)} of {len(faults)} caught; seed {options.run_seed}; smallest failing batch, median: {extent}")
    return int(bool(survivors or alarms))


def chosen_faults(only: str, tasks: Sequence[str]) -> list[int]:
    """Returns the positions in the catalogue of the faults of these tasks (all if empty) whose name contains ``only``."""
    return [n for n, fault in enumerate(CATALOGUE) if only in fault.name and fault.task in chosen_tasks(tasks)]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m properties.selfcheck.planted_faults", description="Run the differential batches on every planted fault."
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="only faults whose name contains TEXT")
    parser.add_argument("--scale", type=float, default=1.0, metavar="FACTOR", help="multiply the number of batches (default: %(default)s)")
    parser.add_argument("--run-seed", type=int, default=0, metavar="SEED", help="seed of the batches (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="processes at a time (default: %(default)s)")
    parser.add_argument("--rows", type=Path, default=ROWS, metavar="FILE", help="file for the rows (default: %(default)s)")
    TASK.add_to(parser.add_argument, help="only faults of this task; repeatable (default: all)")
    QUIET.add_to(parser.add_argument)
    options = parser.parse_args(arguments)
    if not chosen_faults(options.only, options.task):
        of_tasks = f" of {' or '.join(options.task)}" if options.task else ""
        parser.error(f"no fault's name{of_tasks} contains {options.only!r}; choose another --only")
    return options


if __name__ == "__main__":
    sys.exit(main())
