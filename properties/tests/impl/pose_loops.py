"""The pose loss once more in float64, with loops over boxes, anchors and keypoints (pose spec sections 2 to 6), and batches for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from twinloss import PoseSpec, ciou, decode_boxes, make_anchors
from twinloss.geometry.corners import pixel_corners
from twinloss.terms.keypoints import COCO_SIGMAS, COCO_WEIGHTS

STRIDES = (8, 16, 32)
Logs = dict[tuple[int, int], float]


class Flow(nn.Module):
    """A small log-density with weights of its own."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        self.inner = nn.Parameter(torch.randn(2, 6, generator=random))
        self.outer = nn.Parameter(torch.randn(6, generator=random))

    def forward(self, latent: Tensor) -> Tensor:
        """Log-density (P,) of points (P, 2)."""
        density: Tensor = (latent @ self.inner.to(latent.dtype)).tanh() @ self.outer.to(latent.dtype) - latent.square().sum(-1) / 50
        return density


@dataclass
class Batch:
    """Predictions and targets of one call, and its definition."""

    spec: PoseSpec
    preds: dict[str, Any]
    targets: dict[str, Tensor]
    size: int

    def to(self, dtype: torch.dtype) -> Batch:
        """The same with leaves of another dtype; targets stay, but are float64 beside such leaves."""
        targets = self.targets
        if dtype == torch.float64:
            targets = {k: v.to(dtype) if v.is_floating_point() else v for k, v in targets.items()}
        preds = {k: v if k == "feats" else v.detach().to(dtype).requires_grad_() for k, v in self.preds.items()}
        return Batch(self.spec, preds, targets, self.size)

    def leaves(self) -> dict[str, Tensor]:
        """What gradients are asked of."""
        return {key: value for key, value in self.preds.items() if key != "feats"}


def batch(
    spec: PoseSpec, *, boxes: int = 5, images: int = 2, size: int = 64, seed: int = 0, noise: float = 0.2, flags: int = 3, seen: float = 0.7
) -> Batch:
    """Boxes with keypoints about them, and predictions at the anchors inside that miss by about ``noise`` of the box's side.

    ``flags`` is the last size of ``keypoints``; ``seen`` is the share of visible ones.
    """
    random = torch.Generator().manual_seed(seed)
    points, numbers = spec.keypoint_shape
    grids = [(size // stride, size // stride) for stride in STRIDES]
    centres, strides = make_anchors(grids, STRIDES, dtype=torch.float64)
    image = torch.randint(0, images, (boxes,), generator=random).sort().values
    sides = torch.rand(boxes, 2, generator=random) * 0.7 + 0.1
    centre = torch.rand(boxes, 2, generator=random)
    spots = centre[:, None] + (torch.rand(boxes, points, 2, generator=random) - 0.5) * sides[:, None] * 1.2
    shown = (torch.rand(boxes, points, 1, generator=random) < seen) * torch.randint(1, 3, (boxes, points, 1), generator=random)
    preds = {
        "boxes": torch.randn(images, 4 * spec.reg_max, len(strides), generator=random) + (3 if spec.reg_max == 1 else 0),
        "scores": torch.randn(images, spec.num_classes, len(strides), generator=random) - 2,
        "kpts": torch.randn(images, points * numbers, len(strides), generator=random),
        "kpts_sigma": torch.randn(images, 2 * points, len(strides), generator=random) - 1,
    }
    factor, shift = (2, 0.5) if spec.generation == 1 else (1, 0)
    for row in range(boxes):
        low, high = ((centre[row] + sign * sides[row] / 2) * size for sign in (-1, 1))
        inside = ((centres * strides[:, None] > low) & (centres * strides[:, None] < high)).all(-1).nonzero().squeeze(1)
        miss = noise * sides[row].prod().sqrt() * torch.randn(len(inside), points, 2, generator=random)
        raw = (((spots[row] + miss) * size / strides[inside, None, None] - centres[inside, None] + shift) / factor).to(torch.float32)
        preds["kpts"][image[row]].view(points, numbers, -1)[:, :2, inside] = raw.permute(1, 2, 0)
    targets = {
        "batch_idx": image.to(torch.float32),
        "cls": torch.randint(0, spec.num_classes, (boxes, 1), generator=random).to(torch.float32),
        "bboxes": torch.cat([centre, sides], dim=-1),
        "keypoints": torch.cat([spots, shown], dim=-1)[..., :flags],
    }
    leaves: dict[str, Any] = {key: value.requires_grad_() for key, value in preds.items() if key != "kpts_sigma" or spec.flow}
    return Batch(spec, {**leaves, "feats": [torch.zeros(images, 1, *grid) for grid in grids]}, targets, size)


class Loops:
    """The loss of one batch; predictions keep their dtype's numbers and are float64."""

    def __init__(self, given: Batch, flow: Callable[[Tensor], Tensor] | None = None) -> None:
        self.spec, self.size, self.flow = given.spec, given.size, flow
        self.preds = given.preds
        self.points, self.numbers = given.spec.keypoint_shape
        grids = [(given.size // stride, given.size // stride) for stride in STRIDES]
        self.centres, self.strides = make_anchors(grids, STRIDES, dtype=torch.float64)
        targets = {key: value.to(torch.float64) for key, value in given.targets.items()}
        self.image, self.label = targets["batch_idx"].to(torch.int64), targets["cls"].view(-1).to(torch.int64)
        self.sides = targets["bboxes"][:, 2:] * given.size
        self.corners = pixel_corners(targets["bboxes"], (given.size, given.size))
        self.spots = targets["keypoints"][..., :2] * given.size
        flags = targets["keypoints"]
        self.shown = flags[..., 2] != 0 if flags.shape[-1] == 3 else torch.ones_like(flags[..., 0], dtype=torch.bool)
        self.decoded = decode_boxes(self.preds["boxes"], self.centres, self.spec.reg_max).detach()
        self.doubled = [8 * sigma**2 for sigma in self._sigmas()]

    def _sigmas(self) -> list[float]:
        if self.spec.sigmas is not None:
            return [float(torch.tensor(sigma)) for sigma in self.spec.sigmas]
        return [sigma / 10 for sigma in COCO_SIGMAS] if self.spec.keypoint_shape == (17, 3) else [1 / self.points] * self.points

    def raw(self, image: int, anchor: int, k: int) -> Tensor:
        """Predicted numbers of a keypoint."""
        numbers: Tensor = self.preds["kpts"][image, k * self.numbers : (k + 1) * self.numbers, anchor]
        return numbers

    def spot(self, image: int, anchor: int, k: int) -> Tensor:
        """Predicted position of a keypoint in grid units."""
        raw = self.raw(image, anchor, k)[:2]
        return 2 * raw + self.centres[anchor] - 0.5 if self.spec.generation == 1 else raw + self.centres[anchor]

    def candidates(self, row: int) -> list[int]:
        """Anchors inside a box, lengthened where it is short, on the levels that it fits."""
        low, high = self.corners[row, :2].clone(), self.corners[row, 2:].clone()
        for axis in range(2):
            if high[axis] - low[axis] < 16:
                middle = (low[axis] + high[axis]) / 2
                low[axis], high[axis] = middle - 8, middle + 8
        inside = [
            anchor
            for anchor, (centre, stride) in enumerate(zip(self.centres, self.strides, strict=True))
            if min(*(centre * stride - low).tolist(), *(high - centre * stride).tolist()) > 1e-9
        ]
        if self.spec.generation == 1:
            return inside
        side = math.sqrt(float(self.sides[row].prod()))
        small, large = side < 16, side > 192
        fitting = [
            anchor
            for anchor in inside
            if 2 * self.strides[anchor] <= side <= 12 * self.strides[anchor] or self.strides[anchor] == (8 if small else 32 if large else 0)
        ]
        return fitting or inside

    def log_overlap(self, row: int, anchor: int) -> float:
        """Logarithm of the overlap of a candidate pair."""
        image = int(self.image[row])
        if self.spec.generation == 1 or not self.shown[row].any():
            found = float(ciou(self.corners[row], self.decoded[image, anchor] * self.strides[anchor], self.spec.ciou_eps))
            return math.log(found) if found > 0 else -math.inf
        errors = []
        for k in range(self.points):
            if self.shown[row, k]:
                off = self.spot(image, anchor, k).detach() * self.strides[anchor] - self.spots[row, k]
                errors.append(float(off.square().sum() / (self.doubled[k] * (0.53 * self.sides[row].prod() + 1e-9))))
        least = min(errors)
        return math.log(sum(math.exp(least - error) for error in errors) / len(errors)) - least

    def log_metric(self, row: int, anchor: int, log_overlap: float) -> float:
        """Logarithm of the alignment metric."""
        score = self.preds["scores"][self.image[row], self.label[row], anchor].detach()
        return float(torch.nn.functional.logsigmoid(score)) * self.spec.alpha + log_overlap * self.spec.beta

    def assign(self) -> dict[tuple[int, int], tuple[int, float]]:
        """Row and weight of each held (image, anchor)."""
        valid = [row for row in range(len(self.image)) if self.corners[row].sum() > 0]
        overlaps: Logs = {(row, anchor): self.log_overlap(row, anchor) for row in valid for anchor in self.candidates(row)}
        metrics: Logs = {pair: self.log_metric(*pair, overlap) for pair, overlap in overlaps.items()}
        picks = {row: _best(metrics, [pair for pair in metrics if pair[0] == row], self.spec.topk) for row in valid}
        holder: dict[tuple[int, int], int] = {}
        for image in set(self.image.tolist()):
            rows = [row for row in valid if self.image[row] == image]
            for anchor in range(len(self.strides)):
                pickers = [row for row in rows if anchor in picks[row]]
                if len(pickers) == 1:
                    holder[image, anchor] = pickers[0]
                elif pickers:
                    holder[image, anchor] = max(rows, key=lambda row: (overlaps.get((row, anchor), -math.inf), -row))
        held = {(row, anchor): metrics[row, anchor] for (_, anchor), row in holder.items()}
        if self.spec.second_topk is not None:
            kept = {row: _best(held, [pair for pair in held if pair[0] == row], self.spec.second_topk) for row in valid}
            held = {pair: metric for pair, metric in held.items() if pair[1] in kept[pair[0]]}
        found = {}
        for (row, anchor), metric in held.items():
            own = [pair for pair in held if pair[0] == row]
            most, overlap = max(held[pair] for pair in own), max(overlaps[pair] for pair in own)
            divisor = math.exp(most) + 1e-9
            found[int(self.image[row]), anchor] = (row, math.exp(metric + overlap) / divisor)
        return dict(sorted(found.items()))

    def keypoint_terms(self, held: dict[tuple[int, int], tuple[int, float]]) -> tuple[Tensor, Tensor, Tensor]:
        """Location, visibility and likelihood, differentiable, without gains."""
        location, visibility, likelihood, pairs = (torch.zeros((), dtype=torch.float64) for _ in range(4))
        for (image, anchor), (row, _) in held.items():
            stride, seen = self.strides[anchor], float(self.shown[row].sum())
            area = self.sides[row].prod() / stride**2
            for k in range(self.points):
                shown = self.shown[row, k]
                if self.numbers == 3:
                    logit = self.raw(image, anchor, k)[2]
                    visibility = visibility + nn.functional.softplus(-logit if shown else logit) / self.points
                if not shown:
                    continue
                off = self.spot(image, anchor, k) - self.spots[row, k] / stride
                location = location + (1 - (-off.square().sum() / (self.doubled[k] * (area + 1e-9))).exp()) / (seen + 1e-9)
                if self.flow is not None and "kpts_sigma" in self.preds:
                    deviation = self.preds["kpts_sigma"][image, 2 * k : 2 * k + 2, anchor].sigmoid()
                    latent = (off / (deviation + 1e-9)).clamp(-100, 100)
                    weight = COCO_WEIGHTS[k] if self.spec.keypoint_shape == (17, 3) else 1.0
                    sides = (2 * deviation.log() + math.log(2) + latent.abs()).sum()
                    likelihood = likelihood + weight * (sides - 2 * self.flow(latent[None])[0])
                    pairs = pairs + 1
        count = max(len(held), 1)
        return location / count, visibility / count, (likelihood / pairs.clamp(min=1)).clamp(min=0)


def _best(metrics: Logs, pairs: list[tuple[int, int]], keep: int) -> set[int]:
    positive = [pair for pair in pairs if metrics[pair] > -math.inf]
    return {anchor for _, anchor in sorted(positive, key=lambda pair: (-metrics[pair], pair[1]))[:keep]}
