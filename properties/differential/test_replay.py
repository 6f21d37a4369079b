"""One saved batch again: FIXED or FAILED."""

from __future__ import annotations

import pytest

from oracle.contract.verdict import Verdict
from properties.differential.recorder import Recorder
from properties.differential.saved_cases import load


def test_replay(digest: str, recorder: Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        saved = load(digest, recorder.cases)
    except ValueError as error:
        pytest.fail(str(error), pytrace=False)
    given = [name for name in recorder.contenders if ":" in name]
    name = given[0] if given else saved.contender
    if name not in recorder.contenders:
        pytest.fail(f"case {digest} was found with {name}: give it again, -- --replay {digest} --candidate {name}", pytrace=False)
    comparison = recorder.compare(saved.case, saved.setting, [name])
    verdict = "FAILED" if comparison.verdict is Verdict.DIFFER else "FIXED"
    with capsys.disabled():
        print(f"\n{verdict}: {name} on {saved.case.digest} ({saved.setting.name})")  # noqa: T201
    if verdict == "FAILED":
        pytest.fail(comparison.report(), pytrace=False)
