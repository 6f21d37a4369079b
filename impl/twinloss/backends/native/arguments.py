"""One call's inputs in the form that the compiled functions read."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from twinloss.anchors import Pyramid
from twinloss.assignment import Assignment
from twinloss.backends.native.library import Held, Problem, load
from twinloss.input_checks import bad_entry
from twinloss.spec import LossSpec

HOST = torch.device("cpu")
"""Said wherever a tensor is made: the default device may be another."""


class Targets(NamedTuple):
    """Ground truth: image and class (N,) int64, boxes (N, 4) and class weights (C,) float32, contiguous, on the host, nobody else's."""

    image: Tensor
    label: Tensor
    box: Tensor
    class_weights: Tensor | None

    @classmethod
    def of(cls, batch: Mapping[str, Tensor], spec: LossSpec) -> Targets:
        """Those of a batch that was admitted."""
        image, label = (batch[key].to(torch.int64) for key in ("batch_idx", "cls"))
        weights = None if spec.class_weights is None else torch.tensor(spec.class_weights, dtype=torch.float32, device=HOST)
        return cls(image, label, batch["bboxes"].to(torch.float32), weights)


def make_problem(boxes: Tensor, scores: Tensor, targets: Targets, spec: LossSpec, pyramid: Pyramid, conflicts: str) -> Problem:
    """The record of a call. It holds addresses: the tensors must outlive its use.

    Raises:
        ValueError: a row's image or class does not exist; the message names the row.
    """
    problem = Problem()
    problem.images, problem.classes, problem.anchors = scores.shape
    problem.bins, problem.levels, problem.rows, problem.threads = spec.reg_max, len(spec.strides), len(targets.box), torch.get_num_threads()
    for level, ((rows, columns), stride) in enumerate(zip(pyramid.grids, pyramid.strides, strict=True)):
        problem.grid_rows[level], problem.grid_columns[level], problem.strides[level] = rows, columns, stride
    point_to(problem, boxes, scores)
    problem.image, problem.label, problem.box = (tensor.data_ptr() for tensor in targets[:3])
    problem.class_weights = None if targets.class_weights is None else targets.class_weights.data_ptr()
    problem.topk, problem.topk2 = spec.topk, spec.second_topk or 0
    problem.alpha, problem.beta, problem.assign_eps, problem.ciou_eps = spec.alpha, spec.beta, spec.assign_eps, spec.ciou_eps
    problem.lengthened_below, problem.shortest_side = spec.lengthened_below, spec.shortest_side
    problem.longest = spec.largest_target
    problem.gains[:] = spec.gains
    problem.overlap_decides, problem.distance_term = conflicts == "overlap", spec.distance_term
    problem.summed_weights = spec.anchor_weights == "sum"
    _check_rows(problem, targets)
    return problem


def point_to(problem: Problem, boxes: Tensor, scores: Tensor) -> None:
    """Say where the logits lie."""
    problem.boxes, problem.scores = boxes.data_ptr(), scores.data_ptr()
    problem.boxes_per_image, problem.boxes_per_channel = boxes.stride()[:2]
    problem.scores_per_image, problem.scores_per_channel = scores.stride()[:2]


def side_by_side(logits: Tensor) -> Tensor:
    """Logits whose neighbouring anchors are neighbours in memory, copied where they are not."""
    return logits if logits.shape[-1] <= 1 or logits.stride(-1) == 1 else logits.contiguous()


def empty_assignment(problem: Problem) -> Assignment:
    """Room for as many held anchors as there can be: each was picked, and none is held twice."""
    room = min(problem.rows * min(problem.topk, problem.anchors), problem.images * problem.anchors)
    image, anchor, box = torch.empty(3, room, dtype=torch.int64, device=HOST)
    return Assignment(image, anchor, box, torch.empty(room, dtype=torch.float32, device=HOST))


def address(held: Assignment) -> Held:
    """Where an assignment's columns lie."""
    return Held(held.image.data_ptr(), held.anchor.data_ptr(), held.box.data_ptr(), held.weight.data_ptr(), len(held))


def scratch(size: int) -> Tensor:
    """Memory for the kernels, from torch's allocator, so that its accounts are complete."""
    return torch.empty(size, dtype=torch.uint8, device=HOST)


def given(problem: Problem, assignment: Assignment) -> Assignment:
    """An admitted assignment as the kernels read it, checked again: they would write wherever it says, and not everyone validates.

    Raises:
        ValueError: an entry is out of range, out of order, or there twice; the message names it.
    """
    ours = Assignment(assignment.image, assignment.anchor, assignment.box, assignment.weight.to(torch.float32))
    entry = load().twinloss_first_bad_entry(ctypes.byref(problem), ctypes.byref(address(ours)), len(ours))
    if entry >= 0:
        raise ValueError(bad_entry(ours, entry, problem.images, problem.anchors, problem.rows))
    return ours


def _check_rows(problem: Problem, targets: Targets) -> None:
    row = load().twinloss_first_bad_row(ctypes.byref(problem))
    if row >= 0:
        raise ValueError(
            f"row {row} of the batch is image {targets.image[row]}, class {targets.label[row]}; there are {problem.images} images and "
            f"{problem.classes} classes"
        )
