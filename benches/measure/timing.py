"""Times contenders call by call, interleaved, in this process.

A round is one call of each contender, in an order that is drawn anew for every round. Ratios are formed within a round only, so that a
drift of the machine's speed cancels.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from benches.measure import cuda
from benches.measure.case_files import LoadedCase
from benches.plan.contenders import BenchContender, make_criterion
from benches.plan.malloc_settings import minor_faults

if TYPE_CHECKING:
    from twinloss import LossSpec

WARM_ROUNDS = (3, 12)  # Bounds on the rounds before the first sample; the warm-up ends when faults no longer fall.
FEW_FAULTS = 500  # A warm call on a steady heap causes none; the interpreter causes dozens.


@dataclass(frozen=True)
class Sample:
    """One call: nanoseconds of the loss, of its gradients, and of processor time (all threads) for both; pages faulted in."""

    forward_ns: int
    backward_ns: int
    cpu_ns: int
    minor_faults: int


@dataclass(frozen=True)
class CallSetting:
    """Device and autocast of a criterion's calls."""

    device: str = "cpu"
    autocast: str | None = None

    @contextmanager
    def forward_context(self) -> Iterator[None]:
        """The context of the forward call, as a trainer sets it."""
        if self.autocast is None:
            yield
            return
        with torch.autocast(torch.device(self.device).type, dtype=getattr(torch, self.autocast)):
            yield


class LoadedContender:
    """A contender with its criterion and the batch that it is called on."""

    def __init__(self, contender: BenchContender, spec: LossSpec, inputs: LoadedCase, setting: CallSetting) -> None:
        self.contender, self.inputs, self.setting = contender, inputs, setting
        self.criterion = make_criterion(contender, spec, setting.device)
        self.replay: cuda.Replay | None = None

    def forward(self) -> torch.Tensor:
        """Returns the sum of the loss terms, with its autograd graph."""
        with self.setting.forward_context():
            loss: torch.Tensor = self.criterion(*self.inputs)[0].sum()
        return loss

    def step(self) -> None:
        """Compute the loss and its gradients, after dropping earlier gradients."""
        self.clear()
        self.forward().backward()

    def clear(self) -> None:
        """Drop the gradients, so that the next call allocates new ones."""
        for leaf in self.inputs.leaves():
            leaf.grad = None

    def sample(self) -> Sample:
        """Time one call."""
        if self.setting.device != "cpu":
            return self._sample_device()
        self.clear()
        faults, processor = minor_faults(), time.process_time_ns()
        start = time.perf_counter_ns()
        loss = self.forward()
        between = time.perf_counter_ns()
        loss.backward()
        end = time.perf_counter_ns()
        return Sample(between - start, end - between, time.process_time_ns() - processor, minor_faults() - faults)

    def _sample_device(self) -> Sample:
        """Time one call by events in the device's stream; a graph replay is one launch, and its whole time is given as the forward time."""
        if self.contender.backend.endswith("+graph"):
            self.replay = self.replay or cuda.Replay(self.step)
            faults, processor = minor_faults(), time.process_time_ns()
            (elapsed,) = cuda.timed(self.replay.run)
            return Sample(elapsed, 0, time.process_time_ns() - processor, minor_faults() - faults)
        self.clear()
        faults, processor, losses = minor_faults(), time.process_time_ns(), list[torch.Tensor]()
        forward, backward = cuda.timed(lambda: losses.append(self.forward()), lambda: losses.pop().backward())
        return Sample(forward, backward, time.process_time_ns() - processor, minor_faults() - faults)


@dataclass(frozen=True)
class WarmUp:
    """The calls before the first sample: milliseconds of the first one (including compilation), and the number of rounds."""

    first_ms: float
    rounds: int


class InterleavedTiming:
    """Contenders on one batch, called in turns. Those that cannot be made or called are left out; :attr:`failures` holds their errors."""

    def __init__(self, contenders: list[BenchContender], spec: LossSpec, inputs: LoadedCase, setting: CallSetting, seed: int = 0) -> None:
        self.order = random.Random(seed)
        # A candidate may remember answers; so that all are treated alike, every contender then gets new numbers before each call.
        self.fresh = any(contender.is_candidate for contender in contenders)
        self.failures: dict[str, str] = {}
        self.loaded: dict[str, LoadedContender] = {}
        self.first_ms: dict[str, float] = {}
        for contender in contenders:
            if failure := self._admit(contender, spec, inputs, setting):
                self.failures[contender.label] = failure

    def _admit(self, contender: BenchContender, spec: LossSpec, inputs: LoadedCase, setting: CallSetting) -> str:
        """Make and call a contender once; returns the first line of what it raised, or an empty text. An error does not end the run."""
        start = time.perf_counter()
        try:
            loaded = LoadedContender(contender, spec, inputs, setting)
            loaded.step()
        except Exception as error:
            return f"{type(error).__name__}: {error}".splitlines()[0][:300]
        self.first_ms[contender.label] = 1e3 * (time.perf_counter() - start)
        self.loaded[contender.label] = loaded
        return ""

    def warm(self) -> dict[str, WarmUp]:
        """Call all contenders until page faults no longer fall, so that a steady heap has stopped growing."""
        least, most = WARM_ROUNDS
        faults = float("inf")
        for done in range(1, most + 1):
            before, faults = faults, max((sample.minor_faults for sample in self.round().values()), default=0)
            if done >= least and (faults < FEW_FAULTS or faults > 0.9 * before):
                break
        # Objects that exist now are exempt from later collections, each of which would otherwise take as long as a call.
        gc.collect()
        gc.freeze()
        return {label: WarmUp(self.first_ms[label], done) for label in self.loaded}

    def round(self) -> dict[str, Sample]:
        """Returns one sample of every contender."""
        labels = sorted(self.loaded)
        self.order.shuffle(labels)
        return {label: self._sample(label) for label in labels}

    def _sample(self, label: str) -> Sample:
        """Returns a sample; where a candidate is among the contenders, of inputs that none of them has seen."""
        if self.fresh:
            self.loaded[label].inputs.renew(self.order)
        return self.loaded[label].sample()

    def turn(self, calls: dict[str, int]) -> dict[str, list[dict[str, int]]]:
        """Returns consecutive samples of each contender, as many as ``calls`` gives."""
        with collected_before():
            return {label: [asdict(self._sample(label)) for _ in range(count)] for label, count in calls.items()}

    def rounds(self, seconds: float, min_rounds: int, max_rounds: int) -> list[dict[str, Any]]:
        """Returns the rounds taken in so many seconds, within bounds; garbage is collected between rounds and not within."""
        samples: list[dict[str, Any]] = []
        end = time.perf_counter() + seconds
        while len(samples) < min_rounds or (time.perf_counter() < end and len(samples) < max_rounds):
            with collected_before():
                samples.append({label: asdict(sample) for label, sample in self.round().items()})
        return samples


@contextmanager
def collected_before() -> Iterator[None]:
    """Collect garbage before the block, and none within it."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
