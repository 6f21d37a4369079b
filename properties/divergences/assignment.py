"""Entries on the assignment: choices that are left open, and unexpected results (spec sections 3, 5 and 9)."""

from __future__ import annotations

from oracle.cases.case import Box, Case
from properties.divergences import questions
from properties.divergences.divergence import Divergence
from properties.divergences.small_cases import box, small_case, with_logits

TIES = 'twin, ties="reference"'
PICKERS = 'twin, conflicts="pickers"'


def _two_rivals(anchor: int, side: int, middle: Box) -> Case:
    """Three boxes, K = 1. The first picks ``anchor``; the last overlaps it more, but picks the next anchor on the diagonal."""
    x, y = (anchor % side + 0.5) * 8, (anchor // side + 0.5) * 8
    first, last = box(x - 8, y - 8, x + 16, y + 16), (x - 4, y - 4, x + 20, y + 20)
    case = small_case(first, middle, box(*last), size=(8 * side, 8 * side), reg_max=1, topk=1)
    return with_logits(case, predicted={anchor: (x - 4, y - 4, x + 18, y + 18), anchor + side + 1: last})


def _speck(anchor: int, side: int) -> Box:
    """A box of area 0 on an anchor's centre: that anchor is its only candidate, with overlap 0."""
    return Box(0, 0, (anchor % side + 0.5) * 8, (anchor // side + 0.5) * 8, 0, 0)


_WHOLE = (8.0, 8.0, 24.0, 24.0)

ENTRIES = (
    Divergence(
        name="winner-that-did-not-pick",
        what="An anchor that two boxes pick goes to a third box, which overlaps it more but did not pick it.",
        stage="assign",
        section="5.5",
        case=_two_rivals(5, 4, box(4, 4, 28, 28)),
        question=questions.holders,
        answers={"definition": "5→2, 10→2", "reference": "5→2, 10→2", "twin": "5→2, 10→2", PICKERS: "5→0, 10→2"},
        preferred="open",
        why="Several projects call this a defect. The twin follows the reference by default, so that a training does not "
        'change, and offers the other rule as conflicts="pickers".',
    ),
    Divergence(
        name="zero-picks-few-anchors",
        what="With fewer than K positive metrics and A < 64·K a box also picks an anchor of metric 0, which a third box then takes.",
        stage="assign",
        section="9",
        case=_two_rivals(10, 4, _speck(10, 4)),
        question=questions.holders,
        answers={"definition": "10→0, 15→2", "reference": "10→2, 15→2", "twin": "10→0, 15→2", TIES: "10→2, 15→2"},
        preferred="twin",
        why="Which anchors of metric 0 are picked depends on the framework's top-k. The twin picks positive metrics only; "
        'ties="reference" picks as the reference does.',
    ),
    Divergence(
        name="zero-picks-many-anchors",
        what="With fewer than K positive metrics and A ≥ 64·K, torch on the CPU picks the anchors of metric 0 among the image's first K.",
        stage="assign",
        section="9",
        case=_two_rivals(0, 8, _speck(0, 8)),
        question=questions.holders,
        answers={"definition": "0→0, 9→2", "reference": "0→2, 9→2", "twin": "0→0, 9→2", TIES: "0→2, 9→2"},
        preferred="twin",
        why='The twin picks positive metrics only; ties="reference" picks as the reference does.',
    ),
    Divergence(
        name="equal-metrics",
        what="Among equal positive metrics the reference picks by its top-k, and the twin picks the lowest anchor.",
        stage="assign",
        section="9",
        case=with_logits(small_case(box(*_WHOLE), reg_max=1, topk=1), predicted=dict.fromkeys((5, 6, 9, 10), _WHOLE)),
        question=questions.holders,
        answers={"definition": "5→0", "reference": "10→0", "twin": "5→0", TIES: "10→0"},
        preferred="open",
        why="Every choice is correct. The twin's is the same on every device and in every dtype; ties=\"reference\" gives the reference's.",
    ),
    Divergence(
        name="conflict-without-overlap",
        what="An anchor that several boxes pick with overlap 0 goes to the image's first box, wherever that is, with weight 0.",
        stage="assign",
        section="9",
        case=small_case(box(0, 0, 16, 16), _speck(10, 4), _speck(10, 4), topk=1),
        question=questions.weightless,
        answers={"definition": "none", "reference": "10→0", "twin": "none"},
        preferred="twin",
        why="The loss is the same, but the reference's foreground mask counts the anchor. The twin lists anchors of positive weight only.",
    ),
    Divergence(
        name="dropped-by-its-centre",
        what="A box is dropped if its centre's x + y ≤ 0, even if it reaches into the image; a box as far to the right is kept.",
        stage="targets",
        section="3",
        case=small_case(Box(0, 0, -3, 2, 28, 28)),
        question=questions.holders,
        answers={"definition": "nothing", "reference": "nothing", "twin": "nothing"},
        expected="0→0, 4→0",
        preferred="both",
        why="The sum of the corners also marks padding rows. Labels inside the image are never dropped; the twin follows the reference.",
    ),
    Divergence(
        name="border-in-float32",
        what="The inside test converts a box to centre and size and back in float32, and can lose an anchor 1e-6 px inside the border.",
        stage="candidates",
        section="5.1",
        case=small_case(Box(0, 0, 16.05, 16, 8.100000381469727, 16)),
        question=questions.candidates,
        answers={"definition": "2 candidates", "reference": "2 candidates", "twin": "2 candidates"},
        expected="4 candidates",
        preferred="both",
        why="The last bit of a side is not significant; the twin converts as the reference does, so that the assignments are equal.",
    ),
    Divergence(
        name="inside-ignores-eps",
        what="The reference's inside test ignores the epsilon of its assigner: an epsilon of 1 px moves no border.",
        stage="candidates",
        section="5.1",
        case=small_case(box(3.5, 3.5, 20.5, 20.5)),
        question=questions.candidates_with_wide_border,
        answers={"definition": "1 candidates", "reference": "9 candidates", "twin": "1 candidates"},
        preferred="both",
        why="With the usual 1e-9 there is no difference. LossSpec.assign_eps applies in both places, as section 0 defines.",
    ),
)
