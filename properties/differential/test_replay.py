"""One saved batch again: FIXED, FAILED, or NOT COMPARED where it is declined."""

from __future__ import annotations

import pytest

from oracle.contract.verdict import Verdict
from properties.differential.recorder import Recorder
from properties.differential.saved_cases import load
from properties.tasks import task_of
from reports.escape import plain

VERDICTS = {Verdict.DIFFER: "FAILED", Verdict.NOT_COMPARED: "NOT COMPARED"}


def test_replay(digest: str, recorder: Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        saved = load(digest, recorder.cases)
    except ValueError as error:
        pytest.fail(str(error), pytrace=False)
    contenders = recorder.contenders(task_of(saved.case).name)
    name = next((name for name in contenders if name in recorder.candidates), saved.contender)
    if name not in contenders:
        pytest.fail(f"case {digest} was found with {name}: give it again, -- --replay {digest} --candidate {name}", pytrace=False)
    comparison = recorder.with_replay(recorder.compare(saved.case, saved.setting, [name], keep=False), digest)
    recorder.keep(comparison)
    verdict = VERDICTS.get(comparison.verdict, "FIXED")
    with capsys.disabled():
        print(f"\n{verdict}: {plain(name)} on {saved.case.digest} ({saved.setting.name})")  # noqa: T201
    if verdict != "FIXED":
        reasons = {judgement.reason for result in comparison.results for judgement in result.judgements}
        pytest.fail(plain(comparison.report() or f"it was not compared: {'; '.join(sorted(reasons))}"), pytrace=False)
