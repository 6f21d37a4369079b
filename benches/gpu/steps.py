"""Steps of the loss on a GPU for the checks: a workload's batch with the Triton backend."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benches.measure import cuda
from benches.plan.workloads import WORKLOADS, generated
from oracle.cases.build import build
from oracle.cases.case import Case, DtypeName, Prediction, Setting
from twinloss import DetectionLoss, LossSpec

XVIEW_IMAGES, XVIEW_MOST = 128, 4967
DTYPE: DtypeName = "float16"  # of the logits that are counted or timed


def device() -> str:
    """Returns the device of the steps."""
    return "cuda"


@lru_cache(maxsize=4)
def case_of(name: str) -> Case:
    """Returns a workload's batch: one of the bench run's, ``xview-128``, or ``coco-end-to-end`` (COCO with an end-to-end head)."""
    if name == "xview-128":
        return _xview()
    case = WORKLOADS["coco" if name == "coco-end-to-end" else name].case()
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
    """Each call computes the loss and its gradients on one batch."""

    def __init__(self, name: str) -> None:
        self.case = case_of(name)
        self.preds, self.batch = build(self.case, Setting(DTYPE, device=device()))
        self.criterion = DetectionLoss(self.case.spec, backend="triton", validate=False)
        self.loss = torch.zeros(3)

    def clear(self) -> None:
        """Drop the gradients, so that the next call allocates new ones."""
        for name in ("boxes", "scores"):
            self.preds[name].grad = None

    def __call__(self) -> None:
        """Compute loss and gradients."""
        self.clear()
        loss, _ = self.criterion(self.preds, self.batch)
        loss.sum().backward()
        self.loss = loss.detach()

    @property
    def answers(self) -> tuple[Tensor, Tensor, Tensor]:
        """Loss and both gradients of the last call."""
        return self.loss, self.preds["boxes"].grad, self.preds["scores"].grad

    @property
    def logit_bytes(self) -> tuple[int, int]:
        """Bytes of the box logits and of the class logits."""
        return self.preds["boxes"].nbytes, self.preds["scores"].nbytes


def floor_bytes(preds: Mapping[str, Any]) -> int:
    """Returns the bytes that a step must move: it reads all logits, reads the class logits again backward, and writes both gradients."""
    return int(2 * preds["boxes"].nbytes + 3 * preds["scores"].nbytes)


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
