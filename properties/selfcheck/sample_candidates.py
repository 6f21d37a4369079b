"""Candidates for the suite's own tests, in the form of a user's implementation. Some must pass; the others must not.

Every function is a factory for ``--candidate properties.selfcheck.sample_candidates:NAME``. The misbehaving ones compute the twin's loss
and break one rule of conduct.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import itertools
import os
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from oracle.cases.case import Inputs, Setting
from oracle.comparison.registry import TWINS, shipped
from oracle.contract.contender import Criterion, LossAndItems
from properties.selfcheck.planted_faults.fault import Fault, Patch
from twinloss import DetectionLoss, LossSpec
from twinloss.assignment import assign as assignment
from twinloss.geometry import upright

Misbehave = Callable[[Any, Any], None]


def reference(spec: LossSpec, **options: Any) -> Criterion:
    """Correct: the reference as a candidate."""
    return shipped(spec.task)["reference"].factory(spec, **options)


def _reference_declines(spec: LossSpec, inputs: Inputs, setting: Setting) -> str | None:
    declines = shipped(spec.task)["reference"].declines
    return declines(spec, inputs, setting) if declines else None


reference.declines = _reference_declines  # type: ignore[attr-defined]


def twin(spec: LossSpec, **options: Any) -> Criterion:
    """Correct: the twin as a candidate, judged by float32 arithmetic."""
    return TWINS[spec.task](spec, validate=True, **options)


twin.arithmetic = "float32"  # type: ignore[attr-defined]


class LossOnly:
    """A criterion that shows the loss and no stages; ``misbehave`` runs before each call."""

    def __init__(self, criterion: Criterion, misbehave: Misbehave | None = None) -> None:
        self.criterion, self.misbehave = criterion, misbehave

    def __call__(self, preds: Any, batch: Any) -> LossAndItems:
        """Returns the criterion's answer."""
        if self.misbehave is not None:
            self.misbehave(preds, batch)
        return self.criterion(preds, batch)


class TwinLossOnly(LossOnly):
    """The twin, without stages; ``misbehave`` runs before each call."""

    def __init__(self, spec: LossSpec, misbehave: Misbehave | None = None, **options: Any) -> None:
        super().__init__(TWINS[spec.task](spec, **options), misbehave)


def silent(spec: LossSpec, **options: Any) -> Criterion:
    """Correct: the twin, without stages."""
    return TwinLossOnly(spec, **options)


def reference_silent(spec: LossSpec, **options: Any) -> Criterion:
    """Correct: the reference, without stages."""
    return LossOnly(reference(spec, **options))


reference_silent.declines = reference.declines  # type: ignore[attr-defined]


def _rounded_otherwise(units: float, salt: float) -> Callable[[Any], Any]:
    """Returns a replacement whose values differ by up to ``units`` units in the last place; equal values stay equal."""

    def make(sound: Any) -> Any:
        def rounded(*given: Any) -> Any:
            value = sound(*given)
            unit = torch.finfo(value.dtype).eps / 2
            spread = torch.sin(value.double() * salt * 1e6) * 43758.5453
            return (value.double() * (1 + units * unit * ((spread - spread.floor()) * 2 - 1))).to(value.dtype)

        return rounded

    return make


OTHER_ROUNDING = Fault(
    "other rounding",
    "",
    "",
    patches=(
        Patch(upright, "expected_distances", _rounded_otherwise(1.0, 1.3)),
        Patch(upright, "ciou", _rounded_otherwise(2.0, 1.7)),
        Patch(assignment, "alignment_metric", _rounded_otherwise(2.0, 2.1)),
    ),
)


def other_rounding(spec: LossSpec, **options: Any) -> Criterion:
    """Correct: the twin with other last bits, like an implementation with its own exponential and logarithm."""
    return OTHER_ROUNDING.criterion(spec, **options)


def other_rounding_silent(spec: LossSpec, **options: Any) -> Criterion:
    """Correct: :func:`other_rounding` without stages."""
    return LossOnly(other_rounding(spec, **options))


other_rounding.arithmetic = other_rounding_silent.arithmetic = "float32"  # type: ignore[attr-defined]


def one_fewer(spec: LossSpec) -> Criterion:
    """Wrong: K - 1 candidates for each box."""
    return DetectionLoss(dataclasses.replace(spec, topk=max(spec.topk - 1, 1)))


def one_fewer_silent(spec: LossSpec) -> Criterion:
    """Wrong: :func:`one_fewer` without stages."""
    return LossOnly(one_fewer(spec))


one_fewer.arithmetic = one_fewer_silent.arithmetic = silent.arithmetic = "float32"  # type: ignore[attr-defined]


def raises(spec: LossSpec) -> Criterion:
    """Raises on a batch without boxes."""

    def misbehave(_: Any, batch: Any) -> None:
        if not len(batch["bboxes"]):
            raise IndexError("index 0 is out of bounds for dimension 0 with size 0")

    return TwinLossOnly(spec, misbehave)


def warns(spec: LossSpec) -> Criterion:
    """Right, and warns of itself as a library does that is about to change."""

    def misbehave(_: Any, __: Any) -> None:
        warnings.warn("this loss will be another in the next release", FutureWarning, stacklevel=1)

    return TwinLossOnly(spec, misbehave)


def unprintable(spec: LossSpec) -> Criterion:
    """Raises an exception whose message cannot be written."""

    def misbehave(_: Any, __: Any) -> None:
        raise asyncio.CancelledError("half a character: \ud83d")

    return TwinLossOnly(spec, misbehave)


def computes_for_ever_at_times(spec: LossSpec) -> Criterion:
    """Hangs once, in the first process that calls it, as one that waits for somebody does: the variable HUNG_ONCE names a file for that."""

    def misbehave(_: Any, __: Any) -> None:
        once = Path(os.environ["HUNG_ONCE"])
        if not once.exists():
            once.touch()
            while True:
                pass

    return TwinLossOnly(spec, misbehave)


def ended_from_outside(spec: LossSpec) -> Criterion:
    """Right; somebody ends the first process that calls it, which HUNG_ONCE remembers."""

    def misbehave(_: Any, __: Any) -> None:
        once = Path(os.environ["HUNG_ONCE"])
        if not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    return TwinLossOnly(spec, misbehave)


def interrupted(spec: LossSpec) -> Criterion:
    """Right; somebody interrupts the whole run at its third call: HUNG_ONCE counts them, SIGNAL says how."""

    def misbehave(_: Any, __: Any) -> None:
        calls = Path(os.environ["HUNG_ONCE"])
        calls.write_text(f"{calls.read_text() if calls.exists() else ''}.")
        if len(calls.read_text()) == int(os.environ["CALLS"]):
            os.killpg(0, getattr(signal, os.environ["SIGNAL"]))
            time.sleep(60)

    return TwinLossOnly(spec, misbehave)


def exits(spec: LossSpec) -> Criterion:
    """Calls ``sys.exit``."""

    def misbehave(_: Any, __: Any) -> None:
        raise SystemExit(3)

    return TwinLossOnly(spec, misbehave)


def hangs(spec: LossSpec) -> Criterion:
    """Waits for ever, and suppresses every exception."""

    def misbehave(_: Any, __: Any) -> None:
        while True:
            with contextlib.suppress(Exception):
                time.sleep(3600)

    return TwinLossOnly(spec, misbehave)


def hangs_in_native_code(spec: LossSpec) -> Criterion:
    """Waits for ever in native code with the interpreter's lock held, so that no signal handler runs."""

    def misbehave(_: Any, __: Any) -> None:
        collections.deque(itertools.repeat(None), maxlen=0)

    return TwinLossOnly(spec, misbehave)


def aborts(spec: LossSpec) -> Criterion:
    """Ends the process, like a segmentation fault."""

    def misbehave(_: Any, __: Any) -> None:
        os.abort()

    return TwinLossOnly(spec, misbehave)


class Transformed(LossOnly):
    """The twin's answer, changed afterwards."""

    def __init__(self, spec: LossSpec, change: Callable[[LossAndItems], Any]) -> None:
        super().__init__(DetectionLoss(spec))
        self.change = change

    def __call__(self, preds: Any, batch: Any) -> Any:
        """Returns the changed answer."""
        return self.change(super().__call__(preds, batch))


def not_finite(spec: LossSpec) -> Criterion:
    """Returns NaN as the box term."""
    return Transformed(spec, lambda answer: (answer[0] * torch.tensor([float("nan"), 1.0, 1.0], dtype=answer[0].dtype), answer[1]))


def scalar(spec: LossSpec) -> Criterion:
    """Returns the sum instead of the three terms."""
    return Transformed(spec, lambda answer: (answer[0].sum(), answer[1]))


def no_items(spec: LossSpec) -> Criterion:
    """Returns the loss without the items."""
    return Transformed(spec, lambda answer: answer[0])


def half(spec: LossSpec) -> Criterion:
    """Returns a float16 loss."""
    return Transformed(spec, lambda answer: (answer[0].half(), answer[1]))


def changes_boxes(spec: LossSpec) -> Criterion:
    """Scales the ground truth to pixels in place after the loss, without autograd's notice."""
    criterion = DetectionLoss(spec)

    def loss(preds: Any, batch: Any) -> LossAndItems:
        answer = criterion(preds, batch)
        batch["bboxes"].data.mul_(640)
        return answer

    return loss


def leaves_a_key(spec: LossSpec) -> Criterion:
    """Adds a key to the batch."""

    def misbehave(_: Any, batch: Any) -> None:
        batch["pixels"] = batch["bboxes"] * 640

    return TwinLossOnly(spec, misbehave)


def changes_the_default_dtype(spec: LossSpec) -> Criterion:
    """Changes torch's default dtype and does not restore it."""

    def misbehave(_: Any, __: Any) -> None:
        torch.set_default_dtype(torch.float64)

    return TwinLossOnly(spec, misbehave)


class Averaging(LossOnly):
    """Divides by a moving average of the loss, which changes with every call."""

    average = 1.0

    def __call__(self, preds: Any, batch: Any) -> LossAndItems:
        """Returns the loss divided by the average."""
        loss, items = super().__call__(preds, batch)
        self.average = 0.9 * self.average + 0.1 * float(loss.detach().sum())
        return loss / self.average, items


class Caching(LossOnly):
    """Keeps the feature maps of the first batch for all batches with as many anchors, whatever the shapes of their grids."""

    def __init__(self, criterion: Criterion) -> None:
        super().__init__(criterion)
        self.shapes: dict[str, Any] = {}

    def __call__(self, preds: Any, batch: Any) -> LossAndItems:
        """Returns the loss on the grids of the first batch with as many anchors."""
        feats = self.shapes.setdefault("feats", preds["feats"])
        if sum(level[0, 0].numel() for level in feats) == sum(level[0, 0].numel() for level in preds["feats"]):
            preds = {**preds, "feats": feats}
        return super().__call__(preds, batch)


class Growing(LossOnly):
    """Scales by the largest number of anchors of all batches until now."""

    most = 1

    def __call__(self, preds: Any, batch: Any) -> LossAndItems:
        """Returns the loss, times the number of anchors over the largest number until now."""
        self.most = max(self.most, preds["scores"].shape[-1])
        loss, items = super().__call__(preds, batch)
        return loss * (preds["scores"].shape[-1] / self.most), items


def keeps_state(spec: LossSpec) -> Criterion:
    """Wrong: the result depends on the number of earlier calls."""
    return Averaging(DetectionLoss(spec))


def stale_cache(spec: LossSpec) -> Criterion:
    """Wrong on a second shape of grids with as many anchors as the first."""
    return Caching(DetectionLoss(spec))


def depends_on_history(spec: LossSpec) -> Criterion:
    """Wrong on a batch that follows a larger one."""
    return Growing(DetectionLoss(spec))


for _right in (warns, computes_for_ever_at_times, ended_from_outside, interrupted):
    _right.arithmetic = "float32"  # type: ignore[attr-defined]
