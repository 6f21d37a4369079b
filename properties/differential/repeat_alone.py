"""One comparison of a candidate again, in a process of its own, whose word counts about one that hangs or that a process ended in.

A process that was interrupted is not to be trusted afterwards, and one that ended may have been ended from outside; a fresh one, while
nobody else of the run computes, decides.
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
from oracle.contract.time_limit import LAST
from oracle.contract.verdict import Finding, Judgement, differs
from oracle.tools.atomic_files import whole
from properties.differential.saved_cases import Saved, read

CALLS = 20
"""Calls of one comparison, at most; the process is given the time that so many may take."""

ENDS = "ends the process"


@dataclass(frozen=True)
class Asked:
    """What is asked again.

    Attributes:
        saved: the batch, its setting, and the candidate.
        stages: of the comparison.
        time_limit: seconds that a call may take.
        release: of the reference that takes part, where it is not the installed one.
        assume: what the candidate is taken to assume.
    """

    saved: Saved
    stages: Sequence[str]
    time_limit: float
    release: str | None = None
    assume: tuple[str, ...] = ()

    def judgements(self) -> list[Judgement]:
        """What is said of the candidate; that it ends the process, when it does."""
        with tempfile.TemporaryDirectory(prefix="alone-") as folder:
            case, answer = Path(folder, "case.json"), Path(folder, "answer")
            self.saved.write_to(case)
            command = [sys.executable, "-m", "properties.differential.repeat_alone", str(case), str(answer), ",".join(self.stages)]
            command += [f"--time-limit={self.time_limit}", *([f"--reference={self.release}"] if self.release else [])]
            command += [f"--assume={name}" for name in self.assume]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            try:
                patience = CALLS * LAST * self.time_limit + 900
                ended = subprocess.run(command, env=environment, capture_output=True, timeout=patience, check=False)
            except subprocess.TimeoutExpired:
                return _ends("did not end", self.time_limit)
            if answer.exists():
                found: list[Judgement] = pickle.loads(answer.read_bytes())
                return found
            return _ends(_how(ended), self.time_limit)


def _how(ended: subprocess.CompletedProcess[bytes]) -> str:
    if ended.returncode < 0:
        return f"ended by the signal {signal.Signals(-ended.returncode).name}"
    if b"Timeout (" in ended.stderr:
        return "hung in native code, beyond what a signal can interrupt"
    return f"ended with {ended.returncode} in the middle of a call"


def _ends(how: str, limit: float) -> list[Judgement]:
    what = f"ended the process; repeated in a process of its own, with {limit:g} s for a call, that one {how}"
    return [differs(Finding(CONDUCT, ENDS, what))]


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare, leave the answer, and end at once, whatever threads the candidate has started."""
    from properties.differential.recorder import Recorder  # which asks this module in its turn

    parser = argparse.ArgumentParser("python -m properties.differential.repeat_alone")
    parser.add_argument("case", type=Path)
    parser.add_argument("answer", type=Path)
    parser.add_argument("stages")
    parser.add_argument("--time-limit", type=float)
    parser.add_argument("--reference")
    parser.add_argument("--assume", action="append", default=[])
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    saved = read(options.case)
    recorder = Recorder([saved.contender], "", 0, release=options.reference, time_limit=options.time_limit, assume=options.assume)
    recorder.warm(saved.setting)
    contenders = recorder.contenders
    said = compare(saved.case, saved.setting, [contenders[saved.contender]], contenders["reference"], options.stages.split(",")).said
    with whole(options.answer) as file:
        file.write_bytes(pickle.dumps(said[0].judgements))
    os._exit(0)


if __name__ == "__main__":
    main()
