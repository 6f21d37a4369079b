"""Entries on instance segmentation: what its specification leaves open, and input that has an answer (sections 9 to 11)."""

from __future__ import annotations

import math

from oracle.cases.case import Case, Setting
from properties.divergences import input_edits, mask_cases, mask_edits, questions
from properties.divergences.divergence import Divergence, twin_as_defined
from properties.divergences.input_edits import Edit
from properties.divergences.questions import Question

_NAN, _INFINITE = math.nan, math.inf


def _accepted(
    name: str,
    what: str,
    why: str,
    case: Case,
    edit: Edit | None,
    answers: tuple[str, str],
    question: Question,
    setting: Setting = Setting(),
) -> Divergence:
    """An entry on a batch that has an answer; ``answers`` are the twin's, which is the definition's, and the reference's."""
    return twin_as_defined(
        name=f"mask-{name}",
        what=what,
        stage="loss",
        section="11",
        case=case,
        edit=edit,
        question=question,
        setting=setting,
        answers=answers,
        why=why,
    )


_UNREAD = "A pixel outside of every crop is not part of the formula."
_ADDED = "An image that holds nothing adds 0."

ENTRIES = (
    _accepted(
        "unread-infinity",
        "An infinite prototype outside of every crop makes the mask term NaN.",
        _UNREAD,
        mask_cases.ONE,
        mask_edits.prototypes(mask_edits.with_value((0, 0, 7, 7), _INFINITE)),
        ("all finite", "mask NaN, gradient of mask_coefficient not finite"),
        questions.non_finite,
    ),
    _accepted(
        "unread-overflow",
        "Finite float16 logits that overflow outside of every crop make the mask term NaN.",
        _UNREAD,
        mask_cases.ONE,
        mask_edits.prototypes(mask_edits.with_value((0, slice(None), 7, 7), 6e4)),
        ("all finite", "mask NaN"),
        questions.non_finite,
        Setting("float16"),
    ),
    _accepted(
        "empty-image-nan",
        "A NaN prototype of an image that holds nothing makes the mask term NaN.",
        _ADDED,
        mask_cases.EMPTY_IMAGE,
        mask_edits.prototypes(mask_edits.with_value((1, 0, 0, 0), _NAN)),
        ("all finite", "mask NaN"),
        questions.non_finite,
    ),
    _accepted(
        "empty-image-coefficient",
        "A NaN coefficient of an anchor that is not held makes the mask term NaN if another image holds nothing.",
        _ADDED,
        mask_cases.EMPTY_IMAGE,
        mask_edits.coefficients(mask_edits.with_value((0, 0, 15), _NAN)),
        ("all finite", "mask NaN"),
        questions.non_finite,
    ),
    _accepted(
        "no-area-aware",
        "A box without area gets anchors by its mask in the mask-aware assignment, and makes the mask term NaN.",
        "The limit of small boxes counts the anchors, with a loss of 0.",
        mask_cases.NO_AREA,
        None,
        ("all finite", "mask NaN, gradient of mask_coefficient not finite, gradient of proto not finite"),
        questions.non_finite,
    ),
    Divergence(
        name="mask-weightless",
        what="Held anchors of weight 0, an accident of the top-k among zero metrics, count in the mask term.",
        stage="assign",
        section="9",
        case=mask_cases.WEIGHTLESS,
        question=questions.mask_terms,
        answers={"definition": "mask 7.08", "reference": "mask 6.49", "twin": "mask 7.08", 'twin, ties="reference"': "mask 6.49"},
        preferred="twin",
        why="The anchors of positive metric do not depend on the device and the framework.",
    ),
    _accepted(
        "semantic-masked",
        "A semantic logit of −inf, which masks a class, makes the semantic term NaN.",
        "The cross-entropy of −inf with target 0 is 0, the limit of finite logits.",
        mask_cases.SEMANTIC,
        mask_edits.semantic(mask_edits.with_value((0, 1), -_INFINITE)),
        ("all finite", "semantic NaN"),
        questions.non_finite,
    ),
    _accepted(
        "class-at-background",
        "A class ≥ C in `sem_masks` raises a RuntimeError also where no instance is.",
        "The class of the background is not used.",
        mask_cases.SEMANTIC,
        mask_edits.pixel("sem_masks", (0, 7, 7), 5.0),
        ("mask 0.155, semantic 3.44", "RuntimeError"),
        questions.mask_terms,
    ),
    _accepted(
        "unsorted",
        "Rows with a batch_idx that is not ascending raise an IndexError.",
        "The loss does not depend on the order of the rows.",
        mask_cases.TWO,
        input_edits.batch_order(1, 0, keep=("masks",)),
        ("mask 0.298", "IndexError"),
        questions.mask_terms,
    ),
)
