"""``python -m properties.selfcheck.false_alarms``: count the false alarms of the differential run.

The candidates are correct: the reference, the twin, and the twin with other last bits, each with its stages and with its loss alone. They
are compared with many seeds. Exit codes: 0 no run found a difference, 1 at least one did.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from oracle.tools.atomic_files import write_frame
from oracle.tools.options import QUIET, TASK, chosen_tasks
from oracle.tools.progress import Progress

ROOT = Path(__file__).parents[2]
CORRECT = ("reference", "twin", "reference_silent", "silent", "other_rounding", "other_rounding_silent")
CANDIDATES = tuple(f"properties.selfcheck.sample_candidates:{name}" for name in CORRECT)
OUT = Path("reports", "out", "false-alarm", "rows.parquet")


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the runs, print the number of false alarms, and return the exit code."""
    parser = argparse.ArgumentParser("nox -s false_alarm --", description="Run correct candidates with many seeds.")
    parser.add_argument("--runs", type=int, default=50, help="number of seeds, starting at --first (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="first seed (default: %(default)s)")
    parser.add_argument("--scale", default="0.02", help="share of the default number of batches in each run (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="runs at a time (default: %(default)s)")
    parser.add_argument("--rows", type=Path, default=OUT, help="file for the rows (default: %(default)s)")
    TASK.add_to(parser.add_argument, help="compare this task; repeatable (default: all)")
    QUIET.add_to(parser.add_argument)
    options, more = parser.parse_known_args(arguments)
    more += [word for task in chosen_tasks(options.task) for word in ("--task", task)]
    seeds = range(options.first, options.first + options.runs)
    frames, alarms = [], []
    progress = Progress("batches compared", found=("differ", "none differs"), quiet=options.quiet)
    with tempfile.TemporaryDirectory(prefix="progress-") as notes, progress, ThreadPoolExecutor(options.processes) as pool:
        progress.follow(Path(notes), times=options.runs)
        ended = pool.map(lambda n: run(n, options.scale, ["--notes", notes, *more]), seeds)
        for run_seed, (code, rows, output, seconds) in zip(seeds, ended, strict=True):
            frames.append(rows)
            compared, differ = rows[["case", "dtype"]].drop_duplicates(), int((rows["verdict"] == "DIFFER").sum())
            progress.print_line(f"seed {run_seed}: {len(compared):,} batches, {differ} rows differ, {seconds:.0f} s")
            if code:
                alarms.append(run_seed)
                progress.print_line(output)
            # Written after every run, so that an interruption loses nothing.
            write_frame(pd.concat(frames, ignore_index=True), options.rows)
    print(f"{len(alarms)} of {options.runs} runs raised an alarm{': seeds ' + ', '.join(map(str, alarms)) if alarms else ''}")
    return int(bool(alarms))


def run(run_seed: int, scale: str, more: Sequence[str]) -> tuple[int, pd.DataFrame, str, float]:
    """Make one differential run; returns its exit code, its rows, its output, and its seconds."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="false-alarm-") as folder:
        rows = Path(folder, "rows.parquet")
        command = [sys.executable, "-m", "pytest", "-p", "properties.differential.plugin", "properties/differential", "-n", "0", "-q"]
        command += ["-p", "no:cacheprovider", "--run-seed", str(run_seed), "--scale", scale, "--rows", str(rows), "--cases", folder, *more]
        for candidate in CANDIDATES:
            command += ["--candidate", candidate]
        ended = subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - start
        if not rows.exists():
            return ended.returncode or 1, pd.DataFrame(columns=["case", "dtype", "verdict"]), ended.stdout + ended.stderr, seconds
        return ended.returncode, pd.read_parquet(rows), ended.stdout, seconds


if __name__ == "__main__":
    sys.exit(main())
