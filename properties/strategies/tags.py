"""Tags of a case, computed from its boxes and predictions, whichever strategy drew them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from oracle.cases.build import build
from oracle.cases.case import Case, Setting
from oracle.definition.criterion import ExactCriterion
from oracle.definition.formulas import border_distance, ciou, lengthened

# tag -> when a case has it
TAGS = {
    "no-boxes": "no image has a box",
    "empty-image": "an image has no box while another has",
    "padded": "the images differ in their number of boxes",
    "rectangular": "the image is not square",
    "fewer-anchors-than-k": "A < K",
    "many-anchors": "A >= 64 K, where the framework's top-k uses another algorithm",
    "degenerate": "a side is 0",
    "subpixel": "a side is between 0 and 1 pixel",
    "short": "a side is so short that the inside test lengthens it",
    "touches-image": "a border lies on the image's border",
    "leaves-image": "a box crosses the image's border or lies outside",
    "dropped": "a box is not valid: its centre's x + y is not positive",
    "on-centre": "a border lies on an anchor's centre",
    "unseen": "a valid box contains no anchor",
    "contested": "an anchor is a candidate of two boxes",
    "crowded": "an anchor is a candidate of five boxes",
    "identical": "two boxes of one image and class are the same",
    "identical-classes": "two boxes of one image differ in their class alone",
    "nested": "a box lies strictly within another",
    "few-candidates": "a valid box has candidates, but fewer than K",
    "clamped": "a candidate's target distance is clamped from above",
    "clamped-low": "a candidate lies outside the box, so that a target distance is clamped to 0",
    "integer-distance": "a candidate's target distance is a whole number of cells",
    "tied": "two candidates of a box have the same positive metric",
    "tied-at-k": "the K-th and the next candidate of a box have the same positive metric",
    "zero-metric": "a valid box has fewer than K candidates of positive metric, so that anchors of metric 0 may be picked",
    "weightless": "a valid box has candidates and none has a positive metric",
}

_NEAR = 1e-4  # Pixels or cells. Float32 rounds the coordinates of a box, so that a border "on" a centre can differ in the last bits.
_TIE = 1e-12


def tags_of(case: Case) -> tuple[str, ...]:
    """Returns the tags of a case in the order of :data:`TAGS`; it takes milliseconds at 64 px."""
    found = set(_shape_tags(case))
    if case.boxes:
        found |= set(_box_tags(case)) | set(_anchor_tags(case))
    return tuple(tag for tag in TAGS if tag in found)


def _shape_tags(case: Case) -> Iterator[str]:
    counts = [0] * case.batch_size
    for box in case.boxes:
        counts[box.image] += 1
    height, width = case.image_size
    yield from (
        tag
        for tag, holds in (
            ("no-boxes", not case.boxes),
            ("empty-image", bool(case.boxes) and min(counts) == 0),
            ("padded", min(counts) != max(counts)),
            ("rectangular", height != width),
            ("fewer-anchors-than-k", case.num_anchors < case.spec.topk),
            ("many-anchors", case.num_anchors >= 64 * case.spec.topk),
        )
        if holds
    )


def _box_tags(case: Case) -> Iterator[str]:
    rows = torch.tensor([(b.image, b.label, b.cx, b.cy, b.w, b.h) for b in case.boxes], dtype=torch.float64)
    sides, low, high = rows[:, 4:], rows[:, 2:4] - rows[:, 4:] / 2, rows[:, 2:4] + rows[:, 4:] / 2
    far = torch.tensor([case.image_size[1], case.image_size[0]], dtype=torch.float64)
    same_image = rows[:, None, 0] == rows[:, 0]
    same_place = (rows[:, None, 2:] == rows[:, 2:]).all(2) & same_image
    same_class = rows[:, None, 1] == rows[:, 1]
    inner = ((low[:, None] > low) & (high[:, None] < high)).all(2) & same_image
    later = torch.ones(len(rows), len(rows), dtype=torch.bool).tril(-1)
    yield from (
        tag
        for tag, holds in (
            ("degenerate", (sides == 0).any()),
            ("subpixel", ((sides > 0) & (sides < 1)).any()),
            ("short", (sides < case.spec.shortest_side).any()),
            ("touches-image", ((low.abs() < _NEAR) | ((high - far).abs() < _NEAR)).any()),
            ("leaves-image", ((low < -_NEAR) | (high > far + _NEAR)).any()),
            ("dropped", (rows[:, 2:4].sum(1) <= 0).any()),
            ("identical", (same_place & same_class & later).any()),
            ("identical-classes", (same_place & ~same_class & later).any()),
            ("nested", inner.any()),
        )
        if holds
    )


def _anchor_tags(case: Case) -> Iterator[str]:
    spec, exact = case.spec, ExactCriterion(case.spec)
    preds, batch = build(case, Setting(dtype="float64"))
    with torch.no_grad():
        grid, truth = exact.grid(preds), exact.targets(preds, batch)
        centres = grid.centres * grid.strides[:, None]
        candidate = border_distance(lengthened(truth.corners, spec.shortest_side), centres) > spec.assign_eps
        box, anchor = candidate.nonzero(as_tuple=True)
        predicted = exact.decode(preds)[truth.image[box], anchor] * grid.strides[anchor, None]
        overlap = ciou(truth.corners[box], predicted, spec.ciou_eps).clamp(min=0)
        probability = preds["scores"][truth.image[box], truth.label[box], anchor].sigmoid()
        metric = probability**spec.alpha * overlap**spec.beta
        distances = torch.cat([centres[anchor] - truth.corners[box, :2], truth.corners[box, 2:] - centres[anchor]], dim=1)
        cells = distances / grid.strides[anchor, None]
        borders = truth.corners.reshape(-1, 2, 2)
        on_centre = ((borders[:, None] - centres[:, None]).abs() < _NEAR).any()
        rivals = torch.bincount(truth.image[box] * case.num_anchors + anchor, minlength=1).max() if len(box) else 0
        candidates = candidate.sum(1)
        positive = torch.zeros_like(candidates).index_add_(0, box, (metric > 0).long())
        tied, tied_at_k = _ties(box, metric, spec.topk)
        yield from (
            tag
            for tag, holds in (
                ("on-centre", on_centre),
                ("unseen", (candidates == 0).any()),
                ("contested", rivals >= 2),
                ("crowded", rivals >= 5),
                ("few-candidates", ((candidates > 0) & (candidates < spec.topk)).any()),
                ("clamped", spec.reg_max > 1 and (cells > spec.reg_max - 1 - spec.clamp_margin).any()),
                ("clamped-low", (cells < -_NEAR).any()),
                ("integer-distance", ((cells - cells.round()).abs() < _NEAR).any()),
                ("tied", tied),
                ("tied-at-k", tied_at_k),
                ("zero-metric", (positive < spec.topk).any()),
                ("weightless", ((candidates > 0) & (positive == 0)).any()),
            )
            if holds
        )


def _ties(box: Tensor, metric: Tensor, topk: int) -> tuple[bool, bool]:
    """Returns whether a box has two candidates of equal positive metric, and whether the K-th and the next are equal."""
    order = metric.argsort(descending=True, stable=True)
    order = order[box[order].argsort(stable=True)]
    box, metric = box[order], metric[order]
    equal = (box[1:] == box[:-1]) & (metric[1:] > 0) & (metric[:-1] - metric[1:] <= _TIE * metric[:-1])
    start = torch.searchsorted(box, box)
    at_k = (torch.arange(len(box)) - start)[1:] == topk
    return bool(equal.any()), bool((equal & at_k).any())
