"""An entry of the register, and the answers that the contenders give to its question on its minimal batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from oracle.cases.build import build
from oracle.cases.case import Case, Setting
from oracle.cases.tasks import task_of
from oracle.comparison.registry import TWINS, shipped
from oracle.contract.contender import Contender
from oracle.contract.run import make_criterion
from properties.divergences.input_edits import Edit
from properties.divergences.questions import Question

Right = Literal["reference", "twin", "both", "open"]


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """One known difference between the definition, the reference and the twin, or between all of them and the expected answer.

    Attributes:
        name: short name, for tests and links.
        what: the difference, in one sentence.
        stage: stage of the pipeline.
        section: section of the specification.
        case: recipe of the minimal batch.
        edit: change of the built batch that no recipe can express, such as a NaN, a dtype or an order of rows.
        setting: dtype and autocast.
        question: function that asks a contender and returns its answer as text.
        answers: recorded answers by name of the contender; another answer makes the entry stale.
        expected: the answer that the papers suggest, if all contenders answer differently.
        preferred: the contender with the better answer.
        why: the reason for the preference and for the twin's behaviour.
        since: first release of the reference with this behaviour; empty if only the installed release was asked.
        link: address of a report upstream, if there is one.
    """

    name: str
    what: str
    stage: str
    section: str
    case: Case
    question: Question
    answers: Mapping[str, str]
    preferred: Right
    why: str
    edit: Edit | None = None
    setting: Setting = Setting()
    expected: str = ""
    since: str = ""
    link: str = ""

    def observed(self) -> dict[str, str]:
        """Returns the present answers of the contenders named in ``answers``."""
        return {name: answer_of(contenders(self.case.spec.task)[name], self) for name in self.answers}


def twin_as_defined(*, answers: tuple[str, str], **fields: Any) -> Divergence:
    """Returns an entry of which the twin gives the definition's answer: ``answers`` are that one, and the reference's."""
    ours, reference = answers
    return Divergence(answers={"definition": ours, "reference": reference, "twin": ours}, preferred="twin", **fields)


def refused(*, reference: str, named: str, **fields: Any) -> Divergence:
    """Returns an entry on input on which definition and twin raise a ValueError, which names what ``named`` says."""
    why = f"An error that names the {named} can be corrected; a wrong loss without an error stays unnoticed."
    return twin_as_defined(answers=("ValueError", reference), stage="input", section="10", why=why, **fields)


def contenders(task: str = "detect") -> dict[str, Contender]:
    """Returns the contenders of a task by their names in the register."""
    ours = shipped(task)
    pickers = Contender("pickers", ours["twin"].version, partial(TWINS[task], conflicts="pickers"), arithmetic="float32")
    return {
        "definition": ours["exact"],
        "reference": ours["reference"],
        "twin": ours["twin"],
        'twin, ties="reference"': ours["twin-reference-ties"],
        'twin, conflicts="pickers"': pickers,
    }


def answer_of(contender: Contender, entry: Divergence) -> str:
    """Returns a contender's answer as text; an exception counts as an answer, by the name of its type."""
    inputs = build(entry.case, entry.setting)
    inputs = entry.edit(inputs) if entry.edit else inputs
    try:
        criterion = make_criterion(contender, entry.case.spec, entry.setting, task_of(entry.case).flow(entry.case))
        return entry.question(criterion, inputs, entry.setting)
    except Exception as error:
        return type(error).__name__
