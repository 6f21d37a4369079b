"""``python -m properties.selfcheck.planted_faults``: the differential run against every planted fault.

Every fault takes part twice: showing its stages, and showing nothing but its loss. It ends with 1 when one survives, or
when the sound twin, seen likewise, is found wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from oracle.tools.atomic_files import write_frame
from properties.selfcheck.planted_faults import CATALOGUE
from properties.selfcheck.planted_faults.hunt import SOUND
from properties.selfcheck.planted_faults.parallel_hunts import hunt_in, say

ROWS = Path("reports", "out", "faults", "rows.parquet")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the answer is the exit code."""
    options = _options(arguments)
    chosen = [n for n, fault in enumerate(CATALOGUE) if options.only in fault.name]
    catches = hunt_in(options.processes, chosen, options.scale, options.run_seed, quiet=options.quiet)
    write_frame(pd.DataFrame([asdict(catch) for catch in catches]), options.rows)
    faults = [catch for catch in catches if catch.fault != SOUND]
    survivors = [catch for catch in faults if not catch.caught]
    alarms = [catch for catch in catches if catch.fault == SOUND and catch.caught]
    for catch in survivors:
        say(f"SURVIVED {catch.examples} batches ({catch.mode}): {catch.fault}. {catch.violates}")
    for catch in alarms:
        say(f"FALSE ALARM ({catch.mode}, {catch.setting}, case {catch.case}):\n{catch.detail}")
    small = pd.DataFrame([asdict(catch) for catch in faults if catch.caught], columns=["images", "boxes", "levels"])
    extent = ", ".join(f"{value:g} {name}" for name, value in small.median().items())
    say(f"{len(faults) - len(survivors)} of {len(faults)} caught; seed {options.run_seed}; smallest failing batch, median: {extent}")
    return int(bool(survivors or alarms))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m properties.selfcheck.planted_faults", description="Put the differential run to every planted fault."
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="faults with this in their name")
    parser.add_argument("--scale", type=float, default=1.0, metavar="FACTOR", help="multiply the number of batches (default: %(default)s)")
    parser.add_argument("--run-seed", type=int, default=0, metavar="SEED", help="draw other batches (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="at once (default: %(default)s)")
    parser.add_argument("--rows", type=Path, default=ROWS, metavar="FILE", help="where to write the rows (default: %(default)s)")
    parser.add_argument("-q", "--quiet", action="store_true", help="do not show how far it is")
    options = parser.parse_args(arguments)
    if not any(options.only in fault.name for fault in CATALOGUE):
        parser.error(f"no fault has {options.only!r} in its name")
    return options


if __name__ == "__main__":
    sys.exit(main())
