"""Times of a step's stages: ground truth, decoding, assignment, terms, gradients.

The reference's stages are timed within a whole call, at its public entry points. A contender that offers its stages is called for one stage
at a time; the twin decodes within the assignment, so it has no stage for decoding.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from benches.measure.timing import LoadedContender, collected_before

ENTRY_POINTS = {"preprocess": "ground truth", "bbox_decode": "decoding", "assigner": "assignment"}
LEAST_ROUNDS = 5


def stage_rounds(loaded: LoadedContender, seconds: float) -> list[dict[str, int]]:
    """Returns the nanoseconds by stage of each round, for so many seconds; empty for a contender without stages."""
    measure = _measure(loaded)
    if measure is None:
        return []
    rounds: list[dict[str, int]] = []
    end = time.perf_counter() + seconds
    while len(rounds) < LEAST_ROUNDS or time.perf_counter() < end:
        with collected_before():
            rounds.append(measure())
    return rounds


def _measure(loaded: LoadedContender) -> Callable[[], dict[str, int]] | None:
    criterion: Any = loaded.criterion
    if all(hasattr(criterion, name) for name in ENTRY_POINTS):
        return _EntryPointTimers(loaded)
    if all(hasattr(criterion, name) for name in ("targets", "assign", "loss_given")):
        return lambda: _called_alone(loaded)
    return None


class _EntryPointTimers:
    """Timers around the entry points of a criterion, which read a whole call."""

    def __init__(self, loaded: LoadedContender) -> None:
        self.loaded = loaded
        self.spent: dict[str, int] = {}
        for entry_point, stage in ENTRY_POINTS.items():
            inner = getattr(loaded.criterion, entry_point)
            setattr(loaded.criterion, entry_point, self._watched(inner, stage))

    def _watched(self, inner: Callable[..., Any], stage: str) -> Callable[..., Any]:
        def watched(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter_ns()
            answer = inner(*arguments, **named)
            self.spent[stage] = self.spent.get(stage, 0) + time.perf_counter_ns() - start
            return answer

        return watched

    def __call__(self) -> dict[str, int]:
        self.spent = {}
        sample = self.loaded.sample()
        return self.spent | {"terms": sample.forward_ns - sum(self.spent.values()), "gradients": sample.backward_ns}


def _called_alone(loaded: LoadedContender) -> dict[str, int]:
    """Returns the times of the stages of a criterion that offers them; the time of earlier stages in the same call is subtracted."""
    criterion: Any = loaded.criterion
    preds, batch = loaded.inputs
    truth, _ = _timed(loaded, lambda: criterion.targets(preds, batch))
    assignment, held = _timed(loaded, lambda: criterion.assign(preds, batch))
    loaded.clear()
    terms, (loss, _) = _timed(loaded, lambda: criterion.loss_given(preds, batch, held))
    total = loss.sum()
    start = time.perf_counter_ns()
    total.backward()
    gradients = time.perf_counter_ns() - start
    return {"ground truth": truth, "assignment": assignment - truth, "terms": terms - truth, "gradients": gradients}


def _timed(loaded: LoadedContender, call: Callable[[], Any]) -> tuple[int, Any]:
    with loaded.setting.forward_context():
        start = time.perf_counter_ns()
        answer = call()
        return time.perf_counter_ns() - start, answer
