"""Explains all differences of a candidate in a run at once, when the run ends.

Every process of a run keeps the batches that candidates answered, wrongly or rightly, in a file of the run's folder. The process that joins
the rows asks the candidate again on them, with float64 logits where it takes these, and explains the answers
(:mod:`oracle.comparison.explanations`). What it finds stands beside the rows, in ``explanations.json``: the cards begin with it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from oracle.cases.case import Case, Setting
from oracle.comparison.compare import Comparison, ContenderResult
from oracle.comparison.conduct import STAGE as CONDUCT
from oracle.comparison.explain import explain_failures
from oracle.comparison.explanations import Explanation, Limits
from oracle.contract.contender import Contender
from oracle.contract.verdict import Verdict
from oracle.tools.atomic_files import write_text
from oracle.tools.printable import printable

MOST_FAILING, MOST_AGREEING = 400, 40
"""Largest numbers of batches of a candidate that a process keeps."""

LIMITS = Limits(failing=MOST_FAILING, agreeing=MOST_AGREEING, seconds=180.0)
FILE = "explanations.json"
Batch = tuple[Case, Setting]


class AnsweredBatches:
    """Keeps the batches of comparisons for their explanation.

    Args:
        candidates: names of the candidates.
    """

    def __init__(self, candidates: frozenset[str]) -> None:
        self.candidates = candidates
        self._lines: list[str] = []
        self._counts = Counter[tuple[str, str, bool]]()

    def add(self, comparison: Comparison) -> None:
        """Keeps the batch for every candidate that gave an answer."""
        for result in comparison.results:
            differs = _differs(result)
            if result.contender.name not in self.candidates or differs is None:
                continue
            kind = (result.contender.name, comparison.case.spec.task, differs)
            if self._counts[kind] < (MOST_FAILING if differs else MOST_AGREEING):
                self._counts[kind] += 1
                record = {
                    "contender": kind[0],
                    "differs": differs,
                    "setting": asdict(comparison.setting),
                    "case": comparison.case.to_json(),
                }
                self._lines.append(json.dumps(record))

    def write(self, path: Path) -> None:
        """Appends what was kept since the last call to a file."""
        if self._lines:
            with path.open("a", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in self._lines)
            self._lines.clear()


def _differs(result: ContenderResult) -> bool | None:
    """Whether a contender's numbers differ; ``None`` if it gave none, if only its conduct is at fault, or if a decision was open.

    An open decision may have fallen otherwise than under either rule for ties: then no definition gives the answer, right or wrong.
    """
    numbers = [finding for finding in result.findings if finding.stage != CONDUCT]
    if any(finding.quantity in ("raises", "call") for finding in result.findings):
        return None
    if numbers:
        return True
    return False if result.verdict is Verdict.AGREE else None


@dataclass(frozen=True)
class RunExplanation:
    """What explains a candidate's differences in a run; an entry of ``explanations.json``.

    Attributes:
        contender, task: the candidate and the task.
        sentence: the explanation as a sentence.
        names: names of the wrong definitions.
        explained, failing: number of failing batches that they explain, and of those tried.
        residual: largest relative difference left on the explained ones.
    """

    contender: str
    task: str
    sentence: str
    names: tuple[str, ...]
    explained: int
    failing: int
    residual: float


def explained(
    files: Sequence[Path],
    contenders: Mapping[str, Mapping[str, Contender]],
    limits: Limits = LIMITS,
    say: Callable[[str], object] = lambda _: None,
) -> list[RunExplanation]:
    """Explains the differences of every candidate whose numbers differ on a batch.

    Args:
        files: the files that :meth:`AnsweredBatches.write` wrote.
        contenders: by task and name.
        limits: how long to search.
        say: called with a line of text before each search, which takes up to minutes.
    """
    found = []
    for (name, task), (failing, agreeing) in _read(files).items():
        if failing and name in contenders.get(task, {}):
            say(f"searching for what explains the differences of {name} ({task}, {len(failing)} batches); this may take minutes")
            explanation = explain_failures(contenders[task][name], failing, agreeing, limits)
            found.append(_entry(name, task, explanation))
    return found


def _entry(name: str, task: str, explanation: Explanation) -> RunExplanation:
    names = tuple(variant.name for variant in explanation.variants)
    text = printable(explanation.sentence(), 2_000)
    return RunExplanation(name, task, text, names, explanation.explained, explanation.failing, explanation.residual)


def _read(files: Sequence[Path]) -> dict[tuple[str, str], tuple[list[Batch], list[Batch]]]:
    """Returns failing and agreeing batches by candidate and task."""
    found: dict[tuple[str, str], tuple[list[Batch], list[Batch]]] = {}
    for line in (line for path in files for line in path.read_text("utf-8").splitlines()):
        record: dict[str, Any] = json.loads(line)
        case = Case.from_json(record["case"])
        batches = found.setdefault((record["contender"], case.spec.task), ([], []))
        batches[0 if record["differs"] else 1].append((case, Setting(**record["setting"])))
    return found


def write(entries: Sequence[RunExplanation], rows: Path) -> None:
    """Writes the explanations beside the rows; those of an earlier run are removed where there are none."""
    path = rows.with_name(FILE)
    if entries:
        write_text(json.dumps([asdict(entry) for entry in entries], indent=1, ensure_ascii=False) + "\n", path)
    else:
        path.unlink(missing_ok=True)
