"""The verdict on an assignment and on its soft targets.

AGREE: the definition's assignment. AMBIGUOUS: another allowed one (:mod:`oracle.tolerance.allowed_assignments`). DIFFER: any other.
The judge also checks itself: :class:`JudgeError` stops the run where the definition's own assignment is not among the allowed ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from oracle.contract.verdict import Finding, Judgement, Verdict
from oracle.definition.assignment_trace import UNASSIGNED
from oracle.judge.hints import assignment_hint
from oracle.judge.loss_and_gradients import Layout
from oracle.judge.worst_elements import QuantityError, Where, worst_element
from oracle.tolerance.allowed_assignments import AllowedAssignments
from oracle.tolerance.assignment import IndexedAssignment, Weights
from oracle.tolerance.margins import Bools, Ints


class JudgeError(AssertionError):
    """The allowed assignments lack the definition's: a fault of the judge, not of the contender or the reference."""


@dataclass(frozen=True)
class AssignmentJudgement:
    """The judgements on an assignment.

    Attributes:
        judgements: on the whole assignment, then on each kind of decision.
        usable: whether the contender's numbers can be compared on it.
        ambiguous: which decisions make it AMBIGUOUS, as text; empty for another verdict.
    """

    judgements: list[Judgement]
    usable: bool
    ambiguous: str


def judge_assignment(
    allowed: AllowedAssignments, exact: IndexedAssignment, candidate: IndexedAssignment, reference: IndexedAssignment | None, layout: Layout
) -> AssignmentJudgement:
    """Judges which box holds each anchor.

    Args:
        allowed: the assignments of correct programs.
        exact: the definition's.
        candidate: the contender's.
        reference: the reference's, for the record.
        layout: names the anchors, and gives K.

    Raises:
        JudgeError: the definition's own assignment is not among the allowed ones.
    """
    cells, topk = allowed.margins.images * allowed.margins.anchors, layout.spec.topk
    truth, answer = exact.holder(cells), candidate.holder(cells)
    if (wrong := _forbidden(allowed, truth, exact)).size:
        raise JudgeError(f"the definition's own answer at {_place(layout, allowed, wrong[0])} is not among those that the margins allow")
    forbidden = _forbidden(allowed, answer, candidate)
    differing = np.flatnonzero(truth != answer)
    tipped = _attribute(allowed, truth, answer, np.setdiff1d(differing, forbidden))
    judgements = [_judge_decisions(allowed, kind, tipped.get(kind, 0)) for kind in allowed.decision_counts]
    finding: Finding | None = None
    if forbidden.size:
        finding = _wrong_holder(allowed, truth, forbidden, candidate, reference, layout)
        finding = replace(finding, hint=assignment_hint(allowed, truth, answer, forbidden, topk))
    elif count := _wrong_count(allowed, answer, topk):
        finding = count
    verdict = Verdict.DIFFER if finding else Verdict.AMBIGUOUS if differing.size else Verdict.AGREE
    ambiguous = ", ".join(f"{count} {kind}" for kind, count in tipped.items()) if verdict is Verdict.AMBIGUOUS else ""
    margin = min((count.margin for count in allowed.decision_counts.values()), default=float("inf"))
    whole = Judgement(
        "assign",
        "holders",
        verdict,
        float(differing.size),
        margin=margin,
        decisions=sum(t.decisions for t in allowed.decision_counts.values()),
        open_decisions=sum(t.open for t in allowed.decision_counts.values()),
        ambiguous_decisions=sum(tipped.values()),
        reason=ambiguous or (finding.what if finding else ""),
        finding=finding,
    )
    return AssignmentJudgement([whole, *judgements], finding is None, ambiguous and f"tipped by rounding or a tie: {ambiguous}")


def _forbidden(allowed: AllowedAssignments, holder: Ints, reported: IndexedAssignment) -> Ints:
    """Returns the anchors (n,) whose box in ``holder`` (B·A,) is not an allowed one."""
    held = np.flatnonzero(holder != UNASSIGNED)
    pair = allowed.margins.lookup(held, holder[held])
    wrong = held[(pair < 0) | ~allowed.pair[np.maximum(pair, 0)]] if len(allowed.margins.pairs) else held
    empty = (holder == UNASSIGNED) & ~allowed.may_be_unassigned
    unknown = reported.cell[reported.box == UNASSIGNED]
    questioned = np.union1d(np.union1d(wrong, np.flatnonzero(empty)), unknown)
    return questioned[~_gone_to_first(allowed, questioned, reported)] if allowed.weightless else questioned


def _gone_to_first(allowed: AllowedAssignments, cells: Ints, reported: IndexedAssignment) -> Bools:
    """Returns whether each anchor (n,) is held by its image's first row, as may be where every overlap is 0."""
    rows = dict(zip(reported.cell.tolist(), reported.row.tolist(), strict=True))
    first = allowed.margins.boxes.first_row
    gone = [rows.get(cell, UNASSIGNED) == first.get(cell // allowed.margins.anchors) for cell in cells.tolist()]
    allowed_there: Bools = allowed.may_go_to_first[cells] & np.array(gone, dtype=bool)
    return allowed_there


def _attribute(allowed: AllowedAssignments, truth: Ints, answer: Ints, cells: Ints) -> dict[str, int]:
    """Returns the number of tipped decisions of each kind at anchors (n,) whose boxes are allowed but not the definition's."""
    pairs = np.stack([allowed.margins.lookup(cells, holder[cells]) for holder in (truth, answer)])
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


def _judge_decisions(allowed: AllowedAssignments, kind: str, tipped: int) -> Judgement:
    count = allowed.decision_counts[kind]
    verdict = Verdict.AMBIGUOUS if tipped else Verdict.AGREE
    return Judgement(
        "assign", kind, verdict, margin=count.margin, decisions=count.decisions, open_decisions=count.open, ambiguous_decisions=tipped
    )


def _wrong_count(allowed: AllowedAssignments, answer: Ints, topk: int) -> Finding | None:
    """Returns the finding for a box with more than K, or too few, uncontested anchors, each of which is allowed by itself."""
    if allowed.opened_cut.any() or "second cut" in allowed.decision_counts or not len(allowed.margins.pairs):
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
    allowed: AllowedAssignments,
    truth: Ints,
    forbidden: Ints,
    reported: IndexedAssignment,
    reference: IndexedAssignment | None,
    layout: Layout,
) -> Finding:
    """Returns the finding for the first forbidden anchor that the contender assigns, else for the first one."""
    boxes, answer = allowed.margins.boxes, reported.holder(len(truth))
    held = forbidden[answer[forbidden] != UNASSIGNED]
    cell = int(held[0] if held.size else forbidden[0])
    other = reference.holder(len(truth))[cell] if reference is not None else None
    where = _place(layout, allowed, cell)
    shown = _describe(allowed, cell, int(answer[cell]))
    foreign = reported.row[(reported.cell == cell) & (reported.box == UNASSIGNED)]
    if foreign.size:
        shown = f"row {foreign[0]}, which is no valid box of this image"
    assigned = np.count_nonzero((truth != UNASSIGNED) | (answer != UNASSIGNED))
    names = sorted({int(boxes.row[g]) for g in (truth[cell], answer[cell]) if g != UNASSIGNED})
    return Finding(
        "assign",
        "holders",
        f"{forbidden.size} of {assigned} anchors are not held by a box that may hold them",
        where=where | ({"boxes": ", ".join(map(str, names))} if names else {}),
        exact=_describe(allowed, cell, int(truth[cell])),
        reference="not available" if other is None else _describe(allowed, cell, int(other)),
        candidate=shown,
        shapes={"anchors": (allowed.margins.images, allowed.margins.anchors), "boxes": (len(boxes.row),)},
    )


def _place(layout: Layout, allowed: AllowedAssignments, cell: int) -> dict[str, int | str]:
    return layout.place(*divmod(int(cell), allowed.margins.anchors))


def _describe(allowed: AllowedAssignments, cell: int, box: int) -> str:
    """Returns the box that holds an anchor, with overlap, metric, and place in the box's order by metric, as text."""
    if box == UNASSIGNED:
        return "held by no box"
    margins = allowed.margins
    row = margins.boxes.row[box]
    (pair,) = allowed.margins.lookup(np.array([cell]), np.array([box]))
    if pair < 0:
        return f"held by box {row}, of which the anchor is no candidate"
    pairs = margins.pairs
    rank = 1 + int(((pairs.box == box) & (pairs.metric > pairs.metric[pair])).sum())
    return f"held by box {row} (overlap {pairs.overlap[pair]:.6g}, metric {pairs.metric[pair]:.6g}, place {rank} of its box's)"


def weight_errors(held: IndexedAssignment, weights: Weights, layout: Layout, anchors: int) -> QuantityError:
    """Compares the soft targets of an allowed assignment with the definition's."""
    value, weight, tolerance = (torch.from_numpy(part) for part in (weights.value, held.weight, weights.tolerance))
    worst = worst_element("", value, weight, tolerance, ("entry",))
    if worst is None:
        return QuantityError("weights", ())
    entry = int(worst.where["entry"])
    where = layout.place(*divmod(int(held.cell[entry]), anchors)) | {"box": int(held.row[entry])}
    reported = dict(zip(held.cell.tolist(), held.weight.tolist(), strict=True))

    def read(where: Where) -> str:
        return f"{reported.get(int(where['image']) * anchors + int(where['anchor']), 0.0):.9g}"

    return QuantityError("weights", (replace(worst, where=where),), {"weights": held.weight.shape}, read)
