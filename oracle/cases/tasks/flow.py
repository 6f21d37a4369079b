"""A small real-NVP (Dinh 2016, arXiv 1605.08803) as the flow of pose cases: the density of normalised keypoint errors.

Its parameters come from :mod:`oracle.cases.noise` and are far from those of the identity, so that log φ and its gradient matter. Every
criterion of a comparison gets a copy of its own.

Shape suffixes: P pairs of a held anchor and a visible keypoint; 2 coordinates.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from oracle.cases.noise import Noise

COUPLINGS, HIDDEN = 4, 6
LARGEST_SCALE = 0.5  # Bound of each log-scale.
_STREAM = 70
_WEIGHT, _SHIFT = 0.4, 0.3  # Deviations of the parameters.


class Flow(nn.Module):
    """The flow: alternating affine couplings of two coordinates, with a standard normal as prior.

    Parameters are float64 and are cast to the argument's dtype at each use: gradients then come back unrounded in every dtype, and no
    caller's dtype changes them for the next one. Under autocast the linear maps run in the autocast's dtype, as the reference's do.

    Args:
        seed: seed of the parameters.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        noise = Noise(seed, _STREAM)

        def drawn(deviation: float, *shape: int) -> nn.Parameter:
            return nn.Parameter(torch.from_numpy(noise.bell(*shape)).double() * deviation)

        self.inner = nn.ParameterList(drawn(_WEIGHT, HIDDEN, 1) for _ in range(COUPLINGS))
        self.inner_shift = nn.ParameterList(drawn(_SHIFT, HIDDEN) for _ in range(COUPLINGS))
        self.outer = nn.ParameterList(drawn(_WEIGHT, 2, HIDDEN) for _ in range(COUPLINGS))
        self.outer_shift = nn.ParameterList(drawn(_SHIFT, 2) for _ in range(COUPLINGS))

    def log_prob(self, u_P2: Tensor) -> Tensor:
        """Returns the log-density (P,) of the normalised errors, in their dtype."""
        kept, moved = u_P2.unbind(1)
        log_scale_P = torch.zeros_like(kept)
        for coupling in zip(self.inner, self.inner_shift, self.outer, self.outer_shift, strict=True):
            inner, inner_shift, outer, outer_shift = (parameter.to(u_P2.dtype) for parameter in coupling)
            hidden = torch.tanh(linear(kept[:, None], inner, inner_shift))
            scale, shift = linear(hidden, outer, outer_shift).to(u_P2.dtype).unbind(1)
            scale = LARGEST_SCALE * torch.tanh(scale)
            log_scale_P = log_scale_P - scale
            # The coordinate that moved here conditions the next coupling.
            kept, moved = (moved - shift) * torch.exp(-scale), kept
        return log_scale_P - (kept.square() + moved.square()) / 2 - math.log(2 * math.pi)
