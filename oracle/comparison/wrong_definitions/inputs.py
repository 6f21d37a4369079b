"""Anchors, targets and predictions read otherwise than they are meant."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from oracle.contract.contender import Batch, Preds
from oracle.definition.criterion import Grid
from oracle.definition.variant import Step, Variant
from twinloss import LossSpec

UPRIGHT = ("detect", "segment", "pose")


def _labels(change: Any) -> Any:
    def before(preds: Preds, batch: Batch, spec: LossSpec) -> tuple[Preds, Batch]:
        return preds, {**batch, "cls": change(batch["cls"], spec.num_classes)}

    return before


def _rows(keep: Any) -> Any:
    """Keeps some rows of the targets; ``keep`` takes the images of the rows, and boxes."""

    def before(preds: Preds, batch: Batch, spec: LossSpec) -> tuple[Preds, Batch]:
        image = batch["batch_idx"].reshape(-1)
        kept = keep(image, batch["bboxes"])
        return preds, {name: value[kept] if len(value) == len(image) else value for name, value in batch.items()}

    return before


def _columns(*order: int) -> Any:
    """Reads the first columns of the boxes in another order."""

    def before(preds: Preds, batch: Batch, spec: LossSpec) -> tuple[Preds, Batch]:
        boxes = batch["bboxes"]
        return preds, {**batch, "bboxes": boxes[:, [*order, *range(4, boxes.shape[1])]]}

    return before


def _place(image: Tensor) -> Tensor:
    """Returns the position of each row within its image."""
    return (image[:, None] == image[None]).tril(-1).sum(1)


def _pixels(change: Any) -> Step:
    """Changes the pixel corners; ``change`` takes them and the anchors."""

    def step(exact: Any, sound: Any, shares: Tensor, grid: Grid) -> Tensor:
        return change(sound(shares, grid), grid)  # type: ignore[no-any-return]

    return step


def _clipped(corners: Tensor, grid: Grid) -> Tensor:
    return torch.minimum(corners.clamp(min=0), corners.new_tensor([grid.width, grid.height] * 2))


def _shares(change: Any) -> Step:
    """Changes the targets' boxes (N, 4), in shares of the image, before they become pixels."""
    return lambda exact, sound, shares, grid: sound(change(shares), grid)


def _sides(change: Any) -> Step:
    """Changes the predicted distances (..., 4), in the assigner and in the box term."""
    return lambda exact, sound, logits: change(sound(logits))


def within(place: str, step: Step) -> dict[str, Step]:
    """Replaces the predicted distances in one place alone: "decode", which the assigner reads, or "box_terms"."""

    def swapped(exact: Any, sound: Any, *given: Any) -> Any:
        own = exact.distances
        exact.distances = partial(step, exact, own)
        try:
            return sound(*given)
        finally:
            exact.distances = own

    return {place: swapped}


def _everywhere(name: str, step: Step) -> Iterator[Variant]:
    """Replaces the predicted distances in the assigner and in the terms, and in one of them alone."""
    yield Variant(name, "4", steps={"distances": step})
    yield Variant(f"{name}, in the assigner alone", "4", steps=within("decode", step))
    yield Variant(f"{name}, in the terms alone", "4", steps=within("box_terms", step))


def where_bins(step: Step) -> Step:
    """Replaces the predicted distances where there are bins."""
    return lambda exact, sound, logits: step(exact, sound, logits) if exact.spec.reg_max > 1 else sound(logits)


def _at_corners(*, last: bool) -> Any:
    """Moves the anchors of the last level, or of all others, to their cells' corners."""

    def change(centres: Tensor, grids: Any) -> Tensor:
        rows, columns = grids[-1]
        of_last = torch.arange(len(centres)) >= len(centres) - rows * columns
        return torch.where((of_last == last)[:, None], centres - 0.5, centres)

    return change


def _likely_bins(least: float) -> Step:
    """Takes the expectation over the bins of some probability, without dividing by their sum."""

    def step(exact: Any, sound: Any, logits: Tensor) -> Tensor:
        bins = exact.spec.reg_max
        if bins == 1:
            return sound(logits)  # type: ignore[no-any-return]
        p = logits.unflatten(-1, (4, bins)).softmax(-1)
        return (torch.where(p < least, 0.0, p) * torch.arange(bins, dtype=p.dtype, device=p.device)).sum(-1)

    return step


def _exchanged_image(exact: Any, sound: Any, shares: Tensor, grid: Grid) -> Tensor:
    return sound(shares, grid._replace(width=grid.height, height=grid.width))  # type: ignore[no-any-return]


def _corners_for_sizes(exact: Any, sound: Any, shares: Tensor, grid: Grid) -> Tensor:
    return shares * shares.new_tensor([grid.width, grid.height] * 2)


def _grid(change: Any) -> Step:
    """Changes the anchors' centres; ``change`` takes centres (A, 2) and the (rows, columns) of each level."""

    def step(exact: Any, sound: Any, preds: Preds) -> Grid:
        grid: Grid = sound(preds)
        return grid._replace(centres=change(grid.centres, [tuple(level.shape[2:]) for level in preds["feats"]]))

    return step


def _but_candidates(change: Any) -> dict[str, Step]:
    """Changes the anchors' centres in decoding and in the terms, and not where candidates are sought."""

    def border(exact: Any, sound: Any, boxes: Tensor, grid: Grid) -> Tensor:
        return sound(boxes, grid._replace(centres=exact.centres_of_candidates))  # type: ignore[no-any-return]

    def step(exact: Any, sound: Any, preds: Preds) -> Grid:
        grid: Grid = sound(preds)
        exact.centres_of_candidates = grid.centres
        return grid._replace(centres=change(grid.centres, [tuple(level.shape[2:]) for level in preds["feats"]]))

    return {"grid": step, "border": border}


def _transposed(centres: Tensor, grids: Any) -> Tensor:
    parts = centres.split([rows * columns for rows, columns in grids])
    swapped = [part.view(rows, columns, 2).transpose(0, 1).reshape(-1, 2) for part, (rows, columns) in zip(parts, grids, strict=True)]
    return torch.cat(swapped)


def _validity(number: Any) -> Step:
    return lambda exact, sound, boxes: number(boxes)


def _without_truth(keep: Any) -> Step:
    """Removes rows of the ground truth that have these corners (N, 4), by making their sum negative."""

    def step(exact: Any, sound: Any, boxes: Tensor) -> Tensor:
        return torch.where(keep(boxes), sound(boxes), -1.0)

    return step


def catalogue() -> Iterator[Variant]:
    """Yields every variant of this chapter."""
    yield Variant(
        "class c taken as c + 1, or c - 1 for the last",
        "1",
        before=_labels(lambda c, n: torch.where(c < n - 1, c + 1, (c - 1).clamp(min=0))),
    )
    yield Variant("class c taken as c - 1, or 0", "1", before=_labels(lambda c, n: (c - 1).clamp(min=0)))
    yield Variant("the last class taken as the one before", "5.7", before=_labels(lambda c, n: c.clamp(max=max(n - 2, 0))))
    yield Variant("class 0 taken as the next", "5.7", before=_labels(lambda c, n: c.clamp(min=min(1, n - 1))))
    yield Variant("every box taken as class 0", "1", before=_labels(lambda c, n: torch.zeros_like(c)))
    yield Variant("a box's width and height exchanged", "3", before=_columns(0, 1, 3, 2))
    yield Variant("x and y exchanged", "3", before=_columns(1, 0, 3, 2))
    yield Variant("centre and size read as two corners", "1", steps={"boxes_in_pixels": _corners_for_sizes}, tasks=UPRIGHT)
    yield Variant("the image's width and height exchanged", "3", steps={"boxes_in_pixels": _exchanged_image})
    yield Variant("boxes clipped to the image", "3", steps={"boxes_in_pixels": _pixels(_clipped)}, tasks=UPRIGHT)
    yield Variant("boxes rounded to whole pixels", "3", steps={"boxes_in_pixels": _pixels(lambda c, g: c.round())}, tasks=UPRIGHT)
    yield Variant("boxes cut to whole pixels", "3", steps={"boxes_in_pixels": _pixels(lambda c, g: c.trunc())}, tasks=UPRIGHT)
    for dtype in (torch.float16, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        yield Variant(f"targets rounded to {name}", "3", steps={"boxes_in_pixels": _shares(lambda b, d=dtype: b.to(d).to(b.dtype))})
        yield Variant(f"corners rounded to {name}", "3", steps={"boxes_in_pixels": _pixels(lambda c, g, d=dtype: c.to(d).to(c.dtype))})
    for order, sides in (
        ([0, 1, 3, 2], "left, top, bottom, right"),
        ([1, 0, 3, 2], "top, left, bottom, right"),
        ([0, 2, 1, 3], "left, right, top, bottom"),
    ):
        yield from _everywhere(f"predicted distances read as {sides}", _sides(lambda d, o=order: d[..., o]))
    for least in (1e-2, 1e-3, 1e-4):
        yield from _everywhere(f"bins of a probability below {least:g} left out of the expectation", _likely_bins(least))
    yield from _everywhere("bins counted from 1", where_bins(_sides(lambda d: d + 1)))
    yield from _everywhere("predicted distances clamped at 0", _sides(lambda d: d.clamp(min=0)))
    for level, moved in (("the last level", _at_corners(last=True)), ("every level but the last", _at_corners(last=False))):
        name = f"anchors of {level} at the cells' corners"
        yield Variant(name, "2", steps={"grid": _grid(moved)})
        yield Variant(f"{name}, but in the search for candidates", "2", steps=_but_candidates(moved))
    yield Variant("anchors at the cells' corners", "2", steps={"grid": _grid(lambda c, _: c - 0.5)})
    yield Variant("anchors with y running fastest", "2", steps={"grid": _grid(_transposed)})
    for name, moved in (("at the cells' corners", lambda c, _: c - 0.5), ("with y running fastest", _transposed)):
        yield Variant(f"anchors {name}, but in the search for candidates", "2", steps=_but_candidates(moved))
    if_detect = ("detect", "oriented")  # a mask or a keypoint belongs to a row of the batch
    yield Variant("the first image's boxes alone", "1", before=_rows(lambda image, _: image == 0), tasks=if_detect)
    yield Variant(
        "the last image's boxes ignored",
        "1",
        before=_rows(lambda image, _: image < max(float(image.max()), 1.0) if len(image) else image == 0),
        tasks=if_detect,
    )
    yield Variant("the first box of each image alone", "1", before=_rows(lambda image, _: _place(image) == 0), tasks=if_detect)
    yield Variant(
        "the last box of a full image lost",
        "3",
        before=_rows(_not_last_of_full),
        tasks=if_detect,
    )
    for most in (8, 16, 32, 50, 64, 100, 128, 200, 256, 300, 500):
        beyond = _rows(lambda image, _, n=most: _place(image) < n)
        yield Variant(f"boxes of an image after its first {most} ignored", "3", before=beyond, tasks=if_detect)
    yield Variant("copies of a box in an image dropped", "3", before=_rows(_first_of_equals), tasks=if_detect)
    yield Variant("the only box of a batch ignored", "1", before=_rows(lambda i, _: torch.full(i.shape, len(i) != 1)), tasks=if_detect)
    yield Variant(
        "a row valid where its corners' sum is not 0", "3", steps={"validity": _validity(lambda b: b.sum(1).abs())}, tasks=UPRIGHT
    )
    yield Variant(
        "boxes without area dropped", "3", steps={"validity": _without_truth(lambda b: ((b[:, 2:] - b[:, :2]) > 0).all(1))}, tasks=UPRIGHT
    )
    for where, inside in (("outside", (0, 1)), ("left", (0,)), ("above", (1,))):
        begins = _without_truth(lambda b, axes=inside: (b[:, axes] >= 0).all(1))
        name = f"boxes that begin {where}{' of' if where != 'above' else ''} the image dropped"
        yield Variant(name, "3", steps={"validity": begins}, tasks=UPRIGHT)
    for least in (1, 2, 3, 4, 8):
        yield Variant(
            f"boxes with a side below {least} px dropped",
            "3",
            steps={"validity": _without_truth(lambda b, n=least: ((b[:, 2:] - b[:, :2]) >= n).all(1))},
            tasks=UPRIGHT,
        )


def _first_of_equals(image: Tensor, boxes: Tensor) -> Tensor:
    rows = torch.cat([image[:, None].to(boxes.dtype), boxes], 1)
    return (rows[:, None] == rows[None]).all(2).tril(-1).sum(1) == 0


def _not_last_of_full(image: Tensor, _: Tensor) -> Tensor:
    most = int(torch.bincount(image.long().clamp(min=0)).max()) if len(image) else 0
    return _place(image) < max(most - 1, 1)
