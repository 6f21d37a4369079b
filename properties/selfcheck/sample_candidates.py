"""Candidates that the suite tries itself on, as strangers' implementations: some must pass, the others must not.

Every function is a factory for ``--candidate properties.selfcheck.sample_candidates:NAME``. The misbehaving ones compute the twin's loss,
and sin on top.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import os
import time
from collections.abc import Callable
from typing import Any

import torch

from oracle.comparison.registry import shipped
from oracle.contract.contender import Criterion, LossAndItems
from properties.selfcheck.planted_faults.fault import Fault, Patch
from twinloss import DetectionLoss, LossSpec, assignment

Sin = Callable[[Any, Any], None]


def reference(spec: LossSpec) -> Criterion:
    """The reference as a stranger: judged like everybody, by its own error."""
    return shipped()["reference"].factory(spec)


reference.declines = shipped()["reference"].declines  # type: ignore[attr-defined]


def twin(spec: LossSpec) -> Criterion:
    """The twin as a stranger, held to float32 as it claims."""
    return DetectionLoss(spec, validate=True)


twin.arithmetic = "float32"  # type: ignore[attr-defined]


class Silent:
    """The twin's loss and nothing else, so that the judge has no stages to look at; ``sin`` comes before each call."""

    def __init__(self, spec: LossSpec, sin: Sin | None = None) -> None:
        self.criterion, self.sin = DetectionLoss(spec), sin

    def __call__(self, preds: Any, batch: Any) -> LossAndItems:
        """The twin's answer."""
        if self.sin is not None:
            self.sin(preds, batch)
        return self.criterion(preds, batch)


def silent(spec: LossSpec) -> Criterion:
    """Right, and shows no stage."""
    return Silent(spec)


def reference_silent(spec: LossSpec) -> Criterion:
    """The reference, and shows no stage."""
    return Hidden(reference(spec))


reference_silent.declines = reference.declines  # type: ignore[attr-defined]


class Hidden:
    """Another's loss and nothing else."""

    def __init__(self, criterion: Criterion) -> None:
        self.criterion = criterion

    def __call__(self, preds: Any, batch: Any) -> LossAndItems:
        """The other's answer."""
        return self.criterion(preds, batch)


def _rounded_otherwise(units: float, salt: float) -> Callable[[Any], Any]:
    """A function whose values are off by up to so many units in the last place: equal values by equally much."""

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
        Patch(assignment, "expected_distances", _rounded_otherwise(1.0, 1.3)),
        Patch(assignment, "ciou", _rounded_otherwise(2.0, 1.7)),
        Patch(assignment, "alignment_metric", _rounded_otherwise(2.0, 2.1)),
    ),
)


def other_rounding(spec: LossSpec) -> Criterion:
    """Right: with exponentials and logarithms of its own, whose last bits are not torch's."""
    return OTHER_ROUNDING.criterion(spec)


def other_rounding_silent(spec: LossSpec) -> Criterion:
    """The same, and shows no stage."""
    return Hidden(other_rounding(spec))


other_rounding.arithmetic = other_rounding_silent.arithmetic = "float32"  # type: ignore[attr-defined]


def one_fewer(spec: LossSpec) -> Criterion:
    """Wrong: K - 1 candidates a box."""
    return DetectionLoss(dataclasses.replace(spec, topk=max(spec.topk - 1, 1)))


def one_fewer_silent(spec: LossSpec) -> Criterion:
    """The same, and shows no stage."""
    return Silent(dataclasses.replace(spec, topk=max(spec.topk - 1, 1)))


one_fewer.arithmetic = one_fewer_silent.arithmetic = silent.arithmetic = "float32"  # type: ignore[attr-defined]


def raises(spec: LossSpec) -> Criterion:
    """Raises on a batch without boxes."""

    def sin(_: Any, batch: Any) -> None:
        if not len(batch["bboxes"]):
            raise IndexError("index 0 is out of bounds for dimension 0 with size 0")

    return Silent(spec, sin)


def exits(spec: LossSpec) -> Criterion:
    """Leaves through ``sys.exit``."""

    def sin(_: Any, __: Any) -> None:
        raise SystemExit(3)

    return Silent(spec, sin)


def hangs(spec: LossSpec) -> Criterion:
    """Waits for ever, and swallows whatever would wake it."""

    def sin(_: Any, __: Any) -> None:
        while True:
            with contextlib.suppress(Exception):
                time.sleep(3600)

    return Silent(spec, sin)


def hangs_in_native_code(spec: LossSpec) -> Criterion:
    """Waits for ever outside of Python, with the interpreter's lock held: no signal handler runs."""

    def sin(_: Any, __: Any) -> None:
        collections.deque(itertools.repeat(None), maxlen=0)

    return Silent(spec, sin)


def aborts(spec: LossSpec) -> Criterion:
    """Takes the process with it, as a segmentation fault does."""

    def sin(_: Any, __: Any) -> None:
        os.abort()

    return Silent(spec, sin)


class Transformed(Silent):
    """The twin's answer, changed afterwards."""

    def __init__(self, spec: LossSpec, change: Callable[[LossAndItems], Any]) -> None:
        super().__init__(spec)
        self.change = change

    def __call__(self, preds: Any, batch: Any) -> Any:
        """The changed answer."""
        return self.change(super().__call__(preds, batch))


def not_finite(spec: LossSpec) -> Criterion:
    """A box term that is no number."""
    return Transformed(spec, lambda answer: (answer[0] * torch.tensor([float("nan"), 1.0, 1.0], dtype=answer[0].dtype), answer[1]))


def scalar(spec: LossSpec) -> Criterion:
    """The sum instead of the three terms."""
    return Transformed(spec, lambda answer: (answer[0].sum(), answer[1]))


def no_items(spec: LossSpec) -> Criterion:
    """The loss alone."""
    return Transformed(spec, lambda answer: answer[0])


def half(spec: LossSpec) -> Criterion:
    """A float16 loss."""
    return Transformed(spec, lambda answer: (answer[0].half(), answer[1]))


def changes_boxes(spec: LossSpec) -> Criterion:
    """Turns the ground truth into pixels in place, and past autograd's counters."""

    def sin(_: Any, batch: Any) -> None:
        batch["bboxes"].data.mul_(640)

    class Careful(Silent):
        def __call__(self, preds: Any, batch: Any) -> LossAndItems:
            answer = super().__call__(preds, batch)
            sin(preds, batch)
            return answer

    return Careful(spec)


def leaves_a_key(spec: LossSpec) -> Criterion:
    """Leaves something behind in the batch."""

    def sin(_: Any, batch: Any) -> None:
        batch["pixels"] = batch["bboxes"] * 640

    return Silent(spec, sin)


def changes_the_default_dtype(spec: LossSpec) -> Criterion:
    """Sets torch's default dtype, and leaves it so."""

    def sin(_: Any, __: Any) -> None:
        torch.set_default_dtype(torch.float64)

    return Silent(spec, sin)


class Averaging(Silent):
    """Divides by a moving average of the loss, which every call moves."""

    average = 1.0

    def __call__(self, preds: Any, batch: Any) -> LossAndItems:
        """The loss, scaled."""
        loss, items = super().__call__(preds, batch)
        self.average = 0.9 * self.average + 0.1 * float(loss.detach().sum())
        return loss / self.average, items


class Caching(Silent):
    """Remembers the ground truth's scale by the number of anchors, as if it said the shape of the grids."""

    def __init__(self, spec: LossSpec) -> None:
        super().__init__(spec)
        self.shapes: dict[str, Any] = {}

    def __call__(self, preds: Any, batch: Any) -> LossAndItems:
        """The loss on the grids of the first batch that had as many anchors."""
        feats = self.shapes.setdefault("feats", preds["feats"])
        if sum(level[0, 0].numel() for level in feats) == sum(level[0, 0].numel() for level in preds["feats"]):
            preds = {**preds, "feats": feats}
        return super().__call__(preds, batch)


class Growing(Silent):
    """Pads to the most boxes that it has ever seen, and divides by them."""

    most = 1

    def __call__(self, preds: Any, batch: Any) -> LossAndItems:
        """The loss, scaled by the number of anchors of the largest batch so far."""
        self.most = max(self.most, preds["scores"].shape[-1])
        loss, items = super().__call__(preds, batch)
        return loss * (preds["scores"].shape[-1] / self.most), items


def keeps_state(spec: LossSpec) -> Criterion:
    """Changes from call to call."""
    return Averaging(spec)


def stale_cache(spec: LossSpec) -> Criterion:
    """Right on the first shape, wrong on another with as many anchors."""
    return Caching(spec)


def depends_on_history(spec: LossSpec) -> Criterion:
    """Wrong on a batch that follows a larger one."""
    return Growing(spec)
