"""The keypoint terms of a call's held anchors (pose spec section 6); :mod:`twinloss.terms.keypoints` has the formulas.

Shape suffixes: H held anchors, n keypoints, E numbers per predicted keypoint; 2 coordinates (x, y).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from twinloss.task_specs import PoseSpec
from twinloss.terms.held import HeldAnchors
from twinloss.terms.keypoints import (
    doubled_variances,
    keypoint_differences,
    likelihood_term,
    likelihood_weights,
    location_term,
    visibility_term,
    visible,
    without_deviations,
)


def pose_term(held: HeldAnchors) -> Tensor:
    """Location of the visible keypoints; a scalar, its gradient in ``kpts``."""
    cells_H2 = _pixels(held, held.call.batch["bboxes"][held.row][:, 2:4]) / held.strides[:, None]
    doubled_n = doubled_variances(_spec(held).keypoint_shape, _spec(held).sigmas, held.dtype, held.strides.device)
    return location_term(_differences(held), visible(_targets(held)), cells_H2.prod(-1), doubled_n).to(held.dtype)


def keypoint_visibility_term(held: HeldAnchors) -> Tensor:
    """Visibility of all keypoints; a scalar, its gradient in ``kpts``. Without visibility logits 0."""
    predicted_HnE = _predicted(held)
    if predicted_HnE.shape[-1] < 3:
        return held.strides.new_zeros(())
    return visibility_term(predicted_HnE[..., 2], visible(_targets(held))).to(held.dtype)


def keypoint_likelihood_term(held: HeldAnchors) -> Tensor:
    """Likelihood of the visible keypoints; a scalar, its gradient in ``kpts``, ``kpts_sigma`` and the flow's parameters.

    Without ``kpts_sigma``, which a model in evaluation mode does not give, it is 0.
    """
    flow, raw_sigma = held.call.flow, held.call.extras.get("kpts_sigma")
    assert flow is not None, "a definition with this term comes with a flow"
    if raw_sigma is None:
        return without_deviations(flow, held.strides.new_zeros(1, 2), len(held))
    points, floor = _spec(held).keypoint_shape[0], torch.finfo(raw_sigma.dtype).tiny
    sigma_Hn2 = held.columns("kpts_sigma").view(-1, points, 2)
    weight_n = likelihood_weights(_spec(held).keypoint_shape, sigma_Hn2.device)
    term = likelihood_term(_differences(held), sigma_Hn2, visible(_targets(held)), weight_n, flow, held.dtype, floor)
    return term.to(held.dtype)


def _spec(held: HeldAnchors) -> PoseSpec:
    return cast("PoseSpec", held.spec)


def _predicted(held: HeldAnchors) -> Tensor:
    """Raw predictions (H, n, E)."""
    return held.columns("kpts").view(-1, *_spec(held).keypoint_shape)


def _targets(held: HeldAnchors) -> Tensor:
    """Targets (H, n, 2 or 3), divided by the image's width and height."""
    return held.call.extras["keypoints"][held.row]


def _differences(held: HeldAnchors) -> Tensor:
    """Predicted minus true position (H, n, 2) in grid units."""
    target_Hn2 = _pixels(held, _targets(held)[..., :2])
    return keypoint_differences(_predicted(held)[..., :2], target_Hn2, held.centres, held.strides, _spec(held).generation)


def _pixels(held: HeldAnchors, shares: Tensor) -> Tensor:
    """Pixels (..., 2) of shares of the image's width and height, in float64: the products are exact."""
    height, width = held.image_size
    return shares.to(held.dtype).to(torch.float64) * torch.tensor([width, height], dtype=torch.float64, device=shares.device)
