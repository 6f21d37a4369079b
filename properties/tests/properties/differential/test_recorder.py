"""The recorder of the differential run: what it says of those who hang or take the process along, after a process of its own was asked."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from oracle.cases.case import Box, Case, Prediction
from oracle.comparison.conduct import MODES, STAGE
from oracle.contract.verdict import Verdict
from properties.differential.plugin import RECORDER, pytest_configure_node
from properties.differential.recorder import Recorder
from properties.differential.run_folder import RunFolder
from properties.differential.saved_cases import SavedCase
from properties.tests.oracle.judge.helpers import FLOAT32
from twinloss import LossSpec

CASE = Case(LossSpec(num_classes=2, reg_max=4, strides=(8, 16)), (32, 32), 1, (Box(0, 1, 16, 16, 12, 12),), Prediction("near", spread=0.25))


@pytest.fixture(autouse=True)
def once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HUNG_ONCE", str(tmp_path / "once"))
    return tmp_path / "once"


def recorder_of(tmp_path: Path, name: str, time_limit: float) -> tuple[Recorder, str]:
    candidate = f"properties.selfcheck.sample_candidates:{name}"
    recorder = Recorder([candidate], "test", 1, tmp_path / "cases", time_limit=time_limit)
    recorder.folder = RunFolder.create(tmp_path / "rows.parquet")
    return recorder, candidate


def test_a_hang_that_another_process_does_not_see_is_none_but_this_one_is_not_trusted_again(tmp_path: Path) -> None:
    recorder, candidate = recorder_of(tmp_path, "computes_for_ever_at_times", 1.0)
    (said,) = recorder.compare(CASE, FLOAT32, [candidate]).results
    assert said.verdict is Verdict.AGREE
    assert {j.quantity for j in said.judgements if j.stage == STAGE} >= set(MODES), "what the other process found"
    (said,) = recorder.compare(CASE, FLOAT32, [candidate]).results
    assert {j.verdict for j in said.judgements} == {Verdict.NOT_COMPARED}
    assert "took more than the 1 s of processor time" in said.judgements[0].reason
    assert "repeated in a process of its own it answered" in said.judgements[0].reason
    assert recorder.all_left_out([candidate])
    assert not recorder.all_left_out([candidate, "twin"])


def test_a_note_of_a_process_that_was_ended_from_outside_accuses_nobody(tmp_path: Path, once: Path) -> None:
    once.touch()
    recorder, candidate = recorder_of(tmp_path, "ended_from_outside", 30.0)
    assert recorder.folder is not None
    SavedCase(CASE, FLOAT32, candidate, "", {}).write_to(recorder.folder.note)
    (note,) = recorder.folder.notes()
    assert "repeated in a process of its own it answered" in recorder.ended(note)
    recorder.flush()
    assert len(recorder.folder.parts()) == 1
    assert not (tmp_path / "cases").exists()


def test_who_hangs_in_native_code_is_named_by_what_a_process_of_its_own_does(tmp_path: Path) -> None:
    recorder, candidate = recorder_of(tmp_path, "hangs_in_native_code", 0.3)
    assert recorder.folder is not None
    SavedCase(CASE, FLOAT32, candidate, "", {}).write_to(recorder.folder.note)
    said = recorder.ended(recorder.folder.note)
    assert "with 0.3 s for a call, that one hung in native code, beyond what a signal can interrupt" in said
    assert "as it ended another one before" in recorder.ended(recorder.folder.note), "the next is believed"


def test_an_exception_that_passes_through_leaves_no_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, candidate = recorder_of(tmp_path, "silent", 30.0)
    assert recorder.folder is not None
    recorder.warm(CASE, FLOAT32)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("oracle.comparison.compare.why_declined", interrupted)
    with pytest.raises(KeyboardInterrupt):
        recorder.compare(CASE, FLOAT32, [candidate])
    assert recorder.folder.notes() == []


def test_a_note_names_who_is_being_called(tmp_path: Path) -> None:
    recorder, candidate = recorder_of(tmp_path, "silent", 30.0)
    assert recorder.folder is not None
    with recorder._recorded_call(SavedCase(CASE, FLOAT32, candidate, "", {})):
        assert [candidate in note.read_text("utf-8") for note in recorder.folder.notes()] == [True]
    with recorder._recorded_call(SavedCase(CASE, FLOAT32, "twin", "", {})):
        assert recorder.folder.notes() == [], "ours need no note"


def test_who_wants_to_be_alone_waits_for_the_others(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "rows.parquet")
    others = RunFolder(folder.path, "gw1")
    seen: list[str] = []

    def wait() -> None:
        with others.alone():
            seen.append("alone")

    with folder.turn():
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.3)
        seen.append("turn")
    thread.join()
    assert seen == ["turn", "alone"]
    folder.close()


def test_workers_are_told_what_the_controller_drew(tmp_path: Path) -> None:
    recorder, _ = recorder_of(tmp_path, "silent", 30.0)
    config = SimpleNamespace(stash={RECORDER: recorder}, option=SimpleNamespace(run_seed=5))
    node = SimpleNamespace(config=config, workerinput={"workerid": "gw0"})
    pytest_configure_node(node)
    assert recorder.folder is not None
    assert node.workerinput == {"workerid": "gw0", "run_seed": 5, "run_folder": str(recorder.folder.path)}
