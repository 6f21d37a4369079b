"""Wheels of real revisions, the options of the command, and measurements in real processes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pandas as pd
import pytest

from benches.gate import batches
from benches.gate import run as run_module
from benches.gate.__main__ import main, parsed
from benches.gate.decision import Decision, GateVerdict, Limits, RowFinding
from benches.gate.paired_processes import CALLS, TURNS, GateRow, SideBySide
from benches.gate.passes import Pair
from benches.gate.run import Outcome, records
from benches.gate.wheels import ROOT, RevisionError, commit_of, text_at, tree_at, unpacked
from benches.measure.case_files import save
from benches.measure.worker_client import WorkerError
from benches.plan.workloads import Workload
from oracle.tools.options import TASKS

in_a_repository = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="the checkout is not a repository")


def test_the_rows_are_the_ones_whose_names_are_committed() -> None:
    assert batches.NAMES.read_text("utf-8").splitlines() == batches.names()


def test_a_row_that_the_base_lacks_is_left_out() -> None:
    assert batches.comparable(["coco", "crowded", "one of the base alone"]) == ("coco", "crowded")
    assert {batches.task_of(name) for name in batches.names()} == set(TASKS)


def test_this_checkout_gives_a_wheel_to_import_from(tmp_path: Path) -> None:
    site = unpacked(ROOT, tmp_path)
    assert (site / "twinloss" / "loss.py").read_text("utf-8") == (ROOT / "impl" / "twinloss" / "loss.py").read_text("utf-8")
    assert not (site / "oracle").exists()


def test_a_tree_without_a_project_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RevisionError, match="no wheel can be built"):
        unpacked(tmp_path / "empty", tmp_path / "out")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    root.mkdir()
    (root / "rows.txt").write_text("coco\n")
    identity = ["-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "commit.gpgsign=false"]
    for arguments in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "first"]):
        subprocess.run(["git", *identity, *arguments], cwd=root, check=True)
    return root


def test_revisions_are_read_without_touching_the_checkout(repository: Path, tmp_path: Path) -> None:
    commit = commit_of("HEAD", repository)
    assert len(commit) == 40
    (repository / "rows.txt").write_text("changed\n")
    assert text_at(commit, "rows.txt", repository) == "coco\n"
    assert text_at(commit, "absent.txt", repository) == ""
    tree = tree_at(commit, tmp_path / "tree", repository)
    assert (tree / "rows.txt").read_text() == "coco\n"
    assert (repository / "rows.txt").read_text() == "changed\n"


def test_a_revision_that_does_not_exist_is_a_wrong_use(repository: Path) -> None:
    with pytest.raises(RevisionError, match="there is no revision 'nonsense'"):
        commit_of("nonsense", repository)


@in_a_repository
def test_exit_code_of_a_wrong_revision(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--against", "no-such-revision"]) == 2
    assert "there is no revision 'no-such-revision'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--against"),
        (["--against", "HEAD", "--pairs", "3"], "at least 8 pairs"),
        (["--against", "HEAD", "--threshold", "0.9"], "must be above 1"),
        (["--against", "HEAD", "--row", "nothing"], "invalid choice"),
    ],
)
def test_exit_code_of_wrong_options(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parsed(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_options_reach_the_run() -> None:
    options, out = parsed(["--against", "v1", "--threshold", "1.2", "--drop", "coco", "--allow", "one image:peak_step", "--out", "there"])
    assert (options.against, options.limits.slower, options.pairs, options.threads) == ("v1", 1.2, 8, 1)
    assert (options.dropped, options.allowed, out) == (("coco",), ("one image:peak_step",), Path("there"))


def test_two_real_processes_are_measured_in_turns(tmp_path: Path) -> None:
    case = Workload("small", "two small images", boxes=5, batch=2, imgsz=64, num_classes=3).case()
    row = GateRow("small", save(case, tmp_path))
    impl = ROOT / "impl"
    pairs = SideBySide(impl, impl, {"small": row})(["small"], cluster=5)
    assert {(pair.row, pair.program, pair.cluster) for pair in pairs} == {("small", "twin", 5), ("small", "reference", 5)}
    assert len(pairs) == TURNS * len(CALLS)
    for pair in pairs:
        for side in (pair.base, pair.head):
            assert set(side) == {"cpu", "wall"}
            assert min(side.values()) > 0


def test_records_hold_every_finding_note_and_estimate() -> None:
    pairs = tuple(
        Pair("coco", program, cluster, {"cpu": 100, "wall": 200}, {"cpu": 120, "wall": 200})
        for program in ("twin", "reference")
        for cluster in range(8)
    )
    finding, note = RowFinding(GateVerdict.FAIL, "coco", "slower"), RowFinding(GateVerdict.INCONCLUSIVE, "coco", "moved")
    outcome = Outcome(Decision(GateVerdict.FAIL, (finding,), (note,)), (pairs,), "cpu", "b" * 40, "head", Limits())
    frame = pd.DataFrame(list(records(outcome)))
    assert frame["kind"].tolist() == ["finding", "note", *["estimate"] * 4]
    assert set(frame["outcome"]) == {"FAIL"}
    cpu = frame[(frame["clock"] == "cpu") & (frame["program"] == "twin")].iloc[0]
    assert (cpu["ratio"], cpu["pairs"], cpu["threshold"]) == (pytest.approx(1.2), 8, 1.10)


class Broken:
    """A worker whose twin raises on one of the rows."""

    def __init__(self, *_: object, **__: object) -> None:
        self.case_folder = ""

    def ask(self, do: str, /, **arguments: object) -> dict[str, object]:
        if do == "open":
            failing = str(arguments["case_folder"]) == "bad"
            return {"failures": {"twin/auto": "ValueError: no"} if failing else {}}
        return {"twin/auto": {"peak_step": 5}}

    def __enter__(self) -> Broken:  # noqa: PYI034 - as the worker's own
        return self

    def __exit__(self, *_: object) -> None: ...


def test_a_twin_that_raises_fails_at_the_head_and_is_a_wrong_use_at_the_base(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "Worker", Broken)
    rows = {"good": GateRow("good", Path("good")), "bad": GateRow("bad", Path("bad"))}
    counts, failures = run_module.exact_counts(Path(), rows, 1, forgiving=True)
    assert counts == {"good": {"peak_step": 5}}
    (failure,) = failures
    assert (failure.verdict, failure.row) == (GateVerdict.FAIL, "bad")
    assert "the twin cannot be called on bad: ValueError: no" in failure.text
    with pytest.raises(WorkerError, match="the twin cannot be called on bad"):
        run_module.exact_counts(Path(), rows, 1, forgiving=False)
