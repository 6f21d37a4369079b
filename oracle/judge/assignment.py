"""AGREE, AMBIGUOUS or DIFFER, stage by stage: decisions against what the margins allow, numbers against their rounding.

A wrong verdict is the worst fault that the suite can have, so the judge also judges itself: the definition's own answer has to be among
those that it allows, or :class:`JudgeError` stops the run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from oracle.contract.verdict import Finding, Judgement, Verdict
from oracle.judge.hints import assignment_hint
from oracle.judge.loss_and_gradients import Layout
from oracle.judge.worst_elements import Peaks, Where, peak_of
from oracle.tolerance.allowed_assignments import NOBODY, Allowed
from oracle.tolerance.assignment import Holdings, Weights
from oracle.tolerance.margins import Bools, Ints


class JudgeError(AssertionError):
    """The judge contradicts the definition: neither the contender nor the reference is to blame."""


@dataclass(frozen=True)
class Ruling:
    """The judgements on an assignment, and whether its numbers can be compared on it."""

    judgements: list[Judgement]
    usable: bool
    ambiguous: str


def judge_assignment(
    allowed: Allowed, exact: Holdings, candidate: Holdings, reference: Holdings | None, layout: Layout, topk: int
) -> Ruling:
    """Verdict on which box holds each anchor.

    Args:
        allowed: what correct programs may answer.
        exact: the definition's answer.
        candidate: the contender's.
        reference: the reference's, for the record.
        layout: names the anchors.
        topk: K, for the number of anchors that a box must pick.

    Raises:
        JudgeError: the definition's own answer is not among those allowed.
    """
    cells = allowed.margins.images * allowed.margins.anchors
    truth, answer = exact.holder(cells), candidate.holder(cells)
    if (wrong := _forbidden(allowed, truth, exact)).size:
        raise JudgeError(f"the definition's own answer at {_place(layout, allowed, wrong[0])} is not among those that the margins allow")
    forbidden = _forbidden(allowed, answer, candidate)
    differing = np.flatnonzero(truth != answer)
    tipped = _attribute(allowed, truth, answer, np.setdiff1d(differing, forbidden))
    judgements = [_tally(allowed, kind, tipped.get(kind, 0)) for kind in allowed.tallies]
    finding: Finding | None = None
    if forbidden.size:
        finding = _wrong_holder(allowed, truth, answer, forbidden, reference, layout, candidate)
        finding = replace(finding, hint=assignment_hint(allowed, truth, answer, forbidden, topk))
    elif count := _wrong_count(allowed, answer, topk):
        finding = count
    verdict = Verdict.DIFFER if finding else Verdict.AMBIGUOUS if differing.size else Verdict.AGREE
    ambiguous = ", ".join(f"{count} {kind}" for kind, count in tipped.items()) if verdict is Verdict.AMBIGUOUS else ""
    margin = min((tally.margin for tally in allowed.tallies.values()), default=float("inf"))
    whole = Judgement(
        "assign",
        "holders",
        verdict,
        float(differing.size),
        margin=margin,
        decisions=sum(t.decisions for t in allowed.tallies.values()),
        open_decisions=sum(t.open for t in allowed.tallies.values()),
        ambiguous_decisions=sum(tipped.values()),
        reason=ambiguous or (finding.what if finding else ""),
        finding=finding,
    )
    return Ruling([whole, *judgements], finding is None, ambiguous and f"tipped by rounding or a tie: {ambiguous}")


def _forbidden(allowed: Allowed, holder: Ints, said: Holdings) -> Ints:
    """Anchors (n,) at which an answer (B·A,) is not one of those allowed."""
    held = np.flatnonzero(holder != NOBODY)
    pair = allowed.lookup(held, holder[held])
    wrong = held[(pair < 0) | ~allowed.pair[np.maximum(pair, 0)]] if len(allowed.margins.pairs) else held
    empty = (holder == NOBODY) & ~allowed.nobody
    return np.union1d(np.union1d(wrong, np.flatnonzero(empty)), said.cell[said.box == NOBODY])


def _attribute(allowed: Allowed, truth: Ints, answer: Ints, cells: Ints) -> dict[str, int]:
    """How many decisions of each kind tipped, from the anchors (n,) at which an allowed answer is not the definition's."""
    pairs = np.stack([allowed.lookup(cells, holder[cells]) for holder in (truth, answer)])
    both = np.logical_and(*(pairs >= 0))

    def touched(mask: Bools) -> Bools:
        if len(mask) == 0:
            return np.zeros(len(cells), dtype=bool)
        truth_pair, answer_pair = (pairs >= 0) & mask[np.maximum(pairs, 0)]
        hit: Bools = truth_pair | answer_pair
        return hit

    border = touched(allowed.opened_border)
    zero = touched(allowed.opened_zero) & ~border
    conflict = both & ~border & ~zero
    cut = touched(allowed.opened_cut) & ~border & ~zero & ~conflict
    kth = ~(border | zero | conflict | cut)
    box = allowed.margins.pairs.box[pairs.max(0)] if len(allowed.margins.pairs) else pairs.max(0)
    counts = {
        "border": int(border.sum()),
        "zero pick": int(zero.sum()),
        "conflict": int(conflict.sum()),
        "second cut": len(np.unique(box[cut])),
        "kth place": len(np.unique(box[kth])),
    }
    return {kind: count for kind, count in counts.items() if count}


def _tally(allowed: Allowed, kind: str, tipped: int) -> Judgement:
    tally = allowed.tallies[kind]
    verdict = Verdict.AMBIGUOUS if tipped else Verdict.AGREE
    return Judgement(
        "assign", kind, verdict, margin=tally.margin, decisions=tally.decisions, open_decisions=tally.open, ambiguous_decisions=tipped
    )


def _wrong_count(allowed: Allowed, answer: Ints, topk: int) -> Finding | None:
    """A box that holds too many or too few anchors although each of them, alone, could be open: the K-th place has to go to somebody."""
    if allowed.opened_cut.any() or "second cut" in allowed.tallies or not len(allowed.margins.pairs):
        return None
    pairs, boxes = allowed.margins.pairs, allowed.margins.boxes
    groups = len(boxes.row)
    alone = allowed.alone

    def count(mask: Bools) -> Ints:
        return np.bincount(pairs.box[mask], minlength=groups)

    holds = count(alone & (answer[pairs.cell] == pairs.box))
    unseen = count(allowed.possible & ~alone) + count(allowed.vanishing & alone)
    sure = count(pairs.inside & (pairs.metric_low > 0) & ~allowed.vanishing)
    wrong = np.flatnonzero((holds > topk) | ((holds + unseen < np.minimum(topk, sure)) & ~boxes.shadowed))
    if not wrong.size:
        return None
    g = int(wrong[0])
    least = int(min(topk, sure[g]) - unseen[g])
    return Finding(
        "assign",
        "holders",
        f"box {boxes.row[g]} holds {holds[g]} uncontested anchors; {max(least, 0)} to {topk} are possible",
        where={"image": int(boxes.image[g]), "box": int(boxes.row[g])},
    )


def _wrong_holder(
    allowed: Allowed, truth: Ints, answer: Ints, forbidden: Ints, reference: Holdings | None, layout: Layout, said: Holdings
) -> Finding:
    """The finding for the first of the forbidden anchors, one that the contender holds if there is any."""
    boxes = allowed.margins.boxes
    held = forbidden[answer[forbidden] != NOBODY]
    cell = int(held[0] if held.size else forbidden[0])
    other = reference.holder(len(truth))[cell] if reference is not None else None
    where = _place(layout, allowed, cell)
    shown = _describe(allowed, cell, int(answer[cell]))
    strange = said.row[(said.cell == cell) & (said.box == NOBODY)]
    if strange.size:
        shown = f"row {strange[0]}, which is no valid box of this image"
    names = sorted({int(boxes.row[g]) for g in (truth[cell], answer[cell]) if g != NOBODY})
    return Finding(
        "assign",
        "holders",
        f"{forbidden.size} of {np.count_nonzero((truth != NOBODY) | (answer != NOBODY))} anchors are not held by a box that may hold them",
        where=where | ({"boxes": ", ".join(map(str, names))} if names else {}),
        exact=_describe(allowed, cell, int(truth[cell])),
        reference="not available" if other is None else _describe(allowed, cell, int(other)),
        candidate=shown,
        shapes={"anchors": (allowed.margins.images, allowed.margins.anchors), "boxes": (len(boxes.row),)},
    )


def _place(layout: Layout, allowed: Allowed, cell: int) -> dict[str, int | str]:
    return layout.place(*divmod(int(cell), allowed.margins.anchors))


def _describe(allowed: Allowed, cell: int, box: int) -> str:
    """Who holds an anchor, and what speaks for it: overlap, metric, and rank within the box."""
    if box == NOBODY:
        return "held by nobody"
    margins = allowed.margins
    row = margins.boxes.row[box]
    (pair,) = allowed.lookup(np.array([cell]), np.array([box]))
    if pair < 0:
        return f"held by box {row}, of which the anchor is no candidate"
    pairs = margins.pairs
    rank = 1 + int(((pairs.box == box) & (pairs.metric > pairs.metric[pair])).sum())
    return f"held by box {row} (overlap {pairs.overlap[pair]:.6g}, metric {pairs.metric[pair]:.6g}, place {rank} of its box's)"


def judge_weights(held: Holdings, weights: Weights, layout: Layout, anchors: int) -> Peaks:
    """Soft targets of holdings that are allowed."""
    value, weight, slack = (torch.from_numpy(part) for part in (weights.value, held.weight, weights.slack))
    peak = peak_of("", value, weight, slack, ("entry",))
    if peak is None:
        return Peaks("weights", ())
    entry = int(peak.where["entry"])
    where = layout.place(*divmod(int(held.cell[entry]), anchors)) | {"box": int(held.row[entry])}
    said = dict(zip(held.cell.tolist(), held.weight.tolist(), strict=True))

    def read(where: Where) -> str:
        return f"{said.get(int(where['image']) * anchors + int(where['anchor']), 0.0):.9g}"

    return Peaks("weights", (replace(peak, where=where),), {"weights": held.weight.shape}, read)
