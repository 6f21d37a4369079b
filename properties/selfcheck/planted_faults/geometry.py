"""Wrong anchors, ground truth, decoding and candidates (spec sections 2 to 5.1)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from properties.selfcheck.planted_faults.fault import Fault, Make, Patch
from twinloss.assignment import assign as assignment
from twinloss.backends import torch as loss
from twinloss.geometry import corners, upright
from twinloss.terms import boxes as terms


def centres(change: Any) -> tuple[Patch, ...]:
    """Changes the anchors' centres (A, 2) or strides (A,); ``change`` takes both and the grids."""

    def make(sound: Any) -> Any:
        def make_anchors(grids: Any, strides: Any, **kinds: Any) -> tuple[Tensor, Tensor]:
            return change(*sound(grids, strides, **kinds), grids)  # type: ignore[no-any-return]

        return make_anchors

    return (Patch(loss, "make_anchors", make),)


def _transposed(grid: Tensor, strides: Tensor, grids: Any) -> tuple[Tensor, Tensor]:
    parts = grid.split([rows * columns for rows, columns in grids])
    swapped = [part.view(rows, columns, 2).transpose(0, 1).reshape(-1, 2) for part, (rows, columns) in zip(parts, grids, strict=True)]
    return torch.cat(swapped), strides


def _last_level(grid: Tensor, grids: Any) -> Tensor:
    rows, columns = grids[-1]
    moved = grid.clone()
    moved[-rows * columns :] += 0.5
    return moved


def pixels(change: Any) -> tuple[Patch, ...]:
    """Changes the pixel corners of assignment and terms; ``change`` takes the sound function, boxes (N, 4) and image size."""

    def make(sound: Any) -> Any:
        return lambda boxes, size: change(sound, boxes, size)

    return (Patch(upright, "pixel_corners", make),)


def rows(keep: Any) -> tuple[Patch, ...]:
    """Drops rows of the ground truth; ``keep`` returns a mask or an index of the rows that remain."""

    def make(sound: Any) -> Any:
        def prepare_targets(*given: Any, **counts: Any) -> Any:
            truth = sound(*given, **counts)
            kept = keep(truth, given)
            return replace(truth, **{name: getattr(truth, name)[kept] for name in ("row", "image", "label", "boxes")})

        return prepare_targets

    return (Patch(loss, "prepare_targets", make),)


def _place(truth: Any) -> Tensor:
    """Returns the position of each row within its image."""
    counts = torch.bincount(truth.image)
    return torch.arange(len(truth)) - (counts.cumsum(0) - counts)[truth.image]


def labels(change: Any) -> tuple[Patch, ...]:
    """Changes the classes in the metric and in the target; ``change`` takes the classes of the rows and C."""

    def metric(sound: Any) -> Any:
        def alignment_metric(scores: Any, truth: Any, *given: Any) -> Any:
            return sound(scores, replace(truth, label=change(truth.label, scores.shape[1])), *given)

        return alignment_metric

    def term(sound: Any) -> Any:
        def classification_term(scores: Any, image: Any, label: Any, *given: Any) -> Any:
            return sound(scores, image, change(label, scores.shape[1]), *given)

        return classification_term

    return Patch(assignment, "alignment_metric", metric), Patch(loss, "classification_term", term)


def decoded(change: Make) -> tuple[Patch, ...]:
    """Replaces the expectation of the bins, in decoding and in the terms."""
    return Patch(corners, "expectation", change), Patch(terms, "expectation", change)


def windows(change: Any) -> tuple[Patch, ...]:
    """Changes the definition that the inside test reads."""

    def make(sound: Any) -> Any:
        return lambda corners, pyramid, spec: sound(corners, pyramid, change(spec))

    return (Patch(upright, "windows", make),)


def lengthened(change: Any) -> tuple[Patch, ...]:
    """Changes how the inside test lengthens short sides."""
    return (Patch(corners, "lengthen", lambda sound: lambda corners, below, side: change(sound, corners, below, side)),)


def _width_alone(sound: Any, corners: Tensor, below: float, side: float) -> Tensor:
    long = sound(corners, below, side)
    return torch.stack([long[:, 0], corners[:, 1], long[:, 2], corners[:, 3]], 1)


def _from_corner(sound: Any, corners: Tensor, below: float, side: float) -> Tensor:
    long = sound(corners, below, side)
    return torch.cat([corners[:, :2], corners[:, :2] + (long[:, 2:] - long[:, :2])], 1)


_ONE_PER_CELL = "There is one anchor per cell, at the cell's centre, x running fastest."
_SCALED = "x is scaled by W and y by H, then centre and size become corners."
_EXPECTATION = "A distance is the expectation of the bin index under the softmax over a side's R logits."
_INSIDE = "All four of the distances from centre to the box's sides exceed ε_a."
_LENGTHENED = "A side shorter than s_1 is first lengthened to s_1 about the box's centre."
_VALID = "A row is valid when the sum of its four corner coordinates is > 0."


def _swapped(dim: int) -> Any:
    return ([0, 1, 3, 2],) if dim == 0 else (..., [0, 1, 3, 2])


ENTRIES = (
    Fault("anchors at cells' corners", _ONE_PER_CELL, "2", patches=centres(lambda c, s, _: (c - 0.5, s))),
    Fault("anchors off by 1e-4 cells", _ONE_PER_CELL, "2", patches=centres(lambda c, s, _: (c + 1e-4, s))),
    Fault("y runs fastest", _ONE_PER_CELL, "2", patches=centres(_transposed)),
    Fault("anchors of the last level off by half a cell", _ONE_PER_CELL, "2", patches=centres(lambda c, s, g: (_last_level(c, g), s))),
    Fault(
        "last level's stride 1 % too large",
        "Each anchor carries its level's stride.",
        "2",
        patches=centres(lambda c, s, _: (c, torch.where(s == s.max(), s * 1.01, s))),
    ),
    Fault("width and height of the image swapped", _SCALED, "3", patches=pixels(lambda sound, boxes, size: sound(boxes, size[::-1]))),
    Fault(
        "boxes clipped to the image",
        _SCALED,
        "3",
        patches=pixels(lambda sound, boxes, size: torch.minimum(sound(boxes, size).clamp(min=0), boxes.new_tensor([*size[::-1]] * 2))),
    ),
    Fault("boxes rounded to whole pixels", _SCALED, "3", patches=pixels(lambda sound, boxes, size: sound(boxes, size).round())),
    Fault(
        "boxes rounded to float16",
        "Ground truth is float32 whatever the dtype of the predictions.",
        "3",
        patches=pixels(lambda sound, boxes, size: sound(boxes.half().to(boxes.dtype), size)),
    ),
    Fault("boxes that begin left of the image dropped", _VALID, "3", patches=rows(lambda truth, _: truth.corners[:, 0] >= 0)),
    Fault(
        "boxes of less than 4 px dropped",
        _VALID,
        "3",
        patches=rows(lambda truth, _: (truth.corners[:, 2:] - truth.corners[:, :2] >= 4).all(1)),
    ),
    Fault(
        "last box of a full image lost",
        "Boxes keep the order in which they arrive.",
        "3",
        patches=rows(lambda truth, _: _place(truth) < max(int(torch.bincount(truth.image).max()) - 1, 1) if len(truth) else slice(None)),
    ),
    Fault(
        "boxes beyond the 64th ignored",
        "The reference pads every image to the largest N_b.",
        "3",
        patches=rows(lambda truth, _: _place(truth) < 64),
    ),
    Fault(
        "last image's boxes ignored",
        "batch_idx (N,) holds image indices.",
        "1",
        patches=rows(lambda truth, given: truth.image < max(int(given[0].max()), 1) if len(truth) else slice(None)),
    ),
    Fault(
        "second of only two boxes ignored",
        "The loss is that of all N boxes.",
        "1",
        patches=rows(lambda truth, _: slice(0, 1) if len(truth) == 2 else slice(None)),
    ),
    Fault(
        "last class learnt as the one before",
        "The target score is placed at class_j.",
        "5.7",
        patches=labels(lambda label, count: label.clamp(max=max(count - 2, 0))),
    ),
    Fault(
        "class 0 learnt as the next",
        "The target score is placed at class_j.",
        "5.7",
        patches=labels(lambda label, count: label.clamp(min=min(1, count - 1))),
    ),
    Fault("bins count from 1", _EXPECTATION, "4", patches=decoded(lambda sound: lambda share: sound(share) + 1)),
    Fault("expectation off by 1e-4", _EXPECTATION, "4", patches=decoded(lambda sound: lambda share: sound(share) * 1.0001)),
    Fault(
        "expectation ignores bins below 1e-3",
        _EXPECTATION,
        "4",
        patches=decoded(lambda sound: lambda share: sound(torch.where(share < 1e-3, 0.0, share))),
    ),
    Fault(
        "right and bottom swapped",
        "Box = (a_x − l, a_y − t, a_x + r, a_y + b).",
        "4",
        patches=tuple(
            Patch(holder, "corners_from_distances", lambda sound: lambda c, d, dim=-1: sound(c, d[_swapped(dim)], dim))
            for holder in (corners, upright, terms)
        ),
    ),
    Fault(
        "negative distances set to 0",
        "With R = 1 the predictions are the distances themselves, without softmax.",
        "7",
        patches=tuple(
            Patch(holder, "corners_from_distances", lambda sound: lambda c, d, dim=-1: sound(c, d.clamp(min=0), dim))
            for holder in (corners, upright, terms)
        ),
    ),
    Fault("borders inclusive", _INSIDE, "5.1", patches=windows(lambda s: replace(s, assign_eps=-1e-7))),
    Fault("borders narrower by 0.01 px", _INSIDE, "5.1", patches=windows(lambda s: replace(s, assign_eps=0.01))),
    Fault(
        "no more than 9 cells a row inside",
        _INSIDE,
        "5.1",
        patches=(Patch(upright, "windows", lambda sound: lambda *given: replace(found := sound(*given), count=found.count.clamp(max=9))),),
    ),
    Fault("width alone lengthened", _LENGTHENED, "5.1", patches=lengthened(_width_alone)),
    Fault("lengthened from the top left corner", _LENGTHENED, "5.1", patches=lengthened(_from_corner)),
    Fault(
        "lengthened by a pixel too much",
        _LENGTHENED,
        "5.1",
        patches=lengthened(lambda sound, corners, below, side: sound(corners, below, side + 1)),
    ),
    Fault(
        "long sides lengthened too",
        "A side shorter than s_1 is first lengthened.",
        "5.1",
        patches=lengthened(lambda sound, corners, below, side: sound(corners, 2 * below, 2 * side)),
    ),
)
