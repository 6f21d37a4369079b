"""Candidates that cheat: each would pass a judge in its own process, on small batches, early in a run. None may conform.

Every function is a factory for ``--candidate properties.selfcheck.cheating_candidates:NAME``. The module imports no part of the suite but
where a cheat is about the suite: it is meant for a process of its own. :mod:`properties.selfcheck.cheats` lists what gives each away.
"""

from __future__ import annotations

import contextlib
import decimal
import gc
import importlib
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twinloss import DetectionLoss, LossSpec

Result = tuple[Tensor, dict[str, Tensor]]
CALLS = 3000
LOGITS = 100_000
AGES_S = 3600.0


def _sound(spec: LossSpec) -> Callable[[Any, Any], Result]:
    return DetectionLoss(spec, validate=True)


def _wrong(result: Result) -> Result:
    """Returns a loss that is 3 % too large, with its items."""
    loss, items = result
    return loss * 1.03, {name: value * 1.03 for name, value in items.items()}


def _wrong_when(spec: LossSpec, when: Callable[[Any, Any], bool]) -> Callable[[Any, Any], Result]:
    sound = _sound(spec)
    return lambda preds, batch: _wrong(sound(preds, batch)) if when(preds, batch) else sound(preds, batch)


def patches_the_judge(spec: LossSpec) -> Any:
    """Wrong, and replaces the functions that judge in every module of the suite that its process can import."""
    for name, attribute in (("oracle.judge.loss_and_gradients", "outcome_errors"), ("oracle.contract.verdict", "ratio")):
        with contextlib.suppress(ImportError):
            setattr(importlib.import_module(name), attribute, lambda *_, **__: 0.0)
    for module in [one for name, one in sys.modules.items() if name.partition(".")[0] in ("oracle", "inside")]:
        for attribute in ("judge_quantity", "check_tensor", "compare"):
            if hasattr(module, attribute):
                setattr(module, attribute, lambda *_, **__: None)
    return _wrong_when(spec, lambda _, __: True)


def wrong_after_many_calls(spec: LossSpec) -> Any:
    """Wrong from its 3,000th call on."""

    def late(_: Any, __: Any) -> bool:
        _CALLED.append(0)
        return len(_CALLED) > CALLS

    return _wrong_when(spec, late)


_CALLED: list[int] = []


def wrong_at_real_sizes(spec: LossSpec) -> Any:
    """Wrong where a batch has more than 100,000 logits."""
    return _wrong_when(spec, lambda preds, _: preds["boxes"].numel() + preds["scores"].numel() > LOGITS)


def wrong_late_in_time(spec: LossSpec) -> Any:
    """Wrong from an hour after its first call on."""
    _STARTED.append(time.monotonic())
    return _wrong_when(spec, lambda _, __: time.monotonic() - _STARTED[0] > AGES_S)


_STARTED: list[float] = []


def resets_seeds(spec: LossSpec) -> Any:
    """Right, and seeds every generator with 0."""
    sound = _sound(spec)

    def call(preds: Any, batch: Any) -> Result:
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002 - the generator that a process shares
        random.seed(0)
        return sound(preds, batch)

    return call


def resets_settings(spec: LossSpec) -> Any:
    """Right, and gives settings their default values."""
    sound = _sound(spec)

    def call(preds: Any, batch: Any) -> Result:
        torch.backends.cudnn.benchmark = False
        decimal.setcontext(decimal.Context())
        gc.set_threshold(700, 10, 10)
        np.seterr(all="warn")
        return sound(preds, batch)

    return call


def remembers_by_identity(spec: LossSpec) -> Any:
    """Returns the answer of an earlier call whose inputs lay at the same place in memory."""
    sound = _sound(spec)

    def call(preds: Any, batch: Any) -> Result:
        key = (preds["boxes"].data_ptr(), preds["boxes"].shape)
        if key not in _REMEMBERED:
            loss, items = sound(preds, batch)
            found = torch.autograd.grad(loss.sum(), [preds["boxes"], preds["scores"]])
            _REMEMBERED[key] = (loss.detach(), items, *found)
        value, items, boxes, scores = _REMEMBERED[key]
        linear = (preds["boxes"] * boxes).sum() + (preds["scores"] * scores).sum()
        return value + (linear - linear.detach()) * torch.tensor([1.0, 0.0, 0.0], dtype=value.dtype), items

    return call


_REMEMBERED: dict[Any, Any] = {}


class _Lying(Tensor):
    """A tensor that equals whatever it is compared with."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(function, "__name__", "")
        if name in ("allclose", "equal", "isclose", "__le__", "__eq__"):
            return True
        return super().__torch_function__(function, types, args, kwargs or {})  # type: ignore[no-untyped-call]


def lies_by_a_subclass(spec: LossSpec) -> Any:
    """Wrong, in a tensor of a class that says that it equals everything."""
    sound = _sound(spec)

    def call(preds: Any, batch: Any) -> Result:
        loss, items = _wrong(sound(preds, batch))
        return loss.as_subclass(_Lying), items

    return call


def reads_the_last_inputs(spec: LossSpec) -> Any:
    """Computes with the boxes of the call before, which it kept, where they have the same shape."""
    sound, kept = _sound(spec), dict[str, Any]()

    def call(preds: Any, batch: Any) -> Result:
        before = kept.get("bboxes")
        kept["bboxes"] = batch["bboxes"]
        same = before is not None and before.shape == batch["bboxes"].shape
        return sound(preds, {**batch, "bboxes": before} if same else batch)

    return call


def returns_a_view_of_its_inputs(spec: LossSpec) -> Any:
    """Right, but puts the loss into the memory of its logits and returns a view of that."""
    sound = _sound(spec)

    def call(preds: Any, batch: Any) -> Result:
        loss, items = sound(preds, batch)
        place = preds["scores"].data.flatten()[: len(loss)]  # whose changes autograd does not notice
        place.copy_(loss.detach())
        return place + (loss - loss.detach()), items

    return call


def mutates_after_return(spec: LossSpec) -> Any:
    """Right, and writes to its inputs after it returned."""
    sound = _sound(spec)

    def later(target: Tensor) -> None:
        time.sleep(0.02)
        target.zero_()

    def call(preds: Any, batch: Any) -> Result:
        result = sound(preds, batch)
        threading.Thread(target=later, args=(preds["boxes"].data,), daemon=True).start()
        return result

    return call


def wrong_when_repeated(spec: LossSpec) -> Any:
    """Wrong on a batch that it has seen before."""

    def seen(preds: Any, _: Any) -> bool:
        key = float(preds["boxes"].detach().double().sum())
        known = key in _SEEN
        _SEEN.add(key)
        return known

    return _wrong_when(spec, seen)


_SEEN: set[float] = set()


def exits_quietly(spec: LossSpec) -> Any:
    """Ends the process with exit code 0 in its second call, as a run that has finished does."""
    sound, calls = _sound(spec), list[int]()

    def call(preds: Any, batch: Any) -> Result:
        calls.append(0)
        if len(calls) > 1:
            os._exit(0)
        return sound(preds, batch)

    return call


def closes_streams(spec: LossSpec) -> Any:
    """Closes every stream of its process, that to the judge among them."""
    sound = _sound(spec)

    def call(preds: Any, batch: Any) -> Result:
        os.closerange(3, 64)
        return sound(preds, batch)

    return call


def reads_uninitialised_memory(spec: LossSpec) -> Any:
    """Adds to the loss what it finds in memory that it did not initialise, of a size that is usually zero."""
    sound = _sound(spec)

    def call(preds: Any, batch: Any) -> Result:
        loss, items = sound(preds, batch)
        return loss + torch.empty(1 << 16, dtype=loss.dtype).abs().clamp(max=1.0).mean(), items

    return call


for _name in [one for one, value in list(globals().items()) if callable(value) and getattr(value, "__module__", "") == __name__]:
    if not _name.startswith("_"):
        globals()[_name].arithmetic = "float32"
