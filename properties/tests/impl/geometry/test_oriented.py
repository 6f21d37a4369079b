"""The geometry of oriented boxes, stage by stage (oriented spec sections 3 to 5.1 and 7)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from twinloss import Assignment, GroundTruth, OrientedLoss, OrientedSpec
from twinloss.backends.registry import BackendName
from twinloss.geometry.rectangles import boxes_from_distances, distances_from_boxes, in_frame

SPEC = OrientedSpec(num_classes=1, reg_max=1, topk=10_000)
SIZE = 160
STRIDES = (8, 16, 32)
ANCHORS = sum((SIZE // stride) ** 2 for stride in STRIDES)

half = math.pi / 2


def predictions(images: int, seed: int = 0) -> dict[str, Tensor | list[Tensor]]:
    draw = torch.Generator().manual_seed(seed)
    boxes = 3 + 2 * torch.rand(images, 4, ANCHORS, generator=draw)
    angle = (torch.rand(images, 1, ANCHORS, generator=draw) - 0.25) * math.pi
    feats = [torch.empty(images, 1, SIZE // stride, SIZE // stride) for stride in STRIDES]
    return {"boxes": boxes, "scores": torch.zeros(images, 1, ANCHORS), "angle": angle, "feats": feats}


def batch_of(boxes: Tensor) -> dict[str, Tensor]:
    """Boxes (N, 5) in pixels, each in an image of its own."""
    scale = torch.tensor([SIZE, SIZE, SIZE, SIZE, 1.0])
    return {"batch_idx": torch.arange(float(len(boxes))), "cls": torch.zeros(len(boxes), 1), "bboxes": boxes / scale}


def held(boxes: Tensor, backend: BackendName) -> Assignment:
    """With more kept than there are anchors, and a box to an image, every candidate is held."""
    return OrientedLoss(SPEC, backend=backend).assign(predictions(len(boxes)), batch_of(boxes))


def centres() -> Tensor:
    xy, strides = OrientedLoss(SPEC).anchors(predictions(1))
    return xy * strides[:, None]


def random_boxes(count: int, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    xy = torch.rand(count, 2, generator=draw) * 1.4 * SIZE - 0.2 * SIZE
    sides = 2 + (5.5 * torch.rand(count, 2, generator=draw)).exp()
    return torch.cat([xy, sides, 8 * torch.rand(count, 1, generator=draw) - 4], dim=1)


@pytest.mark.parametrize("backend", ["torch", "native"])
def test_candidates_are_the_anchors_inside_the_lengthened_rectangle(backend: BackendName) -> None:
    boxes = random_boxes(150, 0)
    found = held(boxes, backend)
    sides = torch.where(boxes[:, 2:4] < 16, 16.0, boxes[:, 2:4]).double()
    xi, eta = in_frame(boxes[:, None, :2].double() - centres().double(), boxes[:, None, 4].double())
    margin = torch.minimum(sides[:, None, 0] / 2 - xi.abs(), sides[:, None, 1] / 2 - eta.abs())
    counts = ((boxes[:, 2:4] >= 2).all(1) & (boxes.sum(1) > 0))[:, None]
    ours = torch.zeros_like(margin, dtype=torch.bool)
    ours[found.image, found.anchor] = True
    assert (counts & (margin > 0)).sum() > 1000
    decided = margin.abs() > 1e-4
    assert ((ours == (counts & (margin > 0))) | ~decided).all()


# Round numbers, so that centres lie on borders: rounding decides, and must decide alike.
ROUND = [(x, y, w, h, angle) for x, y in ((28, 20), (80, 84)) for w, h in ((16, 32), (64, 8), (144, 16), (48, 48)) for angle in
         (0.0, half, -half, math.pi, 2 * half + 1e-6, half / 2, 1e-7, -1e-5, 3 * half, 20 * half)]  # fmt: skip


@pytest.mark.parametrize("boxes", [torch.tensor(ROUND), random_boxes(150, 1), random_boxes(60, 2) * torch.tensor([1.0, 1, 1, 0.02, 1])])
def test_native_candidates_are_those_on_torch(boxes: Tensor) -> None:
    ours, theirs = held(boxes, "native"), held(boxes, "torch")
    for column in ("image", "anchor", "box"):
        assert torch.equal(getattr(ours, column), getattr(theirs, column))


def test_borders_are_inside() -> None:
    # A 16 x 32 px box at (28, 20): its left side runs through the anchor (20, 20).
    for sides, angle in (((16.0, 32.0), 0.0), ((32.0, 16.0), half)):
        anchors = held(torch.tensor([[28.0, 20.0, *sides, angle]]), "torch").anchor
        assert [20.0, 20.0] in centres()[anchors].tolist()


def test_rows_that_do_not_count() -> None:
    rows = {
        "kept": (80.0, 80.0, 30.0, 20.0, 0.3),
        "two pixels": (80.0, 80.0, 2.0, 2.0, 0.3),
        "narrow": (80.0, 80.0, 1.99, 20.0, 0.3),
        "low": (80.0, 80.0, 20.0, 1.99, 0.3),
        "empty": (80.0, 80.0, 0.0, 0.0, 0.3),
        "small at an angle of -55": (20.0, 20.0, 8.0, 8.0, -55.0),
        "small at an angle of -60": (20.0, 20.0, 8.0, 8.0, -60.0),
        "outside, but positive": (-5.0, 100.0, 20.0, 20.0, 0.0),
    }
    batch = batch_of(torch.tensor(list(rows.values())))
    truth: GroundTruth = OrientedLoss(SPEC).targets(predictions(len(rows)), batch)
    names = [list(rows)[row] for row in truth.row.tolist()]
    assert names == ["kept", "two pixels", "small at an angle of -55", "outside, but positive"]
    ours = OrientedLoss(SPEC, backend="native").assign(predictions(len(rows)), batch)
    assert set(ours.box.tolist()) <= set(truth.row.tolist())
    assert {0, 1} <= set(ours.box.tolist())


def test_decoding_and_its_inverse() -> None:
    draw = torch.Generator().manual_seed(3)
    xy, distances = (torch.rand(200, n, generator=draw, dtype=torch.float64) * 9 - 2 for n in (2, 4))
    angle = torch.rand(200, 1, generator=draw, dtype=torch.float64) * 20 - 10
    boxes = boxes_from_distances(xy, distances, angle)
    torch.testing.assert_close(distances_from_boxes(xy, boxes), distances)
    assert torch.equal(boxes[:, 2], distances[:, 0] + distances[:, 2])
    upright = boxes_from_distances(xy, distances, torch.zeros_like(angle))
    torch.testing.assert_close(upright[:, :2] - upright[:, 2:4] / 2, xy - distances[:, :2])
    torch.testing.assert_close(upright[:, :2] + upright[:, 2:4] / 2, xy + distances[:, 2:])
    # Anchor (0, 0), two cells to the right side and none to the others, turned by a right angle: the centre lies one cell below.
    box = boxes_from_distances(torch.zeros(2), torch.tensor([0.0, 0.0, 2.0, 0.0]), torch.tensor([half]))
    torch.testing.assert_close(box, torch.tensor([0.0, 1.0, 2.0, 0.0, half]))


def test_decoding_of_a_whole_head() -> None:
    preds = predictions(2)
    found = OrientedLoss(SPEC).decode(preds)
    xy, _ = OrientedLoss(SPEC).anchors(preds)
    boxes, angle = preds["boxes"], preds["angle"]
    assert isinstance(boxes, Tensor)
    assert isinstance(angle, Tensor)
    torch.testing.assert_close(found, boxes_from_distances(xy, boxes.permute(0, 2, 1), angle.permute(0, 2, 1)))
