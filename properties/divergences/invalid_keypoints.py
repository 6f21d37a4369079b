"""Entries on invalid keypoints, targets and predictions (pose specification, section 10)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from oracle.cases.case import Case
from properties.divergences import input_edits, keypoint_edits, questions
from properties.divergences.divergence import Divergence, twin_as_defined
from properties.divergences.input_edits import Edit
from properties.divergences.keypoint_cases import FIRST_GENERATION, HIDDEN, LIKELIHOOD, ONE, SECOND, SECOND_GENERATION, TWO, pose_case
from properties.divergences.keypoint_edits import coordinate, keypoints, predictions, raw, repeated
from properties.divergences.questions import Question
from properties.divergences.small_cases import box

_NAN, _INFINITE = math.nan, math.inf
_FINITE = "all finite"
_ALL_NAN = "box NaN, pose NaN, cls NaN, dfl NaN, gradient of boxes not finite, gradient of scores not finite, gradient of kpts not finite"


def _entry(name: str, what: str, case: Case, edit: Edit, answers: tuple[str, str], why: str, question: Question) -> Divergence:
    """An entry of which ``answers`` are the twin's, which is the definition's, and the reference's."""
    return twin_as_defined(
        name=f"keypoints-{name}",
        what=what,
        stage="input",
        section="10",
        case=case,
        edit=edit,
        question=question,
        answers=answers,
        why=why,
    )


def _refused(name: str, what: str, case: Case, edit: Edit, reference: str, question: Question = questions.keypoint_terms) -> Divergence:
    """An entry on input that must raise an error."""
    why = "An error that names the shapes or the row can be corrected; a wrong loss without an error stays unnoticed."
    return _entry(name, what, case, edit, ("ValueError", reference), why, question)


def _limit(name: str, what: str, case: Case, edit: Edit, answers: tuple[str, str], why: str) -> Divergence:
    """An entry on numbers of predictions that are not finite."""
    return _entry(name, what, case, edit, answers, why, questions.non_finite)


def _with_fourth(points: Tensor) -> Tensor:
    return torch.cat([points, points[..., :1]], -1)


_UNREAD = "The coordinates of an invisible keypoint are in no formula."
_LIMIT = "An infinite number has the limit of finite ones: a cost of 1 without gradient."
_SOME = "pose 0.013, kobj 0.34"
_PLAIN = pose_case(ONE, keypoint_shape=(3, 2))
_CORNER = pose_case(box(0, 0, 24, 24), **SECOND)
_THIN = pose_case(box(54.4, 3.2, 60.8, 60.8), size=(64, 64), kind="zeros")

ENTRIES = (
    _refused(
        "single-row", "One row of keypoints is used for all boxes.", TWO, keypoints(lambda points: points[:1]), "pose 0.0543, kobj 0.545"
    ),
    _refused("more-rows", "More rows of keypoints than boxes raise an error about shapes.", TWO, keypoints(repeated(2, 0)), "RuntimeError"),
    _refused("missing", "Missing keypoints raise a KeyError.", FIRST_GENERATION, keypoint_edits.without_keypoints, "KeyError"),
    _entry(
        "missing-without-boxes",
        "The second generation raises a KeyError on missing keypoints also without boxes.",
        pose_case(**SECOND),
        keypoint_edits.without_keypoints,
        ("pose 0, kobj 0", "KeyError"),
        "Without boxes there are no keypoints to give.",
        questions.keypoint_terms,
    ),
    _refused(
        "one-of-several",
        "One target keypoint is compared with all predicted ones.",
        _PLAIN,
        keypoints(lambda points: points[:, :1]),
        "pose 0.151, kobj 0",
    ),
    _refused(
        "one-number",
        "Keypoints of one number raise an error about indices.",
        FIRST_GENERATION,
        keypoints(lambda p: p[..., :1]),
        "RuntimeError",
    ),
    _refused(
        "flat",
        "Keypoints in one row a box raise an error about shapes.",
        FIRST_GENERATION,
        keypoints(lambda p: p.flatten(1)),
        "RuntimeError",
    ),
    _refused("fourth-number", "A fourth number of a keypoint is ignored.", FIRST_GENERATION, keypoints(_with_fourth), _SOME),
    _refused(
        "channels",
        "`kpts` with other channels raise an error about a view.",
        FIRST_GENERATION,
        predictions("kpts", repeated(2, 1)),
        "RuntimeError",
    ),
    _refused(
        "anchors",
        "`kpts` with fewer anchors raise an error about a sum.",
        FIRST_GENERATION,
        predictions("kpts", lambda v: v[..., 1:]),
        "RuntimeError",
    ),
    _refused(
        "deviation-channels",
        "`kpts_sigma` with other channels raise an error about a view.",
        LIKELIHOOD,
        predictions("kpts_sigma", repeated(2, 1)),
        "RuntimeError",
    ),
    _refused(
        "nan-first",
        "A NaN coordinate makes the location term of the first generation NaN.",
        FIRST_GENERATION,
        coordinate(_NAN),
        "pose NaN, gradient of kpts not finite",
        questions.non_finite,
    ),
    _refused(
        "nan-second",
        "A NaN coordinate makes all terms of the second generation NaN that read the assignment.",
        SECOND_GENERATION,
        coordinate(_NAN),
        _ALL_NAN,
        questions.non_finite,
    ),
    _limit(
        "nan-invisible-first",
        "A NaN coordinate of an invisible keypoint makes the location term NaN.",
        HIDDEN[1],
        coordinate(_NAN, 1),
        (_FINITE, "pose NaN, gradient of kpts not finite"),
        _UNREAD,
    ),
    _limit(
        "nan-invisible-second",
        "A NaN coordinate of an invisible keypoint makes nearly all terms of the second generation NaN.",
        HIDDEN[2],
        coordinate(_NAN, 1),
        (_FINITE, _ALL_NAN),
        _UNREAD,
    ),
    _refused(
        "infinite",
        "An infinite coordinate makes the gradient of the keypoints NaN.",
        FIRST_GENERATION,
        coordinate(_INFINITE),
        "gradient of kpts not finite",
        questions.non_finite,
    ),
    _limit(
        "infinite-invisible",
        "An infinite coordinate of an invisible keypoint makes the gradient of the keypoints NaN.",
        HIDDEN[1],
        coordinate(_INFINITE, 1),
        (_FINITE, "gradient of kpts not finite"),
        _UNREAD,
    ),
    _refused(
        "visibility-negative", "A negative visibility counts as visible in the terms.", FIRST_GENERATION, coordinate(-1.0, column=2), _SOME
    ),
    _refused("visibility-nan", "A NaN visibility counts as visible in the terms.", FIRST_GENERATION, coordinate(_NAN, column=2), _SOME),
    _refused("visibility-fractional", "A fractional visibility counts as visible.", FIRST_GENERATION, coordinate(0.5, column=2), _SOME),
    _refused("visibility-large", "A visibility above 2 counts as visible.", FIRST_GENERATION, coordinate(3.0, column=2), _SOME),
    _refused(
        "negative-width",
        "A box of negative width can hold an anchor by its top-k, has a negative area, and makes the location term negative.",
        _THIN,
        input_edits.batch_value("bboxes", 0, -0.1, column=2),
        "pose -0.274, kobj 0.693",
    ),
    _refused(
        "negative-sides",
        "A box of negative width and height is an ordinary box to the second generation.",
        _CORNER,
        lambda inputs: input_edits.batch_value("bboxes", 0, -0.75, column=3)(input_edits.batch_value("bboxes", 0, -0.75, column=2)(inputs)),
        "pose 0.0344, kobj 0.132",
    ),
    _limit(
        "prediction-nan-invisible-first",
        "A NaN prediction of an invisible keypoint makes the location term NaN.",
        HIDDEN[1],
        raw("kpts", _NAN, 3),
        (_FINITE, "pose NaN, gradient of kpts not finite"),
        _UNREAD,
    ),
    _limit(
        "prediction-nan-invisible-second",
        "A NaN prediction of an invisible keypoint makes nearly all terms of the second generation NaN.",
        HIDDEN[2],
        raw("kpts", _NAN, 3),
        (_FINITE, _ALL_NAN),
        _UNREAD,
    ),
    _limit(
        "prediction-infinite",
        "An infinite prediction makes the gradient of the keypoints NaN.",
        FIRST_GENERATION,
        raw("kpts", _INFINITE, 0),
        (_FINITE, "gradient of kpts not finite"),
        _LIMIT,
    ),
    _limit(
        "prediction-infinite-likelihood",
        "An infinite prediction is left out of the likelihood term, but makes the gradient of the keypoints NaN.",
        LIKELIHOOD,
        raw("kpts", _INFINITE, 0),
        (_FINITE, "gradient of kpts not finite"),
        _LIMIT,
    ),
    _limit(
        "logit-infinite-right",
        "An infinite visibility logit makes the visibility term NaN where it is right.",
        FIRST_GENERATION,
        raw("kpts", _INFINITE, 2),
        (_FINITE, "kobj NaN"),
        "The limit of a logit that becomes surer and is right is 0.",
    ),
    _limit(
        "logit-infinite-wrong",
        "A visibility logit of −inf makes the visibility term NaN where it is wrong.",
        FIRST_GENERATION,
        raw("kpts", -_INFINITE, 2),
        ("kobj infinite", "kobj NaN"),
        "The limit of a logit that becomes surer and is wrong is infinite.",
    ),
    _limit(
        "deviation-nan",
        "A NaN deviation of a visible keypoint is left out of the likelihood term silently.",
        LIKELIHOOD,
        raw("kpts_sigma", _NAN, 0),
        ("likelihood NaN, gradient of kpts not finite, gradient of kpts_sigma not finite", _FINITE),
        "A loss that hides a NaN hides a fault of the network.",
    ),
    _entry(
        "unsorted-images",
        "Rows with a batch_idx that is not ascending raise an IndexError.",
        TWO,
        input_edits.batch_order(1, 0),
        ("pose 0.0543, kobj 0.545", "IndexError"),
        "The loss does not depend on the order of the rows.",
        questions.keypoint_terms,
    ),
)
