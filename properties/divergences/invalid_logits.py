"""Entries on logits that are not finite, too few, or of different batches (spec section 10)."""

from __future__ import annotations

from properties.divergences import input_edits, questions
from properties.divergences.divergence import Divergence
from properties.divergences.small_cases import box, small_case

_ONE = small_case(box(4, 4, 20, 20))
_FINITE = "all finite"
_UNREAD = "A value that is not finite affects only the terms whose formula contains it."

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
        why="With fewer anchors than K a box picks among all of them: k = min(K, A).",
    ),
    Divergence(
        name="few-anchors-second-cut",
        what="A batch with boxes and A < topk2 raises a RuntimeError.",
        stage="assign",
        section="10",
        case=small_case(box(0, 0, 8, 8), size=(16, 16), topk=2, topk2=5),
        question=questions.holders,
        answers={"definition": "0→0", "reference": "RuntimeError", "twin": "0→0"},
        preferred="twin",
        why="With fewer anchors than topk2 the second cut removes no anchor.",
    ),
    Divergence(
        name="score-masked",
        what="A class logit of −inf, which masks a class, makes the classification term NaN; the gradient stays finite.",
        stage="loss",
        section="10",
        case=_ONE,
        edit=input_edits.logit("scores", (0, 0, 15), float("-inf")),
        question=questions.non_finite,
        answers={"definition": _FINITE, "reference": "cls NaN", "twin": _FINITE},
        preferred="twin",
        why="The cross-entropy of −inf with target 0 is 0, the limit of finite logits.",
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
        what="An infinite box logit at an anchor that no box contains makes that logit's gradient NaN.",
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
        what="`scores` with more images than `boxes` are accepted, and the loss is wrong for either number of images.",
        stage="input",
        section="10",
        case=_ONE,
        edit=input_edits.one_more_image("scores"),
        question=questions.loss,
        answers={"definition": "ValueError", "reference": "box 1.85, cls 11.1, third 0.924", "twin": "ValueError"},
        preferred="twin",
        why="One of the two tensors is wrong, and only an error shows it.",
    ),
    Divergence(
        name="more-images-of-boxes",
        what="`boxes` with more images than `scores` are accepted, and the loss is wrong for either number of images.",
        stage="input",
        section="10",
        case=_ONE,
        edit=input_edits.one_more_image("boxes"),
        question=questions.loss,
        answers={"definition": "ValueError", "reference": "box 3.7, cls 11.1, third 1.85", "twin": "ValueError"},
        preferred="twin",
        why="One of the two tensors is wrong, and only an error shows it.",
    ),
)
