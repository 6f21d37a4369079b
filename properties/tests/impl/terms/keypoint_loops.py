"""The keypoint terms once more, with loops over plain numbers, and the scenes on which both are compared (pose spec sections 3 and 6)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from twinloss.terms.keypoints import (
    Generation,
    doubled_variances,
    keypoint_differences,
    likelihood_term,
    likelihood_weights,
    location_term,
    visibility_term,
)


class Quadratic(nn.Module):
    """A log-density with three parameters, written also for plain numbers."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.numbers = nn.Parameter(torch.tensor([-0.3, -0.2, 0.4], dtype=dtype))

    def forward(self, latent: Tensor) -> Tensor:
        """Log-density (P,) of points (P, 2)."""
        first, second, third = self.numbers.to(latent.dtype)
        density: Tensor = first * latent[:, 0].square() + second * latent[:, 1].square() + third * latent[:, 0].sin() * latent[:, 1].cos()
        return density

    def of(self, x: float, y: float) -> float:
        """Log-density of one point."""
        first, second, third = self.numbers.tolist()
        return float(first * x * x + second * y * y + third * math.sin(x) * math.cos(y))


@dataclass
class Scene:
    """Held anchors with their keypoints: predictions (H, n, 5) as x, y, logit and two deviations, all raw."""

    raw: Tensor
    target: Tensor
    visible: Tensor
    centres: Tensor
    strides: Tensor
    sides: Tensor
    generation: Generation
    shape: tuple[int, int]

    @property
    def doubled(self) -> Tensor:
        """8σ_k²."""
        return doubled_variances(self.shape, None, torch.float64, self.raw.device)

    def terms(self, raw: Tensor, flow: Callable[[Tensor], Tensor], dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
        """Location, visibility and likelihood, by the package."""
        difference = keypoint_differences(raw[..., :2], self.target, self.centres, self.strides, self.generation)
        area = self.sides.prod(-1) / self.strides.square()
        weight = likelihood_weights(self.shape, raw.device)
        return (
            location_term(difference, self.visible, area, self.doubled),
            visibility_term(raw[..., 2], self.visible),
            likelihood_term(difference, raw[..., 3:], self.visible, weight, flow, dtype, torch.finfo(raw.dtype).tiny),
        )

    def by_loops(self, raw: list[list[list[float]]], flow: Quadratic) -> tuple[float, float, float]:
        """The same three of plain numbers."""
        location = visibility = likelihood = 0.0
        pairs, weights, doubled = 0, likelihood_weights(self.shape, self.raw.device).tolist(), self.doubled.tolist()
        for held, keypoints in enumerate(raw):
            seen, stride = int(self.visible[held].sum()), float(self.strides[held])
            area = float(self.sides[held, 0] * self.sides[held, 1]) / stride**2
            for k, (raw_x, raw_y, logit, *sigmas) in enumerate(keypoints):
                visibility += math.log1p(math.exp(-logit if self.visible[held, k] else logit))
                if not self.visible[held, k]:
                    continue
                factor, shift = (2, 0.5) if self.generation == 1 else (1, 0)
                off = [
                    factor * value + float(self.centres[held, c]) - shift - float(self.target[held, k, c]) / stride
                    for c, value in enumerate((raw_x, raw_y))
                ]
                location += (1 - math.exp(-(off[0] ** 2 + off[1] ** 2) / (doubled[k] * (area + 1e-9)))) / (seen + 1e-9)
                deviations = [1 / (1 + math.exp(-value)) for value in sigmas]
                latent = [max(-100.0, min(100.0, d / (s + 1e-9))) for d, s in zip(off, deviations, strict=True)]
                sides = sum(math.log(s) + math.log(2 * s) + abs(u) for s, u in zip(deviations, latent, strict=True))
                likelihood += weights[k] * (sides - 2 * flow.of(*latent))
                pairs += 1
        count = len(raw)
        return location / count, visibility / (count * self.shape[0]), max(likelihood / max(pairs, 1), 0)


def scene(keypoints: int, generation: Generation, *, held: int = 3, seed: int = 0, spread: float = 1.0, seen: float = 0.6) -> Scene:
    """Held anchors on three strides with predictions about ``spread`` cells from their targets; ``seen`` of the keypoints are visible."""
    random = torch.Generator().manual_seed(seed)
    strides = torch.tensor([8.0, 16.0, 32.0], dtype=torch.float64)[torch.arange(held) % 3]
    centres = torch.randint(0, 10, (held, 2), generator=random) + 0.5
    raw = torch.randn(held, keypoints, 5, generator=random, dtype=torch.float64)
    factor, shift = (2, 0.5) if generation == 1 else (1, 0)
    near = (raw[..., :2] * factor + (centres - shift)[:, None]) * strides[:, None, None]
    return Scene(
        raw,
        near + torch.randn(held, keypoints, 2, generator=random, dtype=torch.float64) * spread * strides[:, None, None],
        torch.rand(held, keypoints, generator=random) < seen,
        centres.to(torch.float64),
        strides,
        40 + 200 * torch.rand(held, 2, generator=random, dtype=torch.float64),
        generation,
        (keypoints, 3),
    )
