"""The loss on a GPU as the checks call it: a workload's batch, one of its backends, a step."""

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
from oracle.cases.case import Case, DtypeName, Prediction, Setting
from twinloss import DetectionLoss, LossSpec

XVIEW_IMAGES, XVIEW_MOST = 128, 4967
DTYPE: DtypeName = "float16"  # of whatever is counted or timed


def device() -> str:
    """Where the steps run."""
    return "cuda"


@lru_cache(maxsize=4)
def case_of(name: str) -> Case:
    """A workload's batch; besides those of the bench run, one shaped like xView, and COCO with an end-to-end head."""
    if name == "xview-128":
        return _xview()
    case = WORKLOADS["coco" if name == "coco-end-to-end" else name].case()
    if name == "coco-end-to-end":
        return dataclasses.replace(case, spec=dataclasses.replace(case.spec, reg_max=1, topk=7, topk2=1))
    return case


def _xview() -> Case:
    """128 images at 640 px of which the fullest has 4,967 boxes, and the r-th fullest an r-th of that."""
    boxes = []
    for image in range(XVIEW_IMAGES):
        count = XVIEW_MOST // (image + 1)
        boxes += [dataclasses.replace(box, image=image) for box in generated(count, 1, 640, 60)]
    return Case(LossSpec(num_classes=60), (640, 640), XVIEW_IMAGES, tuple(boxes), Prediction("near", seed=1), workload="xview-128")


class Step:
    """A loss and its gradients on one batch, as often as it is called."""

    def __init__(self, name: str) -> None:
        self.case = case_of(name)
        self.preds, self.batch = self.case.build(Setting(DTYPE, device=device()))
        self.criterion = DetectionLoss(self.case.spec, backend="triton", validate=False)
        self.loss = torch.zeros(3)

    def clear(self) -> None:
        """Drop the gradients, so that the next call has to make its own."""
        for name in ("boxes", "scores"):
            self.preds[name].grad = None

    def __call__(self) -> None:
        """Loss and gradients anew."""
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
        """Bytes of the box and of the class logits."""
        return self.preds["boxes"].nbytes, self.preds["scores"].nbytes


def floor_bytes(preds: Mapping[str, Any]) -> int:
    """What any step moves: logits are read forward, class logits again backward, and both gradients are written."""
    return int(2 * preds["boxes"].nbytes + 3 * preds["scores"].nbytes)


def free() -> None:
    """Give unused memory back, so that one check's batch is not in the way of the next one's."""
    case_of.cache_clear()
    torch.cuda.empty_cache()


def copy_bytes_per_second(elements: int = 1 << 30) -> float:
    """Bytes read and written per second by a copy that no cache holds: the best of several."""
    source = torch.zeros(elements, dtype=torch.float16, device=device())
    target = torch.empty_like(source)
    target.copy_(source)
    taken = [cuda.timed(lambda: target.copy_(source))[0] for _ in range(9)]
    return 2e9 * source.nbytes / float(np.min(taken))
