"""What an entry of the register is, and how it is put to the test: the same question to everyone, on a minimal batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from oracle.cases.case import Case, Setting
from oracle.comparison.registry import shipped
from oracle.contract.contender import Contender
from oracle.contract.run import make_criterion
from properties.divergences.input_edits import Edit
from properties.divergences.questions import Question
from twinloss import DetectionLoss

Right = Literal["reference", "twin", "both", "open"]


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """One known difference between the definition, the reference and the twin, or between all of them and what one would expect.

    Attributes:
        name: short, for tests and links.
        what: one sentence.
        stage: where in the pipeline.
        section: of the specification.
        case: minimal batch, a recipe.
        change: what is done to the batch as built, where no recipe says it: a NaN, a dtype, an order.
        setting: dtype and autocast.
        ask: the question put to everyone named in ``answers``.
        says: answers by name, as they were observed; an answer of today that is not the recorded one makes the entry stale.
        expected: what one would expect of the papers, where everyone asked answers otherwise.
        right: whose answer is to be preferred.
        why: the reason for that, and for what the twin does.
        since: first release of the reference that is known to behave so; empty where only the one installed was asked.
        link: to a report upstream, where there is one.
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
        """What everyone named in ``answers`` answers today."""
        return {name: answer_of(contenders()[name], self) for name in self.answers}


def contenders() -> dict[str, Contender]:
    """Who can be asked, by the name in the register."""
    ours = shipped()
    pickers = Contender("pickers", ours["twin"].version, partial(DetectionLoss, conflicts="pickers"), arithmetic="float32")
    return {
        "definition": ours["exact"],
        "reference": ours["reference"],
        "twin": ours["twin"],
        'twin, ties="reference"': ours["twin-reference-ties"],
        'twin, conflicts="pickers"': pickers,
    }


def answer_of(contender: Contender, entry: Divergence) -> str:
    """A contender's answer as text; an exception is an answer, by its type."""
    inputs = entry.case.build(entry.setting)
    inputs = entry.edit(inputs) if entry.edit else inputs
    try:
        return entry.question(make_criterion(contender, entry.case.spec, entry.setting), inputs, entry.setting)
    except Exception as error:
        return type(error).__name__
