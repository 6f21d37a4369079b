"""The differential run on the GPU, in processes of its own and within a time limit: the twin and the reference against the definition."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from benches.gpu.finding import GpuFinding, holds
from benches.gpu.processes import environment, workers_at_once
from oracle.tools.programs import ROOT, end_tree

NEEDED = ("hypothesis", "msgspec", "pandas", "pyarrow", "pytest", "rich", "xdist")
SELECTED = "cuda and not bccd"  # The labels of BCCD are files beside the packs, which the machine may lack.
SCALE = 0.1
LONGEST_S = 85.0
GRACE_S = 15.0  # To write the rows of the comparisons that are finished.
WHAT = "batches of the differential run agree"


def properties() -> Iterator[GpuFinding]:
    """Run part of the differential run; what is not compared within the time limit is left out."""
    if lacking := [name for name in NEEDED if find_spec(name) is None]:
        yield GpuFinding("properties", WHAT, "not measured", detail=f"these packages are not installed: {', '.join(lacking)}")
        return
    with tempfile.TemporaryDirectory(prefix="twinloss-") as folder:
        rows = Path(folder, "rows.parquet")
        code, output = _run(rows, Path(folder, "cases"))
        yield _finding(rows, code, output)


def _finding(rows: Path, code: int | None, output: str) -> GpuFinding:
    import pandas as pd

    said = " | ".join(line.strip() for line in output.strip().splitlines()[-12:])[-600:]
    frame = pd.read_parquet(rows, columns=["case", "dtype", "verdict", "detail"]) if rows.exists() else pd.DataFrame()
    if frame.empty:
        return GpuFinding("properties", WHAT, "not measured", detail=f"nothing was compared within {LONGEST_S:g} s: {said}"[:600])
    batches, different = len(frame[["case", "dtype"]].drop_duplicates()), frame[frame["verdict"] == "DIFFER"]
    counted = f"{batches} batches" + (f" in {LONGEST_S:g} s, and not all that were planned" if code is None else "")
    agree = not len(different) and code in (0, None)
    return holds("properties", WHAT, agree, detail=counted if agree else f"{counted}; {len(different)} rows differ: {said}"[:700])


def _run(rows: Path, cases: Path) -> tuple[int | None, str]:
    """Returns exit code, ``None`` where the time limit ended the run, and output."""
    command = [
        *(sys.executable, "-m", "pytest", "-p", "properties.differential.plugin", "properties/differential", "-q", "-W", "default"),
        *("-p", "no:cacheprovider", "--dist", "worksteal", "-n", str(workers_at_once()), "--scale", str(SCALE), "--run-seed", "1"),
        *("-k", SELECTED, "--shrink", "5", "--rows", str(rows), "--cases", str(cases)),
    ]
    surroundings = environment(OMP_NUM_THREADS="1")
    with subprocess.Popen(
        command, cwd=ROOT, env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            output, _ = process.communicate(timeout=LONGEST_S)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)  # on which the run writes its rows
            return None, _rest(process)
        except BaseException:
            end_tree(process.pid)
            raise
    return process.returncode, output


def _rest(process: subprocess.Popen[str]) -> str:
    try:
        return process.communicate(timeout=GRACE_S)[0]
    except subprocess.TimeoutExpired:
        end_tree(process.pid)
        return "the run did not end when it was asked to"
