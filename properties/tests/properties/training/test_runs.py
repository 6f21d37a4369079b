"""A run trains with the twin's hook, and needs no network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from oracle.tools.programs import run_python
from properties.tests.properties.training.helpers import PLAIN
from properties.training import schedule
from properties.training.runs import Options, Run, perform
from twinloss import hook

pytest.importorskip("oracle.reference.training")


def test_a_run_opens_no_connection(data: Path, tmp_path: Path) -> None:
    """The network is blocked from the first line of the interpreter on."""
    program = (
        "import sys; from pathlib import Path; from properties.tests.properties.training.no_network import offline\n"
        "with offline():\n"
        "    from properties.training.runs import Options, Run, perform\n"
        "    perform(Run('twin', 'twin', sys.argv[1], steps=1), Options(sys.argv[2], 64, 4, 1, ''), Path(sys.argv[3]))\n"
    )
    done = run_python("-c", program, PLAIN, data, tmp_path / "lines.jsonl")
    assert done.returncode == 0, done.stderr
    first, step = map(json.loads, (tmp_path / "lines.jsonl").read_text("utf-8").splitlines())
    assert first["whole"] == 2
    assert step["values"]["gradient norm"] > 0


def test_the_twin_s_own_hook_is_what_trains(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hooks: list[hook.Hook] = []
    install = hook.install

    def noted(target: Any, **options: Any) -> hook.Hook:
        hooks.append(install(target, **options))
        return hooks[-1]

    monkeypatch.setattr(hook, "install", noted)
    perform(Run("twin", "twin", str(PLAIN)), Options(str(data), 64, 4, 1, ""), tmp_path / "lines.jsonl")
    assert [one.training_calls for one in hooks] == [2]


@pytest.mark.parametrize(("task", "first"), [("detect", "twin"), ("segment", "tied"), ("oriented", "twin"), ("pose", "tied")])
def test_the_run_that_is_compared_step_by_step_has_the_references_ties_where_they_count(task: str, first: str) -> None:
    runs = schedule.twin_runs("small.yaml", 2, task)
    assert [run.role for run in runs] == [*(["tied"] if first == "tied" else []), "twin", "twin"]
    assert runs[0].role == first
    assert len({run.name for run in runs}) == len(runs)
