"""Compares two releases' answers, question by question; the verdict is one of these.

=============== ===========================================================================================
same            equal to the bit, or the same failure
rounding        different bits, within the rounding of the dtype
changed         values differ by more than rounding
raises          an answer before, an exception now (or the process dies or hangs)
accepts         an exception before, an answer now
fails otherwise an exception of another type than before
offered         an entry point, option or layout that did not exist before
withdrawn       an entry point, option or layout that no longer exists
interface       the signature, layout or results of the loss differ
=============== ===========================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oracle.ladder.answers import Answers
from oracle.ladder.inside.messages import Message
from oracle.ladder.questions import Question

# Relative to the largest element. In half precision: a few units in the last place, since the reference sums in the dtype of the logits.
ROUNDING = {"float64": 1e-9, "float32": 1e-5, "float16": 5e-3, "bfloat16": 4e-2}
QUIET = ("same", "rounding")


@dataclass(frozen=True)
class Change:
    """The verdict on one question to two releases.

    Attributes:
        before: the earlier release.
        release: the later one.
        question: the question.
        verdict: one of the module's table.
        array: name of the array that differs most, or names of the interface's fields that differ.
        size: largest difference, relative to the largest element; NaN where it is undefined.
        message: message of the later release, or the values before → after.
    """

    before: str
    release: str
    question: Question
    verdict: str
    array: str = ""
    size: float = 0.0
    message: str = ""

    @property
    def quiet(self) -> bool:
        """Whether the answers are the same or differ by rounding only."""
        return self.verdict in QUIET


def compare(before: Answers, after: Answers, questions: Sequence[Question]) -> list[Change]:
    """Returns one record for each question; none when either release could not be asked."""
    if not (before.asked and after.asked):
        return []
    return [compare_one(before, after, question) for question in questions]


def compare_one(before: Answers, after: Answers, question: Question) -> Change:
    """Returns the verdict on one question."""
    old, new = before.replies[question.name], after.replies[question.name]
    verdict, array, size, message = judge(old, new, question)
    return Change(before.release, after.release, question, verdict, array, size, message)


def judge(old: Message, new: Message, question: Question) -> tuple[str, str, float, str]:
    """Returns verdict, array, size and message."""
    was, now = old.fields["outcome"], new.fields["outcome"]
    message = str(new.fields.get("message", ""))
    if was == now == "answered":
        return judge_interface(old, new) if question.entry_point == "interface" else judge_arrays(old, new, question.dtype)
    if was == now:
        alike = was == "not offered" or kind_of_error(old) == kind_of_error(new)
        return ("same", "", 0.0, message) if alike else ("fails otherwise", "", np.nan, f"{old.fields['message']} → {message}")
    if "not offered" in (was, now):
        return ("offered", "", np.nan, message) if was == "not offered" else ("withdrawn", "", np.nan, message)
    if was == "answered":
        return "raises", "", np.nan, message
    if now == "answered":
        return "accepts", "", np.nan, str(old.fields.get("message", ""))
    return "fails otherwise", "", np.nan, f"{was} → {now}: {message}"


def kind_of_error(reply: Message) -> str:
    """Returns the type of the exception; a change of its text alone is no change."""
    return str(reply.fields.get("message", "")).split(":")[0]


def judge_interface(old: Message, new: Message) -> tuple[str, str, float, str]:
    """Compares the fields of the interface."""
    was, now = old.fields["interface"], new.fields["interface"]
    different = [name for name in {**was, **now} if was.get(name) != now.get(name)]
    words = "; ".join(f"{name}: {was.get(name)} → {now.get(name)}" for name in different)
    return ("interface", ", ".join(different), np.nan, words) if different else ("same", "", 0.0, "")


def judge_arrays(old: Message, new: Message, dtype: str) -> tuple[str, str, float, str]:
    """Compares arrays by their largest relative difference."""
    if old.arrays.keys() != new.arrays.keys():
        names = ", ".join(sorted(old.arrays.keys() ^ new.arrays.keys()))
        return "changed", names, np.nan, f"{names}: given by one of the two alone"
    sizes = {name: difference(array, new.arrays[name]) for name, array in old.arrays.items()}
    worst = max(sizes, key=lambda name: sizes[name], default="")
    size = sizes.get(worst, 0.0)
    if size == 0:
        return "same", "", 0.0, ""
    words = ""
    if worst in old.arrays and old.arrays[worst].size == 1:
        words = f"{old.arrays[worst].item():.9g} → {new.arrays[worst].item():.9g}"
    return ("rounding" if size <= ROUNDING[base_dtype(dtype)] else "changed"), worst, size, words


def base_dtype(dtype: str) -> str:
    """Returns the dtype of the lowest precision in a setting's name."""
    return next(name for name in ("bfloat16", "float16", "float32", "float64") if name in dtype)


def difference(old: NDArray[Any], new: NDArray[Any]) -> float:
    """Returns the largest difference relative to the largest finite element; infinite where shapes or non-finite elements differ.

    For indices, where -1 stands for none, it is the share of indices that differ.
    """
    if old.shape != new.shape:
        return np.inf
    if np.issubdtype(old.dtype, np.integer):
        return float((old != new).sum() / max(((old >= 0) | (new >= 0)).sum(), 1))
    first, second = old.astype(np.float64), new.astype(np.float64)
    if not np.array_equal(np.isfinite(first), np.isfinite(second)):
        return np.inf
    finite = np.isfinite(first)
    if not np.array_equal(first[~finite], second[~finite], equal_nan=True):
        return np.inf
    gap = np.abs(first[finite] - second[finite])
    if not gap.size or not gap.max():
        return 0.0
    return float(gap.max() / max(np.abs(first[finite]).max(), np.abs(second[finite]).max()))
