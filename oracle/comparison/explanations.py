"""Explains a candidate's differences: which wrong definition, or which two or three together, gives its answers.

The interface for whoever has recorded a candidate's answers, in this process or in another::

    answers = [record(case, setting, contender) for case, setting in batches]  # oracle.comparison.recorded_answers
    found = explain_answers([answer for answer in answers if answer is not None])
    found.sentence()  # "is Ultralytics 8.0.101 to before 8.4.0, but conflicts go to the first picker [5.5]: explains 41 of 41 batches"
    found.variants  # what it names, as variants; empty where nothing is named
    counter_proof(found.variants, more_answers)  # on how many further batches the definition with them gives the candidate's answers

Answers to batches on which the candidate agrees belong to it: a variant that changes one of them explains nothing. An answer that was
recorded elsewhere is a :class:`~oracle.comparison.recorded_answers.RecordedAnswer` of the case, and of loss and gradients; its tensors are
built again here.

How it searches: every variant of the catalogue is run on a sample of failing batches, the smallest ones of each kind. The best ones are
kept, and every further one is run on top of them, on batches that are not yet explained, until the rest is rounding. What explains the
sample is then run on all batches. Only what gives the candidate's numbers to rounding is named; anything else is called the nearest, with
what it removes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from oracle.comparison.explanation import CounterProof, Explanation
from oracle.comparison.explanation_search import LEAST_SHARE, USUAL, Limits, Search
from oracle.comparison.recorded_answers import AnsweredBatch, RecordedAnswer
from oracle.definition.variant import Variant

__all__ = ["USUAL", "CounterProof", "Explanation", "Limits", "counter_proof", "explain_answers"]

FLOAT32 = 1e-5
"""Largest relative difference that float32 arithmetic makes."""

IN_FLOAT32 = "float64 logits are computed in float32 [8a]"


def explain_answers(
    answers: Iterable[RecordedAnswer], variants: Sequence[Variant] | None = None, limits: Limits = USUAL, known: Sequence[Explanation] = ()
) -> Explanation:
    """Returns what explains a candidate's answers, to failing and agreeing batches of one task.

    Args:
        answers: the recorded answers, in any order.
        variants: the catalogue; by default all wrong definitions of the task.
        limits: how long to search.
        known: explanations of the same candidate's other answers, which are tried first.
    """
    given = list(answers)
    search = Search([AnsweredBatch(answer) for answer in given], variants, limits)
    found = next((again for one in known if (again := search.confirmed(one)) is not None), None) or search.run()
    if found.named or not found.failing or not _is_float32(given):
        return found
    wide = Search([AnsweredBatch(answer, FLOAT32) for answer in given], variants, limits).run()
    if wide.explained < wide.failing <= (1 - LEAST_SHARE) * found.failing:
        # Rounding tips decisions, and what explains some of them says nothing of the others.
        wide = Explanation(failing=wide.failing, agreeing=wide.agreeing)
    elif wide.failing and not wide.named:
        return found
    return replace(wide, failing=found.failing, explained=found.failing - wide.failing + wide.explained, arithmetic=IN_FLOAT32)


def _is_float32(answers: Sequence[RecordedAnswer]) -> bool:
    """Whether answers in float64 look like float32 arithmetic: most are within float32's rounding or far off, and hardly one is exact."""
    batches = [AnsweredBatch(answer) for answer in answers if answer.dtype == "float64"]
    distances = [max(batch.terms(()) + batch.gradients(())) for batch in batches]
    near = [distance for distance in distances if distance <= FLOAT32]
    return len(near) >= 3 and sum(distance <= 1e-10 for distance in near) <= 0.1 * len(near)


def counter_proof(found: Explanation, answers: Iterable[RecordedAnswer]) -> CounterProof:
    """Compares the definition with what an explanation names with a candidate's answers, batch by batch.

    Args:
        found: the explanation.
        answers: answers to any batches, also to others than it was made from; failing and agreeing ones.
    """
    residual, agree, remainder, count = 0.0, 0, [], 0
    for answer in answers:
        count += 1
        left = found.left(AnsweredBatch(answer, FLOAT32 if found.arithmetic else None))
        if left is None:
            remainder.append(answer.case.digest)
        else:
            agree, residual = agree + 1, max(residual, left)
    return CounterProof(agree, count, residual, tuple(remainder))
