"""All differences of a run are explained at once: batches travel through the run's folder, the explanation stands beside the rows."""

from __future__ import annotations

import json
from pathlib import Path

from oracle.cases.case import Box, Case, Prediction, Setting
from oracle.comparison.compare import Comparison, ContenderResult
from oracle.comparison.explanations import Limits
from oracle.contract.contender import Contender
from oracle.contract.verdict import Finding, Judgement, Verdict, differs
from oracle.definition.variant import VariedCriterion
from properties.differential.run_explanations import AnsweredBatches, RunExplanation, explained, write
from twinloss import LossSpec

SPEC = LossSpec(num_classes=2, reg_max=4, strides=(8, 16), topk=3)
BOXES = (Box(0, 1, 30, 30, 40, 24), Box(0, 0, 40, 24, 30, 36))
CASES = [Case(SPEC, (64, 64), 1, BOXES, Prediction("near", seed=seed)) for seed in range(4)]
EMPTY = Case(SPEC, (64, 64), 1, (), Prediction("near", seed=1))
FEW = Limits(sample=2, agreeing=2, depth=1)
FLOAT16 = Setting("float16")


class RoughInHalf:
    """The definition; with half-precision logits 1 % too large."""

    def __init__(self, spec: LossSpec) -> None:
        self.exact = VariedCriterion(spec, (), "reference")

    def __call__(self, preds: object, batch: object) -> object:
        loss, items = self.exact(preds, batch)  # type: ignore[arg-type]
        return loss * (1.01 if str(preds["scores"].dtype) == "torch.float16" else 1.0), items  # type: ignore[index]


def silent(factory: object) -> Contender:
    return Contender("mine:make", "", factory, time_limit=30.0)  # type: ignore[arg-type]


FEWER = silent(lambda spec: VariedCriterion(LossSpec(**{**vars(spec), "topk": spec.topk - 1}), (), "reference"))


def compared(case: Case, contender: Contender, verdict: Verdict, setting: Setting) -> Comparison:
    finding = differs(Finding("loss", "loss", "differs"))
    judgement = finding if verdict is Verdict.DIFFER else Judgement("loss", "loss", verdict)
    return Comparison(case, setting, [ContenderResult(contender, [judgement], 0.0)])


def run(folder: Path, contender: Contender, setting: Setting = Setting("float32")) -> list[RunExplanation]:
    kept = AnsweredBatches(frozenset([contender.name]))
    for case in CASES:
        kept.add(compared(case, contender, Verdict.DIFFER, setting))
    kept.add(compared(EMPTY, contender, Verdict.AGREE, setting))
    kept.write(folder / "batches-gw0.jsonl")
    return explained([folder / "batches-gw0.jsonl"], {"detect": {contender.name: contender}}, FEW)


def test_all_failing_batches_are_explained_at_once(tmp_path: Path) -> None:
    (found,) = run(tmp_path, FEWER)
    assert (found.contender, found.task, found.explained, found.failing) == ("mine:make", "detect", 4, 4)
    assert found.names == ("K - 1 instead of K",)
    write([found], tmp_path / "rows.parquet")
    (entry,) = json.loads((tmp_path / "explanations.json").read_text("utf-8"))
    assert entry["sentence"].endswith("explains 4 of 4 batches")


def test_a_batch_with_an_open_decision_is_no_evidence(tmp_path: Path) -> None:
    """No definition need give the answer to it: the explanation of the others is to stay."""
    kept = AnsweredBatches(frozenset(["mine:make"]))
    for case in CASES:
        kept.add(compared(case, FEWER, Verdict.DIFFER, FLOAT16))
    kept.add(compared(EMPTY, FEWER, Verdict.AMBIGUOUS, FLOAT16))
    kept.write(tmp_path / "batches-main.jsonl")
    assert [json.loads(line)["differs"] for line in (tmp_path / "batches-main.jsonl").read_text("utf-8").splitlines()] == [True] * 4


def test_what_only_half_precision_shows_is_its_arithmetic(tmp_path: Path) -> None:
    (found,) = run(tmp_path, silent(RoughInHalf), FLOAT16)
    assert found.sentence.startswith("only the arithmetic differs, in float16: with float64 logits the definition is right [8a]")


def test_nothing_is_explained_where_nothing_differs_and_an_older_file_is_removed(tmp_path: Path) -> None:
    kept = AnsweredBatches(frozenset(["mine:make"]))
    kept.add(compared(EMPTY, FEWER, Verdict.AGREE, FLOAT16))
    kept.add(compared(EMPTY, FEWER, Verdict.NOT_COMPARED, FLOAT16))
    kept.write(tmp_path / "batches-main.jsonl")
    assert len((tmp_path / "batches-main.jsonl").read_text("utf-8").splitlines()) == 1
    (tmp_path / "explanations.json").write_text("[]", "utf-8")
    found = explained([tmp_path / "batches-main.jsonl"], {"detect": {"mine:make": FEWER}}, FEW)
    write(found, tmp_path / "rows.parquet")
    assert found == []
    assert not (tmp_path / "explanations.json").exists()
