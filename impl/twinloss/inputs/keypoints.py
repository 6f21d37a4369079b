"""Predicted and true keypoints of a call, admitted (pose spec sections 1 and 10)."""

from __future__ import annotations

from typing import cast

from torch import Tensor

from twinloss.inputs.checks import first_not
from twinloss.inputs.given import Given, check_real
from twinloss.task_specs import PoseSpec
from twinloss.terms.classification import working_dtype


def admit_keypoints(given: Given) -> dict[str, Tensor]:
    """Returns ``kpts``, ``keypoints`` and, where a flow wants and the model gives them, ``kpts_sigma``.

    Raises:
        TypeError: one is no tensor.
        ValueError: one is missing, has another shape, dtype or device, or a target's number is not what it must be; the message names it.
    """
    spec = cast("PoseSpec", given.spec)
    points, numbers = spec.keypoint_shape
    found = {"kpts": given.logits("kpts", points * numbers), "keypoints": _targets(given, points)}
    if spec.generation == 2 and given.preds.get("kpts_sigma") is not None:
        sigma = given.logits("kpts_sigma", 2 * points)
        found |= {"kpts_sigma": sigma} if spec.flow else {}
    return found


def _targets(given: Given, points: int) -> Tensor:
    """Targets (N, n, 2 or 3) in the dtype of the arithmetic; without boxes they may be missing."""
    dtype, target = working_dtype(given.boxes), given.batch.get("keypoints")
    if target is None and given.rows:
        raise ValueError(f"batch has no 'keypoints'; give ({given.rows}, {points}, 2 or 3): x, y and, with 3, visibility")
    if target is not None:
        check_real("keypoints", target)
    if target is None or not target.numel() + given.rows:
        return given.boxes.new_zeros((0, points, 3), dtype=dtype)
    check_shape(target, given.rows, points)
    if given.reads(target):
        check_values(target)
    return given.copied(target, dtype)


def check_shape(target: Tensor, rows: int, points: int) -> None:
    """One row per box, of n keypoints of 2 or 3 numbers.

    Raises:
        ValueError: it is not so; the message names both sides of the disagreement.
    """
    shape = tuple(target.shape)
    if target.ndim != 3 or shape[-1] not in (2, 3):
        raise ValueError(f"batch['keypoints'] has shape {shape}; expected ({rows}, {points}, 2 or 3): x, y and, with 3, visibility")
    if shape[0] != rows:
        raise ValueError(f"batch['keypoints'] has {shape[0]} rows and batch['bboxes'] {rows}; give one per box")
    if shape[1] != points:
        raise ValueError(
            f"batch['keypoints'] has shape {shape}, and the definition {points} keypoints; expected ({rows}, {points}, 2 or 3)"
        )


def check_values(target: Tensor) -> None:
    """Visibilities are 0, 1 or 2, and coordinates of visible keypoints finite. Reads values: a synchronisation on a GPU.

    Raises:
        ValueError: one is not so; the message names the first offending row and keypoint.
    """
    seen = target.new_ones(target.shape[:2]) if target.shape[-1] == 2 else target[..., 2]
    _all((seen == 0) | (seen == 1) | (seen == 2), target, "a visibility is 0 (not labelled), 1 (hidden) or 2 (visible)")
    _all(
        (seen == 0) | target[..., :2].isfinite().all(-1),
        target,
        "coordinates of a visible keypoint must be finite: mend the label, or set its visibility to 0",
    )


def _all(good: Tensor, target: Tensor, what: str) -> None:
    if (row := first_not(good)) is not None:
        point = first_not(good[row])
        raise ValueError(f"batch['keypoints'] row {row}, keypoint {point} is {target[row, point].tolist()}; {what}")
