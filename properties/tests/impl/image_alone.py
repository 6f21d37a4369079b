"""An image in a batch, and the same image in another one: what must be the same to the bit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from oracle.cases.case import Case, Inputs
from twinloss import Assignment
from twinloss.backends.registry import BackendName
from twinloss.loss import LOSSES

LIGHT, UPSTREAM = 2.0**-14, 2.0**11
"""Weight of every held anchor where gradients are compared, and their gradient from above: the sum of weights stays below 1, so that S is 1
in every batch, and no gradient vanishes in float16."""

BY_ROW = {"cls", "bboxes", "keypoints", "masks"}
OF_BOXES = ("boxes", "scores", "angle")
"""Predictions whose gradient depends on the batch through S and B alone; further terms count the held anchors of the batch too."""

TERMS = {"box_loss", "cls_loss", "dfl_loss", "l1_loss", "angle_loss"}


def gathered(case: Case, inputs: Inputs, images: list[int]) -> Inputs:
    """The batch of these images of another one, in this order, each as often as it is listed."""
    preds = {name: _images(value, images) for name, value in inputs.preds.items()}
    rows = [(inputs.batch["batch_idx"] == image).nonzero().flatten() for image in images]
    row = torch.cat(rows) if rows else torch.zeros(0, dtype=torch.int64)
    batch = {name: _target(case, name, value, row, images) for name, value in inputs.batch.items() if name != "batch_idx"}
    place = torch.arange(len(images), device=row.device).repeat_interleave(torch.tensor([len(each) for each in rows], device=row.device))
    return Inputs(preds, {**batch, "batch_idx": place.to(inputs.batch["batch_idx"])})


def _images(value: Any, images: list[int]) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_images(each, images) for each in value)
    return value.detach()[images].clone()


def _target(case: Case, name: str, value: Tensor, row: Tensor, images: list[int]) -> Tensor:
    by_row = name in BY_ROW and not (name == "masks" and getattr(case.spec, "overlap_mask", True))
    return value[row] if by_row else value[images]


def check(case: Case, inputs: Inputs, images: list[int], backend: BackendName) -> None:
    """Assert that every image of a batch has the assignment and the gradients that it has alone.

    Args:
        case: the case of the inputs.
        inputs: predictions and targets of some images.
        images: 1, 2 or 4 of them, in any order, each as often as wanted; a power of two, by which every division is exact.
        backend: the backend.
    """
    criterion = LOSSES[case.spec.task](case.spec, backend=backend)
    together = gathered(case, inputs, images)
    whole = criterion.assign(*together)
    gradients = _gradients(criterion, case, together, whole)
    first = 0
    for place, image in enumerate(images):
        alone = gathered(case, inputs, [image])
        held, part = criterion.assign(*alone), whole.image == place
        rows = len(alone.batch["batch_idx"])
        for name, found, wanted in (
            ("anchor", whole.anchor[part], held.anchor),
            ("box", whole.box[part] - first, held.box),
            ("weight", whole.weight[part], held.weight),
        ):
            assert torch.equal(found, wanted), (place, image, name)
        for name, gradient in _gradients(criterion, case, alone, held).items():
            assert torch.equal(_bits(gradients[name][place]), _bits(gradient[0])), (place, image, name)
        first += rows


def _gradients(criterion: Any, case: Case, inputs: Inputs, held: Assignment) -> dict[str, Tensor]:
    """Gradients of the boxes' terms, divided by the number of images, where every held anchor weighs the same."""
    assert len(held) * LIGHT < 1, "too many anchors are held for S to be 1; draw fewer boxes"
    leaves = {name: inputs.preds[name].detach().requires_grad_() for name in OF_BOXES if name in inputs.preds}
    light = Assignment(held.image, held.anchor, held.box, torch.full_like(held.weight, LIGHT))
    loss, _ = criterion.loss_given({**inputs.preds, **leaves}, inputs.batch, light)
    counted = [(name in TERMS) * UPSTREAM / len(inputs.preds["scores"]) for name in case.spec.term_names]
    loss.backward(loss.new_tensor(counted))
    return {name: leaf.grad for name, leaf in leaves.items()}


def _bits(numbers: Tensor) -> Tensor:
    return torch.nan_to_num(numbers, nan=0.0) + numbers.isnan()
