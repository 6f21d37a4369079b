"""Every comparison as a row, and rows as a parquet file."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterable
from dataclasses import MISSING, asdict, dataclass, fields
from functools import cache
from pathlib import Path

import torch

import twinloss
from oracle.comparison.compare import Comparison, Said
from oracle.comparison.registry import REFERENCE_DISTRIBUTIONS
from oracle.contract.verdict import Judgement, Verdict
from oracle.tools.atomic_files import write_frame
from oracle.tools.printable import plain

MOST = 20_000
"""Characters of a row's text."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One judgement: a contender, a case in a setting, a stage and a quantity.

    Attributes:
        workload, case, source, tags: where the boxes come from, the case's digest, where its workload was read, its tags.
        contender, version: who was judged.
        stage, quantity: what was compared.
        dtype, device: of the logits, with the surrounding autocast.
        verdict, reason: the outcome, and why it is AMBIGUOUS or NOT COMPARED; of the conduct's warnings, what they say.
        error, allowance, error_over_allowance: of the worst element; no numbers where decisions were compared.
        kinks, kink_reach: how many numbers lie at a kink, where the definition is an interval, and how far into one the contender stands
            at most: 0 where the definition does, 1 at an end. What it stands within is no error.
        margin: the narrowest decision, in units of its tolerance; below 1 it is open.
        decisions, open_decisions, ambiguous_decisions: of this row's kind; the row of the holders has the total of its stage's.
        seconds: of all that was done for this contender on this case; what the definition and the reference took is the first's.
        detail, replay: the finding as text, empty where nothing differs, and the command that runs the case again, if it was saved.
        example: 1 for a case that was made smaller and saved, beside those that the run drew: it shows a difference, and is not counted.
        torch, ultralytics, twinloss, python: versions.
        profile, seed: of the run.
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


@dataclass(frozen=True)
class Run:
    """What all rows of a run share: its profile, its seed, where each workload's boxes were read or generated, and if they are examples."""

    profile: str
    seed: str
    source: str = "generated"
    example: bool = False


def rows_of(comparison: Comparison, run: Run) -> list[Row]:
    """The rows of a comparison, one for each contender and judgement."""
    return [_row(comparison, said, judgement, run) for said in comparison.said for judgement in said.judgements]


def _row(comparison: Comparison, said: Said, judgement: Judgement, run: Run) -> Row:
    case, setting = comparison.case, comparison.setting
    differs = judgement.verdict is Verdict.DIFFER
    return Row(
        workload=case.workload,
        case=case.digest,
        contender=said.contender.name,
        version=said.contender.version,
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
        seconds=said.seconds,
        torch=torch.__version__,
        ultralytics=reference_version(),
        twinloss=twinloss.__version__,
        python=platform.python_version(),
        profile=run.profile,
        seed=run.seed,
        source=run.source,
        tags=" ".join(case.tags),
        reason=plain(judgement.reason, MOST),
        detail=plain("\n".join(judgement.finding.lines()), MOST) if judgement.finding else "",
        replay=said.replay if differs else "",
        kinks=judgement.kinks,
        kink_reach=judgement.kink_reach,
        example=int(run.example),
    )


@cache
def reference_version() -> str:
    """Version of the installed reference, under whichever of its names."""
    installed = {distribution.metadata["Name"]: distribution.version for distribution in importlib.metadata.distributions()}
    return next((installed[name] for name in REFERENCE_DISTRIBUTIONS if name in installed), "not installed")


def write_rows(rows: Iterable[Row], path: Path) -> None:
    """Write rows as parquet; the file appears whole or not at all.

    Raises:
        ValueError: there are no rows: an empty file would read as a run in which nothing differed.
    """
    import pandas as pd  # Judging needs no pandas.

    table = pd.DataFrame([asdict(row) for row in rows])
    if table.empty:
        raise ValueError(f"there are no rows to write to {path}: nothing was compared")
    write_frame(table, path)


def read_rows(path: Path) -> list[Row]:
    """The rows that :func:`write_rows` wrote; columns that a row does not have are left out.

    Files that were written before kinks had columns hold none.

    Raises:
        ValueError: the file lacks a column.
    """
    import pandas as pd

    table = pd.read_parquet(path)
    if missing := [field.name for field in fields(Row) if field.name not in table and field.default is MISSING]:
        raise ValueError(f"{path} lacks the columns: {', '.join(missing)}")
    names = [field.name for field in fields(Row) if field.name in table]
    return [Row(**{str(name): value for name, value in record.items()}) for record in table[names].to_dict("records")]
