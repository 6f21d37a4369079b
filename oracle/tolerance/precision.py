"""The precision of a program: the unit roundoff of each step, by setting and by the contender's claim (spec section 8a).

The *unit roundoff* u of a dtype is half the distance from 1 to the next number: a rounding error is at most u times the value.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from oracle.cases.case import Setting

# Relative tolerance of each evaluated expression in float64, where definitions are compared and not roundings; a value consists of a few
# expressions, which makes 1e-10 of its scale.
FLAT = 2e-11


@dataclass(frozen=True)
class Precision:
    """Unit roundoffs of one program in one setting.

    Attributes:
        distance: of decoded distances (R > 1).
        corner: of predicted corners and of the prediction's own sides in the box loss.
        score: of probabilities, target scores and the classification term.
        core: of everything computed from ground truth: the targets' dtype.
        output: of the gradients, which have the logits' dtype.
        flat: minimum relative tolerance of any evaluated value, independent of conditioning.
        smallest_score: magnitude below which a probability or soft target may underflow.
        smallest_core: the same of overlaps and metrics.
        smallest_output: the same of gradients.
        largest_output: magnitude beyond which a gradient overflows.
        anchors: dtype of the anchors' centres.
        product: of the product of coefficients and prototypes, and of its factors.
        count: of the counts of pixels in the mask-aware assignment, which are exact where it is 0.
        linear: of the linear maps of a module that the criterion calls: those of a pose flow.
    """

    distance: float
    corner: float
    score: float
    core: float
    output: float
    flat: float
    smallest_score: float
    smallest_core: float
    smallest_output: float
    largest_output: float
    anchors: torch.dtype
    product: float = 0.0
    count: float = 0.0
    linear: float = 0.0

    @property
    def evaluation(self) -> float:
        """Relative error of one evaluated expression of ground truth and predictions."""
        return max(self.core, self.flat)

    @property
    def half(self) -> bool:
        """Whether any step is computed in a half precision."""
        return max(self.distance, self.corner, self.score) > 1e-5


def unit_roundoff(dtype: torch.dtype) -> float:
    """Returns half the distance from 1 to the next number of the dtype."""
    return float(torch.finfo(dtype).eps) / 2


def smallest(dtype: torch.dtype) -> float:
    """Returns the magnitude below which a value may underflow.

    It is the smallest normal number, because some kernels flush subnormal numbers to zero; those of float16 are kept.
    """
    info = torch.finfo(dtype)
    return float(info.tiny) * (float(info.eps) if dtype == torch.float16 else 1.0)


def precision_of(setting: Setting, claim: str) -> Precision:
    """Returns the precision of a contender.

    Args:
        setting: dtype of the logits, and autocast.
        claim: the contender's ``precision``: ``"float32"`` or ``"logits"``.

    Raises:
        ValueError: the claim is neither.
    """
    if claim not in ("float32", "logits"):
        raise ValueError(f"a contender's arithmetic is {claim!r}; it must be 'float32' or 'logits'")
    logits = setting.torch_dtype
    core = torch.float64 if logits == torch.float64 else torch.float32
    working = logits if claim == "logits" else core
    scores = working
    product = working
    casts = setting.autocast is not None and claim == "logits"
    if casts:
        # Autocast computes products, such as the expectation, in half precision, and the classification term and its sum in float32.
        product = max((working, getattr(torch, str(setting.autocast))), key=unit_roundoff)
    return Precision(
        distance=unit_roundoff(product),
        corner=unit_roundoff(working),
        score=unit_roundoff(scores),
        core=unit_roundoff(core),
        output=unit_roundoff(logits),
        flat=FLAT if core == torch.float64 else 0.0,
        smallest_score=smallest(scores),
        smallest_core=smallest(core),
        smallest_output=smallest(logits),
        largest_output=float(torch.finfo(logits).max),
        anchors=working,
        linear=unit_roundoff(getattr(torch, setting.autocast) if setting.autocast and claim == "logits" else core),
        product=max(unit_roundoff(product), FLAT if core == torch.float64 else 0.0),
        count=unit_roundoff(product) if casts else 0.0,
    )
