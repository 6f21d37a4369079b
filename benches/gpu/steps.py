"""Steps of the loss on a GPU for the checks: a workload's batch with the Triton backend."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benches.measure import cuda
from benches.plan.contenders import BenchContender, make_criterion
from benches.plan.workloads import WORKLOADS, Workload, generated
from oracle.cases.build import build
from oracle.cases.case import Case, DtypeName, Prediction, Setting
from twinloss import LossSpec
from twinloss.loss import LOSSES

XVIEW_IMAGES, XVIEW_MOST = 128, 4967
DTYPE: DtypeName = "float16"  # of the logits that are counted or timed
FURTHER = {
    workload.name: workload
    for workload in (
        Workload("boxes-1", "16 images of one box at 640 px", boxes=1),
        Workload("boxes-10", "16 images of 10 boxes at 640 px", boxes=10),
        Workload("boxes-100", "16 images of 100 boxes at 640 px", boxes=100),
        Workload("boxes-1000-16", "16 images of 1,000 boxes at 640 px", boxes=1000),
        Workload("batch-128", "COCO, 128 images at 640 px", batch=128),
    )
}
"""Batches that are measured on a GPU alone."""


def device() -> str:
    """Returns the device of the steps."""
    return "cuda"


@lru_cache(maxsize=4)
def case_of(name: str) -> Case:
    """Returns a workload's batch: of the bench run or :data:`FURTHER`, ``xview-128``, or ``coco-end-to-end`` (an end-to-end head)."""
    if name == "xview-128":
        return _xview()
    case = (WORKLOADS | FURTHER)["coco" if name == "coco-end-to-end" else name].case()
    if name == "coco-end-to-end":
        return dataclasses.replace(case, spec=dataclasses.replace(case.spec, reg_max=1, topk=7, topk2=1))
    return case


def _xview() -> Case:
    """Returns 128 images at 640 px, of which the fullest has 4,967 boxes, and the r-th fullest 1/r of that, as in xView."""
    boxes = []
    for image in range(XVIEW_IMAGES):
        count = XVIEW_MOST // (image + 1)
        boxes += [dataclasses.replace(box, image=image) for box in generated(count, 1, 640, 60)]
    return Case(LossSpec(num_classes=60), (640, 640), XVIEW_IMAGES, tuple(boxes), Prediction("near", seed=1), workload="xview-128")


class Step:
    """Each call computes the loss and its gradients on one batch.

    Args:
        workload: name of the batch, or the batch.
        dtype: dtype of the logits.
    """

    def __init__(self, workload: str | Case, dtype: DtypeName = DTYPE) -> None:
        self.case = case_of(workload) if isinstance(workload, str) else workload
        self.preds, self.batch = build(self.case, Setting(dtype, device=device()))
        self.criterion = LOSSES[self.case.spec.task](self.case.spec, backend="triton", validate=False)
        self.loss = torch.zeros(len(self.case.spec.terms))

    def clear(self) -> None:
        """Drop the gradients, so that the next call allocates new ones."""
        for leaf in leaves_of(self.preds):
            leaf.grad = None

    def __call__(self) -> None:
        """Compute loss and gradients."""
        self.clear()
        loss, _ = self.criterion(self.preds, self.batch)
        loss.sum().backward()
        self.loss = loss.detach()

    @property
    def answers(self) -> tuple[Tensor, ...]:
        """Loss and all gradients of the last call."""
        return self.loss, *(leaf.grad for leaf in leaves_of(self.preds) if leaf.grad is not None)

    @property
    def gradient_bytes(self) -> int:
        """Bytes of all gradients."""
        return sum(leaf.nbytes for leaf in leaves_of(self.preds))


def reference_step(step: Step, contender: BenchContender) -> Callable[[], None]:
    """Returns a step of the reference on the batch of the twin's."""
    criterion = make_criterion(contender, step.case.spec, device())

    def call() -> None:
        step.clear()
        criterion(step.preds, step.batch)[0].sum().backward()

    return call


def leaves_of(preds: Mapping[str, Any]) -> list[Tensor]:
    """Returns the predictions that get a gradient."""
    values = (each for key, value in preds.items() if key != "feats" for each in (value if isinstance(value, tuple) else (value,)))
    return [value for value in values if isinstance(value, Tensor) and value.requires_grad]


def floor_bytes(preds: Mapping[str, Any]) -> int:
    """Returns the bytes that a step must move.

    It reads all box logits, and class and semantic logits in both passes, and writes every gradient. What it reads of coefficients and
    prototypes depends on the boxes, and is not counted.
    """
    pair = preds.get("proto", ())
    semantic = pair[1].nbytes if isinstance(pair, tuple) and len(pair) == 2 else 0
    read = preds["boxes"].nbytes + 2 * preds["scores"].nbytes + 2 * semantic
    return int(read + sum(leaf.nbytes for leaf in leaves_of(preds)))


def free() -> None:
    """Free the memory of the last batch for the next check."""
    case_of.cache_clear()
    torch.cuda.empty_cache()


def copy_bytes_per_second(elements: int = 1 << 30) -> float:
    """Returns the bytes per second that a copy larger than any cache reads and writes: the best of several."""
    source = torch.zeros(elements, dtype=torch.float16, device=device())
    target = torch.empty_like(source)
    target.copy_(source)
    taken = [cuda.timed(lambda: target.copy_(source))[0] for _ in range(9)]
    return 2e9 * source.nbytes / float(np.min(taken))
