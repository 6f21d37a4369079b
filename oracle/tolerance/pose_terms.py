"""Tolerances of what the pose losses add to detection: location, visibility and likelihood, and the gradients that flow through them."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from oracle.tolerance.held_anchors import Bounds
from oracle.tolerance.keypoint_terms import HeldKeypoints, held_keypoints, location, visibility
from oracle.tolerance.likelihood import Likelihood, likelihood
from oracle.tolerance.loss_and_gradients import Assigned, FurtherTerms, TermSteps
from twinloss import PoseSpec


class PoseTerms(TermSteps):
    """The terms of pose beside those of detection."""

    def further_terms(self, assigned: Assigned) -> FurtherTerms:
        """Returns the tolerances of location, visibility and likelihood, and bounds on the gradients that flow through them."""
        points = held_keypoints(assigned)
        pose, of_location = location(points, assigned)
        kobj, of_logits = visibility(points, assigned)
        loss, gradients = {"pose": pose, "kobj": kobj}, {}
        found = likelihood(points, assigned) if cast(PoseSpec, assigned.spec).flow else None
        gradients["kpts"] = _keypoints(points, of_location, of_logits, found, assigned)
        if assigned.preds.get("kpts_sigma") is not None:
            gradients["kpts_sigma"] = _deviations(found, assigned)
        if found is not None:
            loss["likelihood"], gradients["flow"] = found.loss, found.flow
        return FurtherTerms(loss, gradients)


def _keypoints(points: HeldKeypoints, of_location: Tensor, of_logits: Tensor, found: Likelihood | None, assigned: Assigned) -> Bounds:
    """Returns the bounds (B, n·E, A) on the gradient of the raw keypoints, which is exactly 0 at anchors that are not held."""
    nothing = torch.zeros_like(of_location)
    parts = Bounds(nothing, nothing, nothing) if found is None else found.coordinates
    smallest = assigned.precision.smallest_output * max(1.0, *assigned.gains.values())
    coordinates = Bounds(of_location + parts.rounding + smallest, parts.below, parts.above)
    if points.logits.shape[1]:
        logits = of_logits[..., None] + smallest
        rest = Bounds(logits, torch.zeros_like(logits), torch.zeros_like(logits))
        coordinates = Bounds(*(torch.cat(pair, 2) for pair in zip(coordinates, rest, strict=True)))
    return _everywhere(coordinates, assigned.preds["kpts"], assigned)


def _deviations(found: Likelihood | None, assigned: Assigned) -> Bounds:
    """Returns the bounds (B, 2n, A) on the gradient of the raw deviations; without a flow it is exactly 0."""
    raw = assigned.preds["kpts_sigma"]
    if found is None:
        return Bounds(*(torch.zeros(raw.shape, dtype=torch.float64) for _ in range(3)))
    smallest = assigned.precision.smallest_output * max(1.0, assigned.gains["likelihood"])
    off = found.deviations.rounding
    return _everywhere(found.deviations._replace(rounding=off + smallest * (off > 0)), raw, assigned)


def _everywhere(bounds: Bounds, like: Tensor, assigned: Assigned) -> Bounds:
    """Returns bounds (H, n, numbers) of held anchors in the shape (B, n · numbers, A) of the predictions, 0 elsewhere."""
    held, answer = assigned.assignment, []
    for part in bounds:
        whole = torch.zeros(like.shape, dtype=torch.float64)
        whole[held.image, :, held.anchor] = part.flatten(1)
        answer.append(whole)
    return Bounds(*answer)
