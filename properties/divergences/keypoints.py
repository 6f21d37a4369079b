"""Entries on pose: what its specification leaves open, and results that the paper would not suggest (sections 6, 8a and 9)."""

from __future__ import annotations

from dataclasses import replace

from oracle.cases.case import Box, Prediction, Setting
from properties.divergences import keypoint_cases, questions
from properties.divergences.divergence import Divergence
from properties.divergences.keypoint_cases import LIKELY, SECOND, pose_case, with_predictions
from properties.divergences.small_cases import box

TIES = 'twin, ties="reference"'

_WHOLE = with_predictions(pose_case(box(0, 0, 64, 64), size=(64, 64)), 0.0)
_CORNER = ((0.0, 0.0, 2.0),)  # A keypoint in the image's corner, far from most anchors in units of a small σ.
_FAR = pose_case(box(0, 0, 32, 32), points=(_CORNER,), topk=2, sigmas=(0.02,), **SECOND)
_STACK = pose_case(box(0, 0, 8, 8), box(8, 8, 32, 32), box(8, 8, 32, 32), topk=1)
_WIDE = pose_case(Box(0, 0, 565, 4, 6, 6), points=(((565.0, 4.0, 2.0),),), size=(8, 576), sigmas=(0.02,))
_EXACT = replace(keypoint_cases.LIKELIHOOD, prediction=Prediction("exact", 2))
_DETERMINISTIC = "The twin's choice does not depend on dtype, device and framework; ties=\"reference\" gives the reference's."

ENTRIES = (
    Divergence(
        name="pose-weightless",
        what="Anchors of metric 0 that the top-k picks are held, and count fully in the keypoint terms.",
        stage="assign",
        section="9",
        case=_WHOLE,
        question=questions.keypoint_terms,
        answers={
            "definition": "pose 0, kobj 0",
            "reference": "pose 0.132, kobj 0.693",
            "twin": "pose 0, kobj 0",
            TIES: "pose 0.132, kobj 0.693",
        },
        preferred="twin",
        why=f"Which anchors of metric 0 are picked is an accident of the top-k. {_DETERMINISTIC}",
    ),
    Divergence(
        name="pose-underflow",
        what="A similarity below 3e-8 makes a metric of 0 in float32, so that the accident of the top-k picks instead of the similarity.",
        stage="assign",
        section="9",
        case=with_predictions(_FAR, 2.0),
        question=questions.holders,
        answers={"definition": "0→0, 1→0", "reference": "10→0, 11→0", "twin": "0→0, 1→0", TIES: "10→0, 11→0"},
        preferred="twin",
        why=f"A similarity is positive however small, and the twin ranks by its logarithm. {_DETERMINISTIC}",
    ),
    Divergence(
        name="pose-conflict-without-overlap",
        what="An anchor that two boxes pick with overlap 0 goes to the image's first box, and learns its keypoints though it lies outside.",
        stage="assign",
        section="5",
        case=with_predictions(_STACK, 0.0),
        question=questions.holders,
        answers={"definition": "nothing", "reference": "10→0", "twin": "nothing", TIES: "10→0"},
        preferred="twin",
        why=f"The first box is an accident of the argmax. {_DETERMINISTIC}",
    ),
    Divergence(
        name="pose-decoding-bfloat16",
        what="Outside autocast a bfloat16 keypoint beyond 64 cells is decoded to a multiple of half a cell.",
        stage="loss",
        section="8a",
        case=with_predictions(_WIDE, 0.5, {70: (0.3125, 0.25, 4.0)}),
        setting=Setting("bfloat16"),
        question=questions.keypoint_terms,
        answers={
            "definition": "pose 6.06e-09, kobj 0.0181",
            "reference": "pose 12, kobj 0.0182",
            "twin": "pose 6.06e-09, kobj 0.0181",
        },
        preferred="twin",
        why="The prediction is exact; the twin decodes in float32.",
    ),
    Divergence(
        name="pose-density-twice",
        what="The flow's log-density, one number for a keypoint, is subtracted once for each of its two coordinates.",
        stage="loss",
        section="6",
        case=keypoint_cases.LIKELIHOOD,
        question=questions.density_share,
        answers={"definition": "2 times", "reference": "2 times", "twin": "2 times"},
        expected="1 times",
        preferred="both",
        why="The paper subtracts it once (arXiv 2107.11291); the twin follows the reference, so that trainings are the same.",
    ),
    Divergence(
        name="pose-likelihood-silent",
        what="Keypoints good enough for a negative mean have no likelihood term and no gradient: deviations stop to shrink.",
        stage="loss",
        section="6",
        case=_EXACT,
        question=questions.keypoint_gradients,
        answers=dict.fromkeys(("definition", "reference", "twin"), "the term is zero, the deviation changes: not"),
        expected="the term is negative, the deviation changes: smaller",
        preferred="both",
        why="The paper's loss may be negative; the twin follows the reference.",
    ),
    Divergence(
        name="pose-clamped-error-shrinks-deviation",
        what="An error of more than 100 deviations is clamped, and then makes the deviation smaller: the farther off, the surer.",
        stage="loss",
        section="8",
        case=with_predictions(pose_case(keypoint_cases.ONE, points=(_CORNER,), **LIKELY), 1.0, sigma=-9.0),
        question=questions.keypoint_gradients,
        answers=dict.fromkeys(("definition", "reference", "twin"), "the term is positive, the deviation changes: smaller"),
        expected="the term is positive, the deviation changes: larger",
        preferred="both",
        why="The clamp bounds the loss but not the wish for a small deviation; the twin follows the reference.",
    ),
)
