"""``python -m properties.selfcheck.explained_faults``: are wrong implementations explained rightly?

Each planted fault, and pairs of them, stand for a candidate that shows its loss alone. Its answers to some batches are explained
(:mod:`oracle.comparison.explanations`); then the definition with what was named must give its answers to other batches, which the
explanation has not seen. ``right``: it does, or one that was named in its place because no batch told them apart, on all of them but for
the share that the explanation says it leaves. ``misleading``: none does. ``not explained``: nothing was named. ``not shown``: no batch
differs. Exit codes: 0 nothing misleads, 1 something does.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from hypothesis import HealthCheck, given, seed, settings

from oracle.cases.case import Case, Setting
from oracle.comparison.explanations import Explanation, Limits, counter_proof, explain_answers
from oracle.comparison.recorded_answers import RecordedAnswer, record
from oracle.comparison.wrong_definitions import catalogue
from oracle.contract.contender import Contender
from oracle.tools.atomic_files import write_frame
from oracle.tools.options import DETECT
from properties.selfcheck.planted_faults import CATALOGUE
from properties.selfcheck.planted_faults.fault import Fault, Result
from properties.selfcheck.planted_faults.parallel import print_line
from properties.strategies import PROFILES
from properties.tasks import TASKS
from twinloss import LossSpec

ROWS = Path("reports", "out", "explained_faults.parquet")
RIGHT, MISLEADING, NOT_EXPLAINED, NOT_SHOWN = "right", "misleading", "not explained", "not shown"
LIMITS = Limits(sample=3, beam=2, agreeing=15, depth=2)
SLACK = 0.05
"""Share of fresh batches by which a right explanation may do worse than on those that it was made from, beside two standard errors."""


@dataclass(frozen=True)
class Measured:
    """What an explanation was worth; a row of the table.

    Attributes:
        fault: the fault, or two faults.
        verdict: one of the four.
        explanation: the sentence.
        failing: number of failing batches that it was made from.
        fresh, agree: number of fresh batches on which the fault shows, and on which what was named gives its answers.
    """

    fault: str
    verdict: str
    explanation: str
    failing: int
    fresh: int
    agree: int


def both(first: Fault, second: Fault) -> Fault:
    """Returns a candidate with two faults."""

    def spec(given: LossSpec) -> LossSpec:
        for fault in (first, second):
            given = fault.spec(given) if fault.spec else given
        return given

    def before(preds: Any, batch: Any) -> tuple[Any, Any]:
        for fault in (first, second):
            preds, batch = fault.before(preds, batch) if fault.before else (preds, batch)
        return preds, batch

    def after(result: Result, preds: Any, batch: Any) -> Result:
        for fault in (first, second):
            result = fault.after(result, preds, batch) if fault.after else result
        return result

    return Fault(f"{first.name} + {second.name}", "", "", (*first.patches, *second.patches), spec, before, after, first.task)


def pairs(faults: Sequence[Fault], count: int, run_seed: int) -> list[Fault]:
    """Draws pairs of faults that break different sections."""
    draw = random.Random(run_seed)
    found: list[Fault] = []
    while len(found) < count:
        first, second = draw.sample(list(faults), 2)
        if first.section != second.section and first.name not in " + ".join(pair.name for pair in found):
            found.append(both(first, second))
    return found


def batches(count: int, run_seed: int, task: str = DETECT, profile: str = "tiny") -> list[Case]:
    """Draws batches."""
    found: list[Case] = []

    @seed(run_seed)
    @settings(max_examples=count, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(TASKS[task].cases(PROFILES[profile]))
    def draw(case: Case) -> None:
        found.append(case)

    draw()
    return found


def recorded(contender: Contender, drawn: Sequence[Case]) -> list[RecordedAnswer]:
    """Returns the contender's answers in float64, without those that it declines or fails to give."""
    answers = (record(case, Setting("float64"), contender) for case in drawn)
    return [answer for answer in answers if answer is not None]


def measured(fault: Fault, seen: Sequence[Case], fresh: Sequence[Case], limits: Limits = LIMITS) -> Measured:
    """Explains a fault by some batches, and holds the explanation against others."""
    found = explain_answers(recorded(fault.loss_only(), seen), limits=limits)
    if not found.failing:
        return Measured(fault.name, NOT_SHOWN, found.sentence(), 0, 0, 0)
    if not found.named:
        return Measured(fault.name, NOT_EXPLAINED, found.sentence(), found.failing, 0, 0)
    again = recorded(fault.loss_only(), fresh)
    proof = max((counter_proof(one, again) for one in _alternatives(found, fault.task)), key=lambda proof: proof.agree)
    share = found.explained / found.failing
    least = (share - SLACK - 2 * math.sqrt(share * (1 - share) / max(len(again), 1))) * len(again)
    return Measured(fault.name, RIGHT if proof.agree >= least else MISLEADING, found.sentence(), found.failing, proof.of, proof.agree)


def _alternatives(found: Explanation, task: str) -> Iterator[Explanation]:
    """Yields what was named, and what was named in its place because no batch told them apart."""
    yield found
    for variant in catalogue(task):
        if str(variant) in found.also:
            yield replace(found, variants=(*found.variants[:-1], variant))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = _options(arguments)
    torch.set_num_threads(1)
    faults = [fault for fault in CATALOGUE if fault.task == options.task and options.only in fault.name]
    if options.sample is not None:
        faults = random.Random(options.run_seed).sample(faults, min(options.sample, len(faults)))
    chosen = pairs(faults, options.pairs, options.run_seed) if options.pairs else faults
    part, parts = map(int, options.part.split("/"))
    chosen = chosen[part - 1 :: parts]
    seen = batches(options.batches, options.run_seed, options.task)
    fresh = batches(options.batches, options.run_seed + 1, options.task)
    rows = []
    for fault in chosen:
        rows.append(measured(fault, seen, fresh))
        print_line(f"{rows[-1].verdict:<14} {fault.name}: {rows[-1].explanation}")
        write_frame(pd.DataFrame([asdict(row) for row in rows]), options.rows)
    counts = Counter(row.verdict for row in rows)
    print_line(", ".join(f"{counts[verdict]} {verdict}" for verdict in (RIGHT, NOT_EXPLAINED, MISLEADING, NOT_SHOWN)))
    return int(counts[MISLEADING] > 0)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m properties.selfcheck.explained_faults", description="Are wrong implementations explained?")
    parser.add_argument("--only", default="", metavar="TEXT", help="only faults whose name contains TEXT")
    parser.add_argument("--task", default=DETECT, choices=TASKS, help="the task whose faults are explained (default: %(default)s)")
    parser.add_argument("--sample", type=int, metavar="N", help="only N of the faults, drawn at random")
    parser.add_argument("--pairs", type=int, default=0, metavar="N", help="N pairs of faults instead of single ones")
    parser.add_argument("--part", default="1/1", metavar="K/N", help="only the K-th of N parts, for several processes")
    parser.add_argument(
        "--batches", type=int, default=40, metavar="N", help="batches to explain, and as many to confirm (default: %(default)s)"
    )
    parser.add_argument("--run-seed", type=int, default=0, metavar="SEED", help="seed of batches and pairs (default: %(default)s)")
    parser.add_argument("--rows", type=Path, default=ROWS, metavar="FILE", help="file for the rows (default: %(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
