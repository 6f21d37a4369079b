"""Entries on invalid targets (spec section 10)."""

from __future__ import annotations

import torch

from oracle.cases.case import Case
from properties.divergences import input_edits, questions
from properties.divergences.divergence import Divergence, refused
from properties.divergences.input_edits import Edit
from properties.divergences.questions import Question
from properties.divergences.small_cases import box, small_case, with_logits

_ONE = small_case(box(4, 4, 20, 20))
_TWO = small_case(box(4, 4, 20, 20), box(12, 12, 28, 28, image=1), images=2)
_THREE = small_case(box(4, 4, 20, 20), box(8, 8, 24, 24, image=1), box(12, 12, 28, 28, image=1), images=3)
_LABELLED = with_logits(small_case(box(4, 4, 20, 20, label=1), num_classes=3, reg_max=1), score=-5.0)


def _refused(name: str, what: str, case: Case, edit: Edit, reference: str, question: Question = questions.rows_held) -> Divergence:
    """An entry on input that must raise an error."""
    return refused(name=name, what=what, case=case, edit=edit, question=question, reference=reference, named="row")


def _accepted(name: str, what: str, why: str, edit: Edit, reference: str = "RuntimeError") -> Divergence:
    """An entry on input that can be accepted."""
    answers = {"definition": "5→0", "reference": reference, "twin": "5→0"}
    return Divergence(
        name=name,
        what=what,
        stage="input",
        section="10",
        case=_ONE,
        edit=edit,
        question=questions.holders,
        answers=answers,
        preferred="twin",
        why=why,
    )


_WIDENED = "Targets of any float dtype can be converted."
_NAN = float("nan")

ENTRIES = (
    Divergence(
        name="unsorted-images",
        what="Rows with a batch_idx that is not ascending raise an IndexError.",
        stage="input",
        section="10",
        case=_TWO,
        edit=input_edits.batch_order(1, 0),
        question=questions.rows_held,
        answers={
            "definition": "row 0 in image 1, row 1 in image 0",
            "reference": "IndexError",
            "twin": "row 0 in image 1, row 1 in image 0",
        },
        preferred="twin",
        why="The loss does not depend on the order of the rows.",
    ),
    Divergence(
        name="unsorted-images-silently",
        what="Some orders of batch_idx, such as 1, 0, 2 in a batch of three, give a wrong loss without an error.",
        stage="input",
        section="10",
        case=_THREE,
        edit=input_edits.batch_order(1, 0, 2),
        question=questions.loss,
        answers={
            "definition": "box 12.9, cls 23.3, third 6.24",
            "reference": "box 11.1, cls 49.9, third 5.55",
            "twin": "box 12.9, cls 23.3, third 6.24",
        },
        preferred="twin",
        why="The loss does not depend on the order of the rows.",
    ),
    _refused(
        "image-beyond-batch",
        "batch_idx ≥ B raises an error about shapes.",
        _TWO,
        input_edits.batch_value("batch_idx", 1, 2.0),
        "RuntimeError",
    ),
    _refused(
        "image-negative",
        "A negative batch_idx counts from the last image, or raises an IndexError.",
        _THREE,
        input_edits.batch_value("batch_idx", 2, -1.0),
        "image 0, image 1, image 2",
        questions.learnt_images,
    ),
    _refused(
        "image-fractional",
        "A fractional batch_idx is truncated.",
        _TWO,
        input_edits.batch_value("batch_idx", 1, 0.5),
        "image 0",
        questions.learnt_images,
    ),
    _refused(
        "image-nan", "A NaN in batch_idx raises an error about shapes.", _TWO, input_edits.batch_value("batch_idx", 1, _NAN), "RuntimeError"
    ),
    _refused(
        "class-beyond-classes",
        "A class ≥ C raises an IndexError, on CUDA a device assert.",
        _LABELLED,
        input_edits.batch_value("cls", 0, 3.0),
        "IndexError",
    ),
    _refused("class-nan", "A NaN class raises an IndexError.", _LABELLED, input_edits.batch_value("cls", 0, _NAN), "IndexError"),
    _refused(
        "class-negative",
        "A negative class is learnt as class 0, but its metric is that of class + C.",
        _LABELLED,
        input_edits.batch_value("cls", 0, -1.0),
        "class 0",
        questions.learnt_classes,
    ),
    _refused(
        "class-far-negative", "A class below −C raises an IndexError.", _LABELLED, input_edits.batch_value("cls", 0, -4.0), "IndexError"
    ),
    _refused(
        "class-fractional",
        "A fractional class is truncated.",
        _LABELLED,
        input_edits.batch_value("cls", 0, 2.5),
        "class 2",
        questions.learnt_classes,
    ),
    _refused("box-nan", "A box with a NaN is dropped without an error.", _ONE, input_edits.batch_value("bboxes", 0, _NAN), "no row"),
    _refused(
        "box-infinite",
        "A box with an infinite coordinate is dropped without an error.",
        _ONE,
        input_edits.batch_value("bboxes", 0, float("inf")),
        "no row",
    ),
    _refused(
        "box-negative-size",
        "A box of negative width or height has no effect, and raises no error.",
        _ONE,
        input_edits.batch_value("bboxes", 0, -0.5, column=2),
        "no row",
    ),
    _accepted(
        "targets-float64",
        "Targets in float64 raise a RuntimeError.",
        _WIDENED,
        input_edits.batch_dtype(torch.float64, "batch_idx", "cls", "bboxes"),
    ),
    _accepted(
        "targets-float16",
        "Targets in float16 raise a RuntimeError.",
        _WIDENED,
        input_edits.batch_dtype(torch.float16, "batch_idx", "cls", "bboxes"),
    ),
    _accepted(
        "targets-bfloat16",
        "Targets in bfloat16 raise a RuntimeError.",
        _WIDENED,
        input_edits.batch_dtype(torch.bfloat16, "batch_idx", "cls", "bboxes"),
    ),
    _accepted(
        "indices-float64",
        "A float64 batch_idx and cls raise a RuntimeError even with float32 boxes: the three are promoted to one dtype.",
        "float64 holds every index exactly.",
        input_edits.batch_dtype(torch.float64, "batch_idx", "cls"),
    ),
)
