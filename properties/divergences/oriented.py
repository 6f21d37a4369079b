"""Entries on oriented boxes (oriented specification, sections 3, 6 and 8a to 10)."""

from __future__ import annotations

import dataclasses
import math

import torch

from oracle.cases.case import Case, Prediction, Setting
from properties.divergences import input_edits, questions
from properties.divergences.divergence import Divergence, Right
from properties.divergences.input_edits import Edit
from properties.divergences.oriented_cases import angle_channels, columns, oriented_case, predicting
from properties.divergences.questions import Question, one_term

_NAN, _INFINITE = math.nan, math.inf
_ONE = oriented_case((12, 12, 16, 16, 0.3))
_THREE = oriented_case(*((12, 12, 16, 16, 0.3),) * 3, images=(0, 1, 2))
_NONE = oriented_case()
_NAMED = "An error that names the row can be corrected; a wrong loss without an error stays unnoticed."
_UNREAD = "A value that is not finite affects only the terms whose formula contains it."
_WIDENED = "Targets of any float dtype can be converted."
_OWN_DTYPE = "The twin computes half-precision predictions in float32."
_FINITE = "all finite"


def _entry(
    name: str,
    what: str,
    section: str,
    case: Case,
    answers: tuple[str, str, str],
    why: str,
    question: Question = questions.rows_held,
    edit: Edit | None = None,
    *,
    stage: str = "input",
    setting: Setting = Setting(),
    preferred: Right = "twin",
    expected: str = "",
) -> Divergence:
    """An entry; ``answers`` are those of the definition, the reference and the twin."""
    return Divergence(
        name=f"oriented-{name}",
        what=what,
        stage=stage,
        section=section,
        case=case,
        question=question,
        answers=dict(zip(("definition", "reference", "twin"), answers, strict=True)),
        preferred=preferred,
        why=why,
        edit=edit,
        setting=setting,
        expected=expected,
    )


def _refused(name: str, what: str, case: Case, edit: Edit, reference: str, question: Question = questions.rows_held) -> Divergence:
    """An entry on input that must raise an error."""
    return _entry(name, what, "10", case, ("ValueError", reference, "ValueError"), _NAMED, question, edit)


def _accepted(name: str, what: str, edit: Edit, why: str = _WIDENED) -> Divergence:
    """An entry on input that can be accepted."""
    return _entry(name, what, "10", _ONE, ("row 0 in image 0", "TypeError", "row 0 in image 0"), why, questions.rows_held, edit)


def _in_half(name: str, what: str, case: Case, setting: Setting, answers: tuple[str, str, str], question: Question) -> Divergence:
    """An entry on half precision."""
    return _entry(name, what, "8a", case, answers, _OWN_DTYPE, question, stage="loss", setting=setting)


def _random(angle: float) -> Case:
    """A box with an angle, and random predictions."""
    case = oriented_case((14, 12, 20, 16, angle), reg_max=16)
    return dataclasses.replace(case, prediction=Prediction("random", seed=1))


_HALF, _BRAIN = Setting("float16"), Setting("bfloat16")
_SQUARE = oriented_case((252, 252, 480, 480, 0.0), size=(512, 512), reg_max=1, topk=1)


def _too_long(length: float, middle: float, angle: float = math.pi / 4) -> Case:
    """A box 2 px wide in the middle of its image, and one anchor that predicts it 3 % too large."""
    side = 2 * int(middle) - 8
    case = oriented_case((middle, middle, length, 2.0, angle), size=(side, side), reg_max=1, topk=1)
    anchor = int(middle // 8) * (side // 8 + 1)
    return predicting(case, {anchor: (middle, middle, 1.03 * length, 2.06, angle)})


ENTRIES = (
    _refused("four-columns", "Boxes with four columns raise a TypeError.", _ONE, columns(4), "TypeError"),
    _refused("four-columns-empty", "Boxes with four columns are accepted if there are none.", _NONE, columns(4), "no row"),
    _refused(
        "image-beyond-batch",
        "batch_idx ≥ B raises a TypeError about the dataset.",
        _THREE,
        input_edits.batch_value("batch_idx", 2, 3.0),
        "TypeError",
    ),
    _refused(
        "image-nan",
        "A NaN in batch_idx raises a TypeError about the dataset.",
        _THREE,
        input_edits.batch_value("batch_idx", 2, _NAN),
        "TypeError",
    ),
    _refused(
        "image-negative",
        "A batch_idx of −1 is the last image.",
        _THREE,
        input_edits.batch_value("batch_idx", 2, -1.0),
        "image 0, image 1, image 2",
        questions.learnt_images,
    ),
    _refused(
        "angle-nan",
        "A box with a NaN angle has no effect, without an error.",
        _ONE,
        input_edits.batch_value("bboxes", 0, _NAN, 4),
        "no row",
    ),
    _refused(
        "angle-infinite",
        "A box with an infinite angle has no effect, without an error.",
        _ONE,
        input_edits.batch_value("bboxes", 0, _INFINITE, 4),
        "no row",
    ),
    _refused(
        "side-infinite",
        "A box with an infinite side has no effect, without an error.",
        _ONE,
        input_edits.batch_value("bboxes", 0, _INFINITE, 2),
        "no row",
    ),
    _refused(
        "side-negative",
        "A box with a negative side is removed without an error.",
        _ONE,
        input_edits.batch_value("bboxes", 0, -0.5, 3),
        "no row",
    ),
    _refused("angles-missing", "Predictions without `angle` raise a KeyError.", _ONE, angle_channels(0), "KeyError"),
    _refused(
        "angles-of-two-channels", "Angles with two channels raise a RuntimeError about sizes.", _ONE, angle_channels(2), "RuntimeError"
    ),
    _accepted(
        "targets-float64",
        "Targets in float64 raise a TypeError about the dataset.",
        input_edits.batch_dtype(torch.float64, "batch_idx", "cls", "bboxes"),
    ),
    _accepted(
        "targets-float16",
        "Targets in float16 raise a TypeError about the dataset.",
        input_edits.batch_dtype(torch.float16, "batch_idx", "cls", "bboxes"),
    ),
    _accepted(
        "targets-bfloat16",
        "Targets in bfloat16 raise a TypeError about the dataset.",
        input_edits.batch_dtype(torch.bfloat16, "batch_idx", "cls", "bboxes"),
    ),
    _entry(
        "turned-away",
        "Angles count in the sum by which a row is valid: a box inside of the image can be removed by a large negative angle.",
        "3",
        oriented_case((20, 20, 8, 8, -60.0)),
        ("no row", "no row", "ValueError"),
        "The twin follows, and with validate=True refuses an angle of more than a turn, which is often in degrees.",
    ),
    _entry(
        "sum-of-pixels-and-radians",
        "A box at the image's corner is there or not by its angle, although a half turn does not change the rectangle.",
        "3",
        oriented_case((0, 0, 2, 2, -6.2)),
        ("no row", "no row", "no row"),
        "The twin follows, so that a training does not change.",
        expected="row 0 in image 0",
        preferred="open",
    ),
    _entry(
        "two-pixels",
        "A box with a side below 2 px is removed without an error, also where it holds an anchor.",
        "3",
        oriented_case((12, 12, 16, 1.99, 0.0)),
        ("no row", "no row", "no row"),
        "The twin follows, so that a training does not change.",
        expected="row 0 in image 0",
        preferred="open",
    ),
    _entry(
        "half-turn",
        "A box turned by π is the same rectangle, with other distances: left and right, top and bottom change places.",
        "9",
        _random(0.4 + math.pi),
        ("dfl 2.27", "dfl 2.27", "dfl 2.27"),
        "Sides are those of the box's own frame, so that the loader has to write a rectangle in one way.",
        one_term("dfl"),
        stage="loss",
        expected="dfl 2.31",
        preferred="both",
    ),
    _entry(
        "perfect",
        "A perfect prediction has a box term above 0 and no gradient: the distance of two boxes is at least ε_p.",
        "6",
        predicting(oriented_case((12, 12, 16, 16, 0.3), reg_max=1, topk=1), {5: (12, 12, 16, 16, 0.3)}),
        ("box 0.00335", "box 0.00351", "box 0.00335"),
        "The twin follows the definition, without the cancellation of 1 − e^(−ε_p) in float32.",
        one_term("box"),
        stage="loss",
        expected="box 0",
    ),
    _entry(
        "border-of-a-half-turn",
        "An anchor on a side of the box is a candidate or not by the rounding of the angle's sine.",
        "9",
        oriented_case((28, 20, 16, 32, math.pi), size=(64, 64)),
        ("9 candidates", "8 candidates", "11 candidates"),
        "Both are allowed: the angle π is rounded.",
        questions.candidates,
        stage="candidates",
        preferred="open",
    ),
    _entry(
        "unread-angle",
        "A NaN angle at an anchor that no box contains makes gradients of `boxes` and `angle` NaN.",
        "10",
        _ONE,
        (_FINITE, "gradient of boxes not finite, gradient of angle not finite", _FINITE),
        _UNREAD,
        questions.non_finite,
        input_edits.logit("angle", (0, 0, 15), _NAN),
        stage="loss",
    ),
    _entry(
        "unheld-angle",
        "A NaN angle in a batch that holds nothing makes the box term NaN.",
        "10",
        _NONE,
        (_FINITE, "box NaN", _FINITE),
        _UNREAD,
        questions.non_finite,
        input_edits.logit("angle", (0, 0, 15), _NAN),
        stage="loss",
    ),
    _entry(
        "unread-box",
        "A NaN box logit at an anchor that no box contains makes gradients of `boxes` and `angle` NaN.",
        "10",
        _ONE,
        (_FINITE, "gradient of boxes not finite, gradient of angle not finite", _FINITE),
        _UNREAD,
        questions.non_finite,
        input_edits.logit("boxes", (0, 0, 15), _NAN),
        stage="loss",
    ),
    _in_half(
        "false-perfection",
        "In float16 the product of a large box's covariances overflows, and any such prediction counts as perfect (R = 1).",
        predicting(_SQUARE, {31 * 64 + 31: (276, 252, 480, 480, 0.0)}),
        _HALF,
        ("box 0.431", "box 0.0033", "box 0.431"),
        one_term("box"),
    ),
    _in_half(
        "stranger",
        "In bfloat16 the determinant of a long box is rounded to 0: a prediction 3 % too long counts as a stranger.",
        _too_long(64, 68),
        _BRAIN,
        ("box 0.12", "box 7.33", "box 0.12"),
        one_term("box"),
    ),
    _in_half(
        "not-finite",
        "In bfloat16 the determinant of a longer box is negative: the box term is NaN, and every gradient is finite.",
        _too_long(200, 132, 0.3),
        _BRAIN,
        (_FINITE, "box NaN", _FINITE),
        questions.non_finite,
    ),
)
