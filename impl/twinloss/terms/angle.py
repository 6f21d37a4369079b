"""The angle term of oriented boxes, over the held anchors (oriented spec section 7).

Shape suffix: H held anchors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from twinloss.task_specs import OrientedSpec

if TYPE_CHECKING:
    from twinloss.terms.held import HeldAnchors


def angle(held: HeldAnchors) -> Tensor:
    """The angle term of the held anchors, summed with the weights."""
    assert isinstance(held.spec, OrientedSpec)
    return angle_term(held.columns("angle").squeeze(-1), held.truth, held.share, held.spec.angle_scale)


def angle_term(angle: Tensor, truth: Tensor, weight: Tensor, scale: float = 3.0, eps: float = 1e-9) -> Tensor:
    """Sum of ω · sin²(2 (θ̂ − θ)) · t, with ω = exp(−(ln(w / h))² / λ²): full for a square, less for a longer box.

    Args:
        angle: (H,) predicted, radians.
        truth: (H, 5) ground truth in grid units.
        weight: (H,) t.
        scale: λ.
        eps: added to both sides, so that the ratio exists.

    Returns:
        A scalar in the dtype of the arithmetic; the caller divides by S.
    """
    width, height, true_angle = truth[:, 2:].unbind(-1)
    ratio = (width + eps).log() - (height + eps).log()
    emphasis = (-(ratio / scale).square()).exp()
    return (emphasis * (2 * (angle - true_angle)).sin().square() * weight).sum()
