"""Repeats one comparison of a candidate in a process of its own, after the candidate hung or a process died in its code.

An interrupted process may be in a wrong state, and a dead one may have been killed from outside. The verdict is that of a new process, in
which the comparison runs while no other process of the run computes.
"""

from __future__ import annotations

import argparse
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from oracle.comparison.compare import compare
from oracle.comparison.conduct import STAGE as CONDUCT
from oracle.contract.time_limit import KILL_FACTOR
from oracle.contract.verdict import Finding, Judgement, differs
from oracle.isolated.candidate_process import ENDS
from oracle.tools.atomic_files import atomic_file
from properties.differential.saved_cases import SavedCase, read
from properties.tasks import task_of

MOST_CALLS = 20
"""Upper bound of the calls in one comparison, for the time limit of the process."""


@dataclass(frozen=True)
class RepeatedComparison:
    """A comparison to repeat.

    Attributes:
        saved: the batch, its setting, and the candidate.
        stages: stages to compare.
        time_limit: time limit of a call, in seconds.
        release: release of the reference, or ``None`` for the installed one.
        assume: names of the candidate's assumptions.
        isolated: whether the candidate runs in yet another process, of its own.
    """

    saved: SavedCase
    stages: Sequence[str]
    time_limit: float
    release: str | None = None
    assume: tuple[str, ...] = ()
    isolated: bool = False

    def judgements(self) -> list[Judgement]:
        """Returns the judgements on the candidate, or the judgement that it ends the process."""
        with tempfile.TemporaryDirectory(prefix="alone-") as folder:
            case, answer = Path(folder, "case.json"), Path(folder, "answer")
            self.saved.write_to(case)
            command = [sys.executable, "-m", "properties.differential.repeat_alone", str(case), str(answer), ",".join(self.stages)]
            command += [f"--time-limit={self.time_limit}", *([f"--reference={self.release}"] if self.release else [])]
            command += [*(f"--assume={name}" for name in self.assume), *(["--isolated"] if self.isolated else [])]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            try:
                timeout = MOST_CALLS * KILL_FACTOR * self.time_limit + 900
                ended = subprocess.run(command, env=environment, capture_output=True, timeout=timeout, check=False)
            except subprocess.TimeoutExpired:
                return _ended("did not end", self.time_limit)
            if answer.exists():
                found: list[Judgement] = pickle.loads(answer.read_bytes())
                return found
            return _ended(_exit_text(ended), self.time_limit)


def _exit_text(ended: subprocess.CompletedProcess[bytes]) -> str:
    if ended.returncode < 0:
        return f"ended by the signal {signal.Signals(-ended.returncode).name}"
    if b"Timeout (" in ended.stderr:
        return "hung in native code, beyond what a signal can interrupt"
    return f"ended with exit code {ended.returncode} during a call"


def _ended(how: str, limit: float) -> list[Judgement]:
    what = f"ended the process; repeated in a process of its own, with {limit:g} s for a call, that one {how}"
    return [differs(Finding(CONDUCT, ENDS, what))]


def main(arguments: Sequence[str] | None = None) -> None:
    """Compares, writes the judgements, and ends the process without waiting for threads of the candidate."""
    from properties.differential.recorder import Recorder  # which imports this module

    parser = argparse.ArgumentParser("python -m properties.differential.repeat_alone")
    parser.add_argument("case", type=Path)
    parser.add_argument("answer", type=Path)
    parser.add_argument("stages")
    parser.add_argument("--time-limit", type=float)
    parser.add_argument("--reference")
    parser.add_argument("--assume", action="append", default=[])
    parser.add_argument("--isolated", action="store_true")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    saved = read(options.case)
    chosen = {"release": options.reference, "time_limit": options.time_limit, "assume": options.assume, "isolated": options.isolated}
    recorder = Recorder([saved.contender], "", 0, **chosen)
    recorder.warm(saved.case, saved.setting)
    contenders = recorder.contenders(task_of(saved.case).name)
    compared = compare(saved.case, saved.setting, [contenders[saved.contender]], contenders["reference"], options.stages.split(","))
    with atomic_file(options.answer) as file:
        file.write_bytes(pickle.dumps(compared.results[0].judgements))
    os._exit(0)


if __name__ == "__main__":
    main()
