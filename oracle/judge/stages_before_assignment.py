"""Compares the stages before assignment with the definition: anchors, targets, decoded corners, candidate pairs, overlaps, metrics."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from oracle.contract.answer_form import WRONG_DTYPE, MalformedError, check_tensor, type_name
from oracle.contract.contender import Metrics, Targets
from oracle.contract.verdict import Finding, Judgement, Verdict, differs
from oracle.definition.criterion import Grid
from oracle.judge.loss_and_gradients import Layout
from oracle.judge.worst_elements import QuantityError, Where, worst_element
from oracle.tolerance.margins import Bools, Boxes, Ints, Margins
from oracle.tolerance.precision import Precision


def expect(what: str, found: object, shape: tuple[int | None, ...], *, whole: bool = False) -> None:
    """Checks that ``found`` is a plain tensor of a shape, ``None`` for any size, of integers if ``whole``, else of real numbers.

    Raises:
        MalformedError: it is not.
    """
    shown = f"({', '.join('n' if size is None else str(size) for size in shape)})"
    if not isinstance(found, Tensor):
        raise MalformedError(f"{what} must be a tensor of shape {shown}; found {type_name(found)}")
    check_tensor(what, found)
    if len(found.shape) != len(shape) or any(size not in (None, own) for own, size in zip(found.shape, shape, strict=True)):
        raise MalformedError(f"{what} must have shape {shown}; found {tuple(found.shape)}")
    if found.is_complex() or found.dtype == torch.bool or (whole and found.is_floating_point()):
        raise MalformedError(f"{what} must be {'integers' if whole else 'real numbers'}; found {found.dtype}", WRONG_DTYPE)


def expect_columns(what: str, found: object, columns: Mapping[str, tuple[int | None, ...]], whole: Collection[str] = ()) -> None:
    """Checks that a record has columns of one length and the given shape of an entry; those of ``whole`` must hold integers.

    Raises:
        MalformedError: a column is missing, or has another shape or dtype; further columns are ignored.
    """
    for name, rest in columns.items():
        expect(f"{what}'s {name}", getattr(found, name, None), (None, *rest), whole=name in whole)
    lengths = {name: len(getattr(found, name)) for name in columns}
    if len(set(lengths.values())) > 1:
        raise MalformedError(f"{what} must have columns of one length; found {', '.join(f'{n} {k}' for n, k in lengths.items())}")


def anchor_errors(found: tuple[Tensor, Tensor], grid: Grid, precision: Precision, layout: Layout) -> QuantityError:
    """Compares centres and strides, which are exact unless the contender computes in a dtype that cannot hold a centre [2]."""
    held = (grid.centres.to(precision.anchors).double() - grid.centres).abs()
    centres = worst_element("centres", grid.centres, found[0].detach().cpu().double(), held, ("anchor", "axis"))
    strides = worst_element(
        "strides", grid.strides, found[1].detach().cpu().double().reshape(-1), torch.zeros_like(grid.strides), ("anchor",)
    )
    elements = tuple(
        replace(worst, where={**layout.place(0, int(worst.where["anchor"])), **{k: v for k, v in worst.where.items() if k == "axis"}})
        for worst in (centres, strides)
        if worst is not None
    )
    return QuantityError("anchors", elements, {"centres": tuple(found[0].shape)}, lambda where: _read(found[0], where, ("anchor", "axis")))


def decode_errors(found: Tensor, truth: Tensor, allowed: Tensor, layout: Layout, numbers: Sequence[str]) -> QuantityError:
    """Compares predicted boxes (B, A, K) in grid units, level by level [4]; ``numbers`` are the names of the K numbers of a box."""
    value = found.detach().cpu().double()
    elements = []
    for level, part in enumerate(layout.slices):
        worst = worst_element(f"level {level}", truth[:, part], value[:, part], allowed[:, part], ("image", "anchor", "corner"))
        if worst is not None:
            place = layout.place(int(worst.where["image"]), int(worst.where["anchor"]) + part.start)
            elements.append(replace(worst, where=place | {"corner": numbers[int(worst.where["corner"])]}))
    return QuantityError(
        "corners",
        tuple(elements),
        {"corners": tuple(found.shape)},
        lambda where: f"{float(value[int(where['image']), int(where['anchor']), numbers.index(str(where['corner']))]):.9g}",
    )


def _read(tensor: Tensor, where: Where, names: Sequence[str]) -> str:
    if not all(name in where for name in names):
        return ""
    return f"{float(tensor[tuple(int(where[name]) for name in names)]):.9g}"


def judge_target_rows(found: Targets, boxes: Boxes) -> Judgement:
    """Judges which rows are valid, and their images and classes [3]."""
    seen = {int(r): (int(b), int(c)) for r, b, c in zip(found.row.tolist(), found.image.tolist(), found.label.tolist(), strict=True)}
    names = {int(r): g for g, r in enumerate(boxes.row.tolist())}
    if len(seen) < len(found.row):
        return differs(Finding("targets", "rows", "a row of the batch is prepared twice"))
    for row in sorted(seen.keys() | names.keys()):
        g = names.get(row)
        expected = None if g is None or not boxes.valid[g] else (int(boxes.image[g]), int(boxes.label[g]))
        if seen.get(row) == expected or (g is not None and boxes.validity_open[g] and row not in seen):
            continue
        if g is not None and boxes.validity_open[g] and seen.get(row) == (int(boxes.image[g]), int(boxes.label[g])):
            continue
        shown = [f"image {pair[0]}, class {pair[1]}" if pair else "not valid" for pair in (expected, seen.get(row))]
        where: dict[str, int | str] = {"row": row}
        return differs(Finding("targets", "rows", "a row is not prepared as it should be", where, exact=shown[0], candidate=shown[1]))
    tipped = int((boxes.valid != np.isin(boxes.row, list(seen))).sum())
    verdict = Verdict.AMBIGUOUS if tipped else Verdict.AGREE
    reason = f"{tipped} rows whose corners sum to 0 within rounding" if tipped else ""
    counts = len(boxes.row), int(boxes.validity_open.sum()), tipped
    return Judgement("targets", "rows", verdict, 0.0, 0.0, 0.0, float("nan"), *counts, reason)


def target_errors(found: Targets, boxes: Boxes, numbers: Sequence[str]) -> QuantityError:
    """Compares the boxes in pixels of the rows that are valid for both [3]; ``numbers`` are the names of the numbers of a box."""
    at = boxes.index_of(found.row.tolist())
    known = np.flatnonzero(at >= 0)
    value = found.corners.detach().cpu().double()[torch.from_numpy(known)]
    truth, tolerance = (torch.from_numpy(array[at[known]]) for array in (boxes.corners, boxes.tolerance))
    worst = worst_element("", truth, value, tolerance, ("row", "corner"))
    if worst is None:
        return QuantityError("corners", ())
    entry, corner = int(worst.where["row"]), int(worst.where["corner"])
    where: Where = {"row": int(found.row[known[entry]]), "corner": numbers[corner]}
    of_row = dict(zip(found.row.tolist(), found.corners.tolist(), strict=True))
    return QuantityError(
        "corners",
        (replace(worst, where=where),),
        {"corners": tuple(found.corners.shape)},
        lambda where: f"{of_row[int(where['row'])][numbers.index(str(where['corner']))]:.9g}" if int(where["row"]) in of_row else "",
    )


@dataclass(frozen=True)
class MatchedPairs:
    """A contender's candidate pairs matched with the margins'.

    Attributes:
        pair, own: (n,) index of the margins' pair, and of the contender's, for those in both.
        missing: pairs of the margins that the contender lacks.
        unknown: pairs of the contender that cannot be candidates.
    """

    pair: Ints
    own: Ints
    missing: Ints
    unknown: Ints


def match_pairs(found: Metrics, margins: Margins) -> MatchedPairs:
    """Matches a contender's candidate pairs with the margins'."""
    boxes = margins.boxes
    box = boxes.index_of(found.row.tolist())
    anchor = found.anchor.detach().cpu().numpy().astype(np.int64)
    image = boxes.image[box] if len(boxes.row) else np.zeros_like(box)
    at = margins.lookup(image * margins.anchors + anchor, box)
    known = at >= 0
    missing = np.setdiff1d(np.arange(len(margins.pairs)), at[known])
    return MatchedPairs(at[known], np.flatnonzero(known), missing, np.flatnonzero(~known))


def judge_candidates(found: Metrics, matched: MatchedPairs, margins: Margins, layout: Layout) -> Judgement:
    """Judges which pairs are candidates: all that are certainly inside must be, none that is certainly outside may be [5.1]."""
    pairs, boxes = margins.pairs, margins.boxes
    candidate = (pairs.border > 0) & boxes.valid[pairs.box]
    away = np.abs(pairs.border) / np.where(pairs.border_tolerance > 0, pairs.border_tolerance, np.nan)
    margin = float(np.nanmin(away)) if np.isfinite(away).any() else float("inf")
    shapes = {"exact": (int(candidate.sum()),), "candidate": (len(found.row),)}
    lost = matched.missing[pairs.inside[matched.missing]]
    if len(np.unique(matched.pair)) < len(matched.pair):
        return differs(Finding("candidates", "pairs", "a pair is given twice", shapes=shapes))
    if lost.size:
        box, cell = pairs.box[lost[0]], pairs.cell[lost[0]]
        where = layout.place(*divmod(int(cell), margins.anchors)) | {"box": int(boxes.row[box])}
        inside = f"a candidate, {pairs.border[lost[0]]:.6g} px inside"
        what = f"{lost.size} candidate pairs are missing"
        return differs(Finding("candidates", "pairs", what, where, exact=inside, candidate="not a candidate", shapes=shapes))
    if matched.unknown.size:
        entry = int(matched.unknown[0])
        where = {"row": int(found.row[entry]), "anchor": int(found.anchor[entry])}
        what = f"{matched.unknown.size} pairs are no candidates"
        return differs(Finding("candidates", "pairs", what, where, exact="not a candidate", candidate="a candidate", shapes=shapes))
    given: Bools = np.zeros(len(pairs), dtype=bool)
    given[matched.pair] = True
    tipped = int((given != candidate).sum())
    verdict = Verdict.AMBIGUOUS if tipped else Verdict.AGREE
    reason = f"{tipped} pairs within rounding of a border" if tipped else ""
    nan = float("nan")
    return Judgement("candidates", "pairs", verdict, nan, nan, nan, margin, len(pairs), int((~pairs.inside).sum()), tipped, reason)


def metric_errors(found: Metrics, matched: MatchedPairs, margins: Margins, layout: Layout, precision: Precision) -> list[QuantityError]:
    """Compares overlaps and alignment metrics of the pairs that are candidates for both [5.2], [5.3]."""
    pairs, boxes = margins.pairs, margins.boxes
    answer = []
    for name in ("overlap", "metric"):
        value, low, high = (getattr(pairs, name + end)[matched.pair] for end in ("", "_low", "_high"))
        reported = getattr(found, name).detach().cpu().double().numpy()[matched.own]
        # Where the lower bound is 0, because the value may underflow, the tolerance downwards is doubled.
        tolerance = np.maximum(high - value, (value - low) * np.where(low > 0, 1, 2)) + precision.core * value + precision.smallest_core
        worst = worst_element("", torch.from_numpy(value), torch.from_numpy(reported), torch.from_numpy(tolerance), ("pair",))
        if worst is None:
            answer.append(QuantityError(name, ()))
            continue
        pair = matched.pair[int(worst.where["pair"])]
        where = layout.place(*divmod(int(pairs.cell[pair]), margins.anchors)) | {"box": int(boxes.row[pairs.box[pair]])}
        own = dict(zip(matched.pair.tolist(), reported.tolist(), strict=True))
        read = partial(_read_pair, own)
        answer.append(QuantityError(name, (replace(worst, where=where | {"pair": int(pair)}),), {name: reported.shape}, read))
    return answer


def _read_pair(values: Mapping[int, float], where: Where) -> str:
    return f"{values.get(int(where['pair']), float('nan')):.9g}"
