"""Whole training steps on a GPU: how much of one is the loss, and how much faster one is with the twin.

A step zeroes the gradients, runs the model under autocast to float16, computes the loss and runs the backward pass. The optimiser, the
scaling of the loss and the loading of images are left out: they are the same with every loss. Images are random numbers, weights are
random, ground truth is COCO's.
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benches.gpu.finding import GpuFinding
from benches.gpu.steps import DTYPE, case_of, device, free
from benches.gpu.turns import Called, in_turns, interval, or_reason, prepared, times_faster
from benches.measure import cuda
from oracle.cases.build import build
from oracle.cases.case import Case, Setting
from oracle.reference.criterion import detection_model
from twinloss import hook

RUNS = (("yolov8n", False), ("yolov8n", True), ("yolo26n", False), ("yolo26n", True))
"""Models, and whether PyTorch's algorithms are deterministic."""
WARM, ROUNDS = 8, 24
BACKEND = "auto"  # The default, which is Triton on a GPU.
MOST = 1024  # Rows of padded ground truth, as a captured graph needs a fixed number.
ARGUMENTS = {"box": 7.5, "cls": 0.5, "dfl": 1.5, "epochs": 100}  # Those of a trainer's that the criteria read.

REFERENCE, TWIN, TWIN_GRAPH = "Ultralytics' loss", "the twin", "the twin in a CUDA graph"
NO_LOSS, NO_LOSS_GRAPH = "no loss", "no loss in a CUDA graph"
WITHOUT = {REFERENCE: NO_LOSS, TWIN: NO_LOSS, TWIN_GRAPH: NO_LOSS_GRAPH}
"""Losses, and the step without one that each is compared with."""
TWINS = (TWIN, TWIN_GRAPH)


def training() -> Iterator[GpuFinding]:
    """Time training steps of two models, with and without PyTorch's deterministic algorithms."""
    for name, strict in RUNS:
        with deterministic() if strict else nullcontext():
            workload = f"{name}, deterministic" if strict else name
            yield from or_reason(_measured(name, workload), "training", workload, DTYPE)
        free()


def _measured(name: str, workload: str) -> Iterator[GpuFinding]:
    steps, reasons = prepared(_makers(name), WARM)
    taken = in_turns(steps, ROUNDS)
    for contender in (REFERENCE, *TWINS, NO_LOSS, NO_LOSS_GRAPH):
        if contender in reasons:
            yield GpuFinding("training", f"a step, {contender}", "not measured", None, None, "ms", workload, DTYPE, reasons[contender])
            continue
        milliseconds = float(np.median(taken[contender])) / 1e6
        yield GpuFinding("training", f"a step, {contender}", "measured", milliseconds, None, "ms", workload, DTYPE)
        if contender in WITHOUT:
            yield _waits(contender, steps[contender], workload)
            yield from _relative(contender, taken, workload)


def _waits(contender: str, step: Called, workload: str) -> GpuFinding:
    waits = cuda.synchronisations(step)
    places = waits if contender in TWINS else ()  # A row names no place in the reference's source.
    what, where = f"host waits of a step, {contender}", ", ".join(dict.fromkeys(place.rpartition(os.sep)[2] for place in places))
    return GpuFinding("training", what, "measured", len(waits), None, "times", workload, DTYPE, where[:300])


def _relative(contender: str, taken: dict[str, Any], workload: str) -> Iterator[GpuFinding]:
    """Yields the loss's share of a step, and how many times faster a step of the twin's is than one with the reference's loss."""
    if (without := WITHOUT[contender]) in taken:
        share = float(np.median(1 - taken[without] / taken[contender]))
        yield GpuFinding("training", f"the loss's share of a step, {contender}", "measured", 100 * share, None, "%", workload, DTYPE)
    if contender in TWINS and REFERENCE in taken:
        found = times_faster(taken[REFERENCE], taken[contender])
        what = f"a step, times faster than with {REFERENCE}, {contender}"
        yield GpuFinding("training", what, "measured", found.value, None, "times", workload, DTYPE, interval(found))


class Data(NamedTuple):
    """Images (B, 3, H, W), and ground truth as a trainer passes it."""

    images: Tensor
    truth: dict[str, Tensor]

    @classmethod
    def of(cls, case: Case) -> Data:
        """Returns a case's ground truth, and as many images of random numbers."""
        images = torch.rand(case.batch_size, 3, *case.image_size, device=device())
        return cls(images, build(case, Setting("float32", device=device())).batch)

    def padded(self) -> Data:
        """Returns the same with rows of no image after those of ground truth."""
        rows = {key: value.new_zeros(MOST, *value.shape[1:]) for key, value in self.truth.items()}
        rows["batch_idx"].fill_(-1)
        for key, value in self.truth.items():
            rows[key][: len(value)] = value
        return Data(self.images, rows)

    @property
    def batch(self) -> dict[str, Tensor]:
        """Images and ground truth in one mapping."""
        return {"img": self.images, **self.truth}


def _makers(name: str) -> dict[str, Callable[[], Called]]:
    """Returns functions that make the steps, each with a model of its own: a captured one must share no gradients."""
    case = case_of("coco")
    data = Data.of(case)
    first: Any = detection_model(f"{name}.yaml", case.spec.num_classes).to(device())
    first.args = SimpleNamespace(**ARGUMENTS)

    def model(**options: Any) -> Any:
        new = copy.deepcopy(first)
        if options:
            hook.install(new, **options)
        return new

    def captured_twin() -> Called:
        # The reference cannot be asked about rows of no image, and values on the device are not checked anyway. The eager twin is verified.
        found = model(backend=BACKEND, verify=False, validate=False)
        _with_loss(found, data)()
        return cuda.Replay(_with_loss(found, data.padded())).run

    # Captures come last, since a capture that fails may leave something behind.
    return {
        REFERENCE: lambda: _with_loss(model(), data),
        TWIN: lambda: _with_loss(model(backend=BACKEND), data),
        NO_LOSS: lambda: _without_loss(model(), data),
        NO_LOSS_GRAPH: lambda: cuda.Replay(_without_loss(model(), data)).run,
        TWIN_GRAPH: captured_twin,
    }


def _with_loss(model: Any, data: Data) -> Called:
    def step() -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast(device(), torch.float16):
            loss, _ = model(data.batch)
        loss.sum().backward()

    return step


def _without_loss(model: nn.Module, data: Data) -> Called:
    def step() -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast(device(), torch.float16):
            preds = model(data.images)
        sets = [preds] if "boxes" in preds else list(preds.values())
        total = sum(part[key].sum(dtype=torch.float32) for part in sets for key in ("boxes", "scores"))
        assert isinstance(total, Tensor)
        total.backward()

    return step


@contextmanager
def deterministic() -> Iterator[None]:
    """In this context PyTorch and cuDNN use deterministic algorithms where they have them, as a trainer asks for by default."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    of_cudnn = torch.backends.cudnn.deterministic
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.deterministic = True
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation")
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.deterministic = of_cudnn
