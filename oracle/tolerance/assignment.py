"""An assignment with indices into the margins, and the soft targets that follow from it (spec section 5.7)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from oracle.contract.answer_form import MalformedError
from oracle.definition.assignment_trace import UNASSIGNED
from oracle.tolerance.allowed_assignments import AllowedAssignments
from oracle.tolerance.intervals import Floats
from oracle.tolerance.margins import Ints
from oracle.tolerance.precision import Precision
from twinloss import Assignment, LossSpec

WEIGHT_ROUNDINGS = 4.0  # Product, sum, quotient, and the soft target itself.


@dataclass(frozen=True)
class IndexedAssignment:
    """Entries in order of anchor, those of positive weight and, where a term counts them, those of weight 0: H entries.

    Attributes:
        cell: (H,) image times A plus anchor.
        box: (H,) index into the margins' boxes, or ``UNASSIGNED`` for a row that is no valid box of the image.
        row: (H,) row of the batch, as reported.
        weight: (H,) soft targets.
    """

    cell: Ints
    box: Ints
    row: Ints
    weight: Floats

    def holder(self, cells: int) -> Ints:
        """Returns the box that holds each anchor of the batch (B·A,), or ``UNASSIGNED``."""
        answer = np.full(cells, UNASSIGNED, dtype=np.int64)
        answer[self.cell] = self.box
        return answer

    def assignment(self, anchors: int, weight: Floats | None = None) -> Assignment:
        """Returns the same as a record of tensors, with other weights if they are given."""
        image, anchor = np.divmod(self.cell, anchors)
        parts = (image, anchor, self.row, self.weight if weight is None else weight)
        return Assignment(*(torch.from_numpy(np.ascontiguousarray(part)) for part in parts))

    @property
    def key(self) -> bytes:
        """The anchors and rows as bytes, equal for equal assignments whatever the weights."""
        return self.cell.tobytes() + self.row.tobytes()


@dataclass(frozen=True)
class Weights:
    """The definition's soft targets (H,) of an assignment, and by how much a correct program's may differ (H,)."""

    value: Floats
    tolerance: Floats


def indexed_assignment(allowed: AllowedAssignments, assignment: Assignment) -> IndexedAssignment:
    """Returns the entries of an assignment with indices: those of positive weight, and those of weight 0 if ``allowed`` counts them.

    Raises:
        MalformedError: an entry names an anchor or an image that does not exist, or an anchor twice, or its weight is negative or
            not-a-number.
    """
    margins = allowed.margins
    image, anchor, row = (getattr(assignment, name).detach().cpu().numpy().astype(np.int64) for name in ("image", "anchor", "box"))
    weight = assignment.weight.detach().double().cpu().numpy()
    for name, index, size in (("image", image, margins.images), ("anchor", anchor, margins.anchors)):
        if ((index < 0) | (index >= size)).any():
            raise MalformedError(f"the assignment names {name} {index[(index < 0) | (index >= size)][0]}, of {size}")
    if not (weight >= 0).all():
        entry = int(np.flatnonzero(~(weight >= 0))[0])
        raise MalformedError(f"the assignment's weight at image {image[entry]}, anchor {anchor[entry]} is {weight[entry]}")
    cell = image * margins.anchors + anchor
    order = np.argsort(cell, kind="stable")
    order = order[(weight[order] > 0) | allowed.weightless]
    cell, row, weight = cell[order], row[order], weight[order]
    if (twice := np.flatnonzero(np.diff(cell) == 0)).size:
        raise MalformedError("the assignment holds image {}, anchor {} twice".format(*divmod(int(cell[twice[0]]), margins.anchors)))
    boxes = margins.boxes
    box = boxes.index_of(row.tolist())
    if len(boxes.row):
        box[boxes.image[box] != cell // margins.anchors] = UNASSIGNED
    return IndexedAssignment(cell, box, row, weight)


def weights_of(
    allowed: AllowedAssignments, held: IndexedAssignment, spec: LossSpec, precision: Precision, zero_held: Ints | None = None
) -> Weights:
    """Returns the soft targets of an allowed assignment.

    Args:
        allowed: the margins, and which pairs may hold an anchor with a weight of 0.
        held: the assignment; every entry must be a pair.
        spec: epsilon.
        precision: the contender's.
        zero_held: box (B·A,) that holds an anchor with weight 0 by the definition: its overlap still enters the box's maximum.
    """
    pairs, groups = allowed.margins.pairs, len(allowed.margins.boxes.row)
    at = allowed.margins.lookup(held.cell, held.box)
    # A pair of weight 0 at an anchor without reported box may still enter its box's maximum: certainly, possibly, or not.
    empty = np.ones(allowed.margins.images * allowed.margins.anchors, dtype=bool)
    empty[held.cell] = False
    unseen = np.flatnonzero(allowed.vanishing & empty[pairs.cell])
    certain = unseen if zero_held is None else unseen[zero_held[pairs.cell[unseen]] == pairs.box[unseen]]
    if zero_held is None:
        certain = unseen[:0]

    def largest(values: Floats, *groups_of_pairs: Ints) -> Floats:
        answer = np.zeros(groups)
        for some in groups_of_pairs:
            np.maximum.at(answer, pairs.box[some], values[some])
        return answer[held.box]

    own = at[at >= 0]
    m, o = largest(pairs.metric, own, certain), largest(pairs.overlap, own, certain)
    m_low, o_low = largest(pairs.metric_low, own), largest(pairs.overlap_low, own)
    m_high, o_high = largest(pairs.metric_high, own, unseen), largest(pairs.overlap_high, own, unseen)
    rounding = WEIGHT_ROUNDINGS * max(precision.score, precision.evaluation)
    # An image's first box may hold an anchor of which it is no candidate, with weight 0.
    pair = at >= 0
    value = np.where(pair, pairs.metric[at], 0) * o / (m + spec.assign_eps)
    low = np.where(pair, pairs.metric_low[at], 0) * o_low / (m_high + spec.assign_eps)
    high = np.where(pair, pairs.metric_high[at], 0) * o_high / (m_low + spec.assign_eps)
    # An anchor's metric is at most its box's largest, in any program.
    high = np.minimum(high, o_high)
    tolerance = np.maximum(high - value, value - low) + rounding * value + precision.smallest_score
    return Weights(value, tolerance)
