"""The process that measures: ``python -m benches.measure.worker`` takes requests as lines of JSON on its input and answers on its output.

It is a process of its own because the heap and the twin's revision are decided when one starts, and because every process has a memory
layout, and so a bias, of its own. What contenders print goes to standard error, which keeps the answers apart.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

Answer = Any


class WorkerService:
    """Answers requests: each public method is one."""

    def __init__(self) -> None:
        self.timing: Any = None

    def start(self, threads: int) -> Answer:
        """Settle the number of threads; the answer is what is installed here."""
        import torch

        from benches.measure.environment import versions

        torch.set_num_threads(threads)
        return versions()

    def open(self, contenders: list[str], case_folder: str, dtype: str, setting: dict[str, Any], seed: int) -> Answer:
        """Load a batch, make the contenders and warm them; the answer is who failed, and what warming took."""
        from benches.measure.case_files import load, load_spec
        from benches.measure.timing import CallSetting, InterleavedTiming
        from benches.plan.contenders import BenchContender

        self.timing = None  # The batch before makes room first.
        folder, context = Path(case_folder), CallSetting(**setting)
        inputs = load(folder, dtype, context.device)
        self.timing = InterleavedTiming([BenchContender.parse(label) for label in contenders], load_spec(folder), inputs, context, seed)
        warm = self.timing.warm()
        return {"failures": self.timing.failures, "warm": {label: asdict(report) for label, report in warm.items()}}

    def rounds(self, seconds: float, min_rounds: int, max_rounds: int) -> Answer:
        """Interleaved samples of the contenders, a list of rounds."""
        return self.timing.rounds(seconds, min_rounds, max_rounds)

    def turn(self, calls: dict[str, int]) -> Answer:
        """So many samples of each contender in a row."""
        return self.timing.turn(calls)

    def exact(self) -> Answer:
        """For each contender what has no noise: peak bytes of loss and step, and on a GPU launches and synchronisations."""
        from benches.measure.counts import measures

        return {label: measures(loaded) for label, loaded in self.timing.loaded.items()}

    def stages(self, seconds: float) -> Answer:
        """For each contender that offers its stages the nanoseconds of each, a list of rounds."""
        from benches.measure.stage_times import stage_rounds

        return {label: stage_rounds(loaded, seconds) for label, loaded in self.timing.loaded.items()}

    def floor(self) -> Answer:
        """What this machine can move and compute, in the process's own conditions."""
        from benches.measure.machine_rates import machine_rates

        return machine_rates()

    def training(self, model: str, case_folder: str, contenders: list[str], steps: int) -> Answer:
        """Nanoseconds of forward, loss, backward of the loss and of the model, for whole training steps."""
        from benches.measure.training_step import training_steps

        return training_steps(model, Path(case_folder), contenders, steps)


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer until the input ends; an error is an answer too."""
    service = WorkerService()
    for line in requests:
        request = json.loads(line)
        try:
            method: Callable[..., Answer] = getattr(service, request["do"])
            reply: dict[str, Any] = {"answer": method(**request["with"])}
        except Exception as error:  # passed on, and raised where the request came from
            reply = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()


def main() -> None:
    """Serve standard input; standard output is kept for answers alone, at the level of the operating system too."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    import torch  # noqa: F401 - it takes seconds, which two workers that were started together now spend at the same time

    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
