"""The rows of a comparison: one for each contender, stage and quantity."""

from __future__ import annotations

import platform
from dataclasses import dataclass

import torch

import twinloss
from oracle.comparison.compare import Comparison, ContenderResult
from oracle.comparison.registry import reference_version
from oracle.contract.verdict import Judgement, Verdict
from oracle.tools.printable import printable

MOST_CHARACTERS = 20_000
"""Largest number of characters of a text in a row."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One judgement: a contender, a case in a setting, a stage and a quantity.

    Attributes:
        workload, case, source, tags: name of the workload, digest of the case, origin of the boxes, tags of the case.
        contender, version: the contender.
        stage, quantity: the compared quantity.
        dtype, device: dtype of the logits with the autocast, and device.
        verdict, reason: the verdict, and the reason if it is AMBIGUOUS or NOT COMPARED; the warnings in the row of the conduct's warnings.
        error, allowance, error_over_allowance: error and tolerance of the worst element; not-a-number for decisions.
        kinks, kink_reach: as in :class:`~oracle.contract.verdict.Judgement`.
        margin: the smallest margin of a decision in units of its tolerance; a decision below 1 is open.
        decisions, open_decisions, ambiguous_decisions: counts of this row's kind; the row "holders" has the total of its stage.
        seconds: time of this contender on this case; the first contender's includes that of the definition and the reference.
        detail, replay: the finding as text, empty if nothing differs; the command that repeats the case, if it was saved.
        task: task of the loss.
        isolated: 1 for a contender in a process of its own, 0 for one in the judge's.
        example: 1 for a case that was made smaller and saved after the run drew it; reports show it, and do not count it.
        torch, ultralytics, twinloss, python: versions.
        profile, seed: profile and seed of the run.
    """

    workload: str
    case: str
    contender: str
    version: str
    stage: str
    quantity: str
    dtype: str
    device: str
    verdict: str
    error: float
    allowance: float
    error_over_allowance: float
    margin: float
    decisions: int
    open_decisions: int
    ambiguous_decisions: int
    seconds: float
    torch: str
    ultralytics: str
    twinloss: str
    python: str
    profile: str
    seed: str
    source: str
    tags: str
    reason: str
    detail: str
    replay: str
    kinks: int = 0
    kink_reach: float = float("nan")
    example: int = 0
    task: str = "detect"
    isolated: int = 0


@dataclass(frozen=True)
class Run:
    """Fields that all rows of a run share: profile, seed, origin of the boxes, and whether the case is an example."""

    profile: str
    seed: str
    source: str = "generated"
    example: bool = False


def rows_of(comparison: Comparison, run: Run) -> list[Row]:
    """Returns the rows of a comparison, one for each contender and judgement."""
    return [_row(comparison, result, judgement, run) for result in comparison.results for judgement in result.judgements]


def _row(comparison: Comparison, result: ContenderResult, judgement: Judgement, run: Run) -> Row:
    case, setting = comparison.case, comparison.setting
    differs = judgement.verdict is Verdict.DIFFER
    return Row(
        workload=case.workload,
        case=case.digest,
        contender=result.contender.name,
        version=result.contender.version,
        stage=judgement.stage,
        quantity=judgement.quantity,
        dtype=setting.name,
        device=setting.device,
        verdict=str(judgement.verdict),
        error=judgement.error,
        allowance=judgement.allowance,
        error_over_allowance=judgement.error_over_allowance,
        margin=judgement.margin,
        decisions=judgement.decisions,
        open_decisions=judgement.open_decisions,
        ambiguous_decisions=judgement.ambiguous_decisions,
        seconds=result.seconds,
        torch=torch.__version__,
        ultralytics=reference_version(),
        twinloss=twinloss.__version__,
        python=platform.python_version(),
        profile=run.profile,
        seed=run.seed,
        source=run.source,
        tags=" ".join(case.tags),
        reason=printable(judgement.reason, MOST_CHARACTERS),
        detail=printable("\n".join(judgement.finding.lines()), MOST_CHARACTERS) if judgement.finding else "",
        replay=result.replay if differs else "",
        kinks=judgement.kinks,
        kink_reach=judgement.kink_reach,
        example=int(run.example),
        task=case.spec.task,
        isolated=int(result.contender.isolated),
    )
