"""The process that measures: ``python -m benches.measure.worker`` reads requests as lines of JSON and writes a line for each.

It is a separate process because malloc settings and the twin's revision are fixed at process start, and because the memory layout of each
process biases its times. Output that contenders print goes to standard error, apart from the answers.
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
    """Answers requests: each public method is one kind of request."""

    def __init__(self) -> None:
        self.timing: Any = None

    def start(self, threads: int) -> Answer:
        """Set the number of threads; returns the installed versions."""
        import torch

        from benches.measure.environment import versions

        torch.set_num_threads(threads)
        return versions()

    def open(self, contenders: list[str], case_folder: str, dtype: str, setting: dict[str, Any], seed: int) -> Answer:
        """Load a batch, make the contenders and warm them; returns the failures and the warm-ups by contender."""
        from benches.measure.case_files import load, load_spec
        from benches.measure.timing import CallSetting, InterleavedTiming
        from benches.plan.contenders import BenchContender

        self.timing = None  # Frees the previous batch before the next one is loaded.
        folder, context = Path(case_folder), CallSetting(**setting)
        inputs = load(folder, dtype, context.device)
        self.timing = InterleavedTiming([BenchContender.parse(label) for label in contenders], load_spec(folder), inputs, context, seed)
        warm = self.timing.warm()
        return {"failures": self.timing.failures, "warm": {label: asdict(report) for label, report in warm.items()}}

    def rounds(self, seconds: float, min_rounds: int, max_rounds: int) -> Answer:
        """Returns rounds: interleaved samples of the contenders."""
        return self.timing.rounds(seconds, min_rounds, max_rounds)

    def turn(self, calls: dict[str, int]) -> Answer:
        """Returns consecutive samples of each contender, as many as ``calls`` gives."""
        return self.timing.turn(calls)

    def exact(self) -> Answer:
        """Returns the counts of each contender: peak bytes of loss and step, and on a GPU launches and synchronisations."""
        from benches.measure.counts import measures

        return {label: measures(loaded) for label, loaded in self.timing.loaded.items()}

    def stages(self, seconds: float) -> Answer:
        """Returns rounds of nanoseconds by stage, for each contender; empty where it has no stages."""
        from benches.measure.stage_times import stage_rounds

        return {label: stage_rounds(loaded, seconds) for label, loaded in self.timing.loaded.items()}

    def floor(self) -> Answer:
        """Returns the machine's rates, measured in this process."""
        from benches.measure.machine_rates import machine_rates

        return machine_rates()

    def training(self, model: str, case_folder: str, contenders: list[str], steps: int) -> Answer:
        """Returns the nanoseconds of whole training steps: of the model, and of each contender's loss."""
        from benches.measure.training_step import training_steps

        return training_steps(model, Path(case_folder), contenders, steps)


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer requests until the input ends; an error is sent as an answer."""
    service = WorkerService()
    for line in requests:
        request = json.loads(line)
        try:
            method: Callable[..., Answer] = getattr(service, request["do"])
            reply: dict[str, Any] = {"answer": method(**request["with"])}
        except Exception as error:  # sent to the client, which raises it
            reply = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()


def main() -> None:
    """Serve standard input. The file descriptor of standard output is redirected, so that it carries answers only."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    import torch  # noqa: F401 - imported before the first request, so that workers started together import it at the same time

    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
