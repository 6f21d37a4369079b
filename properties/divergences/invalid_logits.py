"""What is said about logits that are not numbers, too few, or not of one batch (spec section 10)."""

from __future__ import annotations

from properties.divergences import input_edits, questions
from properties.divergences.divergence import Divergence
from properties.divergences.small_cases import box, small_case

_ONE = small_case(box(4, 4, 20, 20))
_FINITE = "all finite"
_UNREAD = "The terms that mathematically read a value show it, and no other."

ENTRIES = (
    Divergence(
        name="few-anchors",
        what="A batch with boxes and A < K raises a RuntimeError.",
        stage="assign",
        section="10",
        case=small_case(box(0, 0, 8, 8), size=(16, 16)),
        question=questions.holders,
        answers={"definition": "0→0", "reference": "RuntimeError", "twin": "0→0"},
        preferred="twin",
        why="A box that has fewer anchors than K picks all of them: k = min(K, A).",
    ),
    Divergence(
        name="few-anchors-second-cut",
        what="So does topk2 > A.",
        stage="assign",
        section="10",
        case=small_case(box(0, 0, 8, 8), size=(16, 16), topk=2, topk2=5),
        question=questions.holders,
        answers={"definition": "0→0", "reference": "RuntimeError", "twin": "0→0"},
        preferred="twin",
        why="As above.",
    ),
    Divergence(
        name="score-masked",
        what="A class masked by a score of −inf makes the classification term NaN, though its gradient is finite.",
        stage="loss",
        section="10",
        case=_ONE,
        edit=input_edits.logit("scores", (0, 0, 15), float("-inf")),
        question=questions.non_finite,
        answers={"definition": _FINITE, "reference": "cls NaN", "twin": _FINITE},
        preferred="twin",
        why="Its cross-entropy with target 0 is 0, as the limit is.",
    ),
    Divergence(
        name="unread-nan",
        what="A NaN box logit at an anchor that no box contains makes that logit's gradient NaN.",
        stage="loss",
        section="10",
        case=_ONE,
        edit=input_edits.logit("boxes", (0, 0, 15), float("nan")),
        question=questions.non_finite,
        answers={"definition": _FINITE, "reference": "gradient of boxes not finite", "twin": _FINITE},
        preferred="twin",
        why=_UNREAD,
    ),
    Divergence(
        name="unread-infinity",
        what="So does an infinite one.",
        stage="loss",
        section="10",
        case=_ONE,
        edit=input_edits.logit("boxes", (0, 0, 15), float("inf")),
        question=questions.non_finite,
        answers={"definition": _FINITE, "reference": "gradient of boxes not finite", "twin": _FINITE},
        preferred="twin",
        why=_UNREAD,
    ),
    Divergence(
        name="more-images-of-scores",
        what="`scores` with more images than `boxes` are accepted, and the loss is that of neither batch.",
        stage="input",
        section="10",
        case=_ONE,
        edit=input_edits.one_more_image("scores"),
        question=questions.loss,
        answers={"definition": "ValueError", "reference": "box 1.85, cls 11.1, third 0.924", "twin": "ValueError"},
        preferred="twin",
        why="One of the two is a mistake.",
    ),
    Divergence(
        name="more-images-of-boxes",
        what="`boxes` with more images than `scores` likewise.",
        stage="input",
        section="10",
        case=_ONE,
        edit=input_edits.one_more_image("boxes"),
        question=questions.loss,
        answers={"definition": "ValueError", "reference": "box 3.7, cls 11.1, third 1.85", "twin": "ValueError"},
        preferred="twin",
        why="As above.",
    ),
)
