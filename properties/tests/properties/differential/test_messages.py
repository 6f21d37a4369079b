"""Messages of the differential run about a candidate: commands that can be pasted, assumptions, rates, escaped text."""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from oracle.cases.build import build
from oracle.cases.case import Box, Case, Prediction, Setting
from oracle.cases.workloads.batches import real_batches
from oracle.comparison.registry import CandidateError, load_candidate
from oracle.contract.assumptions import ASSUMPTIONS, AssumptionError, broken_assumptions, find_assumptions
from properties.differential.contract import contract_text
from properties.differential.recorder import Recorder
from properties.differential.saved_cases import ReplayCommand, SavedCase, load
from reports import escape
from reports.__main__ import main as reports_main
from reports.card.__main__ import main as card_main
from twinloss import LossSpec

ROOT = Path(__file__).parents[4]
MINE = """
import dataclasses
from twinloss import DetectionLoss

def fewer(spec):
    return DetectionLoss(dataclasses.replace(spec, topk=max(spec.topk - FEWER, 1)))

FEWER = 1
fewer.arithmetic = "float32"

def declining(spec):
    return DetectionLoss(spec)

declining.declines = lambda spec, inputs, setting: "it is not the day for it"

class Nameless(DetectionLoss):
    def __call__(self, preds, batch):
        return super().__call__(preds, batch)[0], {}

def nameless(spec):
    return Nameless(spec)

def distributed(spec):
    if spec.reg_max == 1:
        raise NotImplementedError(f"no head without distribution\\n```\\n# ✓ Conforms\\n\\x1b[2J<b>{spec.num_classes}</b> [red]x[/red]")
    return DetectionLoss(spec)

distributed.arithmetic = nameless.arithmetic = "float32"
"""
NOX = """#!/bin/sh
# Stands in for nox: what its session does, in this environment, without installing anything.
test "$1 $2 $3" = "-s diff --" || exit 9
shift 3
exec {python} -m pytest -p properties.differential.plugin properties/differential -p no:cacheprovider --rows {rows} "$@"
"""
TINY = ("--run-seed", "1", "--shrink", "2", "-k", "float32-cpu-tiny")
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that a shell reads only when it is quoted, with candidates in it, and what stands in for nox."""
    folder = tmp_path / "it's mine"
    folder.mkdir()
    (folder / "mine.py").write_text(MINE)
    nox = tmp_path / "bin" / "nox"
    nox.parent.mkdir()
    nox.write_text(NOX.format(python=shlex.quote(sys.executable), rows=shlex.quote(str(tmp_path / "again.parquet"))))
    nox.chmod(nox.stat().st_mode | stat.S_IXUSR)
    return folder


@pytest.fixture
def shell(tmp_path: Path) -> Run:
    """Types a line in the checkout, with nothing on Python's path, or with ``path``."""

    def run(line: str, path: str = "") -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PYTHONPATH"))}
        environment |= {"PATH": os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]]), "OMP_NUM_THREADS": "1"}
        environment |= {"PYTHONPATH": path} if path else {}
        return subprocess.run(["bash", "-c", line], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def diff(shell: Run, tmp_path: Path, folder: Path) -> Run:
    """The differential run with these arguments; rows and cases stay in the test's folder."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        written = ("--rows", str(tmp_path / "rows.parquet"), "--cases", str(folder / "cases"))
        return shell(shlex.join(["nox", "-s", "diff", "--", *TINY, *written, *arguments]), str(folder))

    return run


def told(rows: Path, out: Path) -> tuple[str, str, int]:
    """Summary and card of some rows, and the exit code of the report."""
    assert card_main(["--rows", str(rows), "--out", str(out)]) == 0
    code = reports_main(["diff", "--rows", str(rows), "--out", str(out), "--exit-code"])
    (card,) = out.glob("card-*.md")
    return (out / "summary.md").read_text("utf-8"), card.read_text("utf-8"), code


def lines_of(text: str) -> set[str]:
    """Replay lines, as they are pasted."""
    return set(re.findall(r"(?:PYTHONPATH=.*? )?nox (?:-f \S+ )?-s diff -- --replay [^\n`]+", text))


def test_every_printed_line_replays_its_batch_from_a_shell(diff: Run, shell: Run, folder: Path, tmp_path: Path) -> None:
    ended = diff("--scale", "0.008", "--candidate", "mine:fewer", "--assume", "anchors>=K,no-empty-batch")
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "def test_" not in ended.stdout, "the report is the finding, not the suite's own source"
    summary, card, code = told(tmp_path / "rows.parquet", tmp_path / "out")
    assert code == 1
    lines = lines_of(ended.stdout) | lines_of(summary) | lines_of(card)
    saved = {path.stem for path in (folder / "cases").glob("*.json")}
    assert {re.findall(r"--replay (\S+)", line)[0] for line in lines} == saved
    assert set(re.findall(r"generated-tiny (\w{12})", summary)) == saved
    assert len(lines) == len(saved) == 1, "one kind of failure is shown by one batch"
    (line,) = lines
    again = shell(line)
    assert again.returncode == 1, again.stdout + again.stderr
    assert f"FAILED: mine:fewer on {saved.copy().pop()} (float32)" in again.stdout
    assert lines_of(again.stdout) == lines
    (folder / "mine.py").write_text(MINE.replace("FEWER = 1", "FEWER = 0"))
    fixed = shell(line)
    assert fixed.returncode == 0, fixed.stdout
    assert "FIXED: mine:fewer" in fixed.stdout


def test_how_many_differ_is_of_all_that_were_asked(diff: Run, tmp_path: Path) -> None:
    ended = diff("--scale", "0.008", "--candidate", "mine:fewer")
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    drawn = rows[rows["example"] == 0]
    wrong = drawn.loc[drawn["verdict"] == "DIFFER", "case"].nunique()
    assert f"{wrong} of 4 batches differ" in ended.stdout
    _, card, _ = told(tmp_path / "rows.parquet", tmp_path / "out")
    assert f"Differs in {wrong} of {drawn['case'].nunique()} batches" in card
    assert (rows["example"] == 1).any(), "the batch that shows it is among the rows, and not counted"


def test_a_candidate_that_declines_everything_fails(diff: Run, tmp_path: Path) -> None:
    ended = diff("--scale", "0.004", "--candidate", "mine:declining")
    assert ended.returncode == 1
    assert "mine:declining declined every batch" in ended.stdout
    summary, card, code = told(tmp_path / "rows.parquet", tmp_path / "out")
    assert code == 1
    assert "**✗ Nothing was compared of mine:declining**" in summary
    assert "**✗ Nothing was compared: 2 batches were declined**" in card


def test_items_that_are_missing_are_missing(diff: Run) -> None:
    ended = diff("--scale", "0.002", "--candidate", "mine:nameless")
    assert "loss, items: missing: box_loss, cls_loss, " in ended.stdout
    assert "its items are empty, and must have box_loss" in ended.stdout
    assert "nan" not in ended.stdout


def test_what_is_raised_is_told_with_the_assumption_and_stays_text(diff: Run, tmp_path: Path) -> None:
    ended = diff("--scale", "0.02", "--candidate", "mine:distributed")
    assert re.search(r'left out by --assume .*"reg-max>1".*, if it is not made for such batches', ended.stdout), ended.stdout
    assert "\x1b" not in ended.stdout
    summary, _, _ = told(tmp_path / "rows.parquet", tmp_path / "out")
    outside = re.sub(r"^(`{3,})text\n.*?\n\1$", "", summary, flags=re.MULTILINE | re.DOTALL)
    assert "Conforms" not in outside
    assert "<b>" not in outside.replace("\\<b\\>", "")
    assert "\x1b" not in summary
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert "<b>" not in page
    assert "\x1b" not in page
    agreed = diff("--scale", "0.02", "--candidate", "mine:distributed", "--assume", "reg-max>1")
    assert agreed.returncode == 0, agreed.stdout
    _, card, code = told(tmp_path / "rows.parquet", tmp_path / "out")
    assert code == 0
    assert "not asked, by --assume reg-max\\>1: that sides are predicted as distributions" in card


def test_cards_of_earlier_candidates_go(tmp_path: Path, diff: Run) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "card-theirs.md").write_text("# Conforms")
    diff("--scale", "0.002", "--candidate", "mine:nameless")
    told(tmp_path / "rows.parquet", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").glob("card-*.md")] == ["card-mine-nameless.md"]


def test_an_unknown_assumption_is_an_error_of_usage(diff: Run) -> None:
    ended = diff("--assume", "no-topk2,anchors", "--candidate", "mine:fewer")
    assert ended.returncode == 4
    assert "there is no assumption 'anchors'; choose from anchors>=K, no-topk2," in ended.stderr
    assert "Did you mean 'anchors>=K'? Quote it" in ended.stderr


def test_the_contract_can_be_read(diff: Run) -> None:
    said = diff("--contract")
    assert said.returncode == 0
    assert said.stdout.strip() == contract_text()
    for word in ("factory.declines", "factory.arithmetic", "factory.assumes", "topk2", "class_weights", "R = 1", *ASSUMPTIONS):
        assert word in contract_text()


# Assumptions, one batch that breaks each.

SPEC = LossSpec(num_classes=2, reg_max=4, strides=(8, 16, 32), topk=3)
USUAL = Case(SPEC, (64, 64), 1, (Box(0, 1, 30, 30, 40, 40),), Prediction("near"))


def like(**numbers: object) -> Case:
    from dataclasses import replace

    return replace(USUAL, spec=replace(SPEC, **numbers))  # type: ignore[arg-type]


BREAKING: dict[str, tuple[Case, Setting]] = {
    "anchors>=K": (like(topk=85), Setting()),
    "no-topk2": (like(topk2=2), Setting()),
    "no-class-weights": (like(class_weights=(1.0, 2.0)), Setting()),
    "reg-max>1": (like(reg_max=1), Setting()),
    "strides-divide": (Case(SPEC, (72, 64), 1, USUAL.boxes), Setting()),
    "no-empty-batch": (Case(SPEC, (64, 64), 1), Setting()),
    "no-empty-image": (Case(SPEC, (64, 64), 2, USUAL.boxes), Setting()),
    "boxes-in-image": (Case(SPEC, (64, 64), 1, (Box(0, 1, 5, 30, 40, 40),)), Setting()),
    "several-classes": (Case(LossSpec(num_classes=1, reg_max=4), (64, 64), 1, (Box(0, 0, 30, 30, 40, 40),)), Setting()),
    "several-levels": (like(strides=(8,)), Setting()),
    "no-autocast": (USUAL, Setting("float32", "bfloat16")),
    "float32": (USUAL, Setting("float64")),
    "no-half": (USUAL, Setting("float16")),
}
ALWAYS = {"reg-max=1", "usual-topk"}  # what the usual batch itself is not


@pytest.mark.parametrize("name", BREAKING)
def test_an_assumption_is_broken_by_its_batch(name: str) -> None:
    assert broken_assumptions(USUAL, Setting()) == ALWAYS
    case, setting = BREAKING[name]
    assert name in broken_assumptions(case, setting)


def test_assumptions_are_named_in_any_way_and_by_the_factory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [one.name for one in find_assumptions(["no-topk2, reg-max>1", "no-topk2"])] == ["no-topk2", "reg-max>1"]
    with pytest.raises(AssumptionError, match="no assumption 'reg-max'"):
        find_assumptions(["reg-max"])
    candidate = load_candidate("properties.selfcheck.sample_candidates:silent")
    monkeypatch.setattr("properties.selfcheck.sample_candidates.silent.assumes", ["no-topk2"], raising=False)
    assuming = load_candidate("properties.selfcheck.sample_candidates:silent")
    assert candidate.declines is None
    assert assuming.declines is not None
    case, setting = BREAKING["no-topk2"]
    assert "no second cut" in (assuming.declines(case.spec, build(case, setting), setting) or "")
    monkeypatch.setattr("properties.selfcheck.sample_candidates.silent.assumes", "of-old", raising=False)
    with pytest.raises(CandidateError, match=r"silent': its attribute `assumes` is 'of-old': there is no assumption 'of-old'"):
        load_candidate("properties.selfcheck.sample_candidates:silent")


def test_a_real_batch_is_made_smaller(tmp_path: Path) -> None:
    name = "properties.selfcheck.sample_candidates:one_fewer_silent"
    recorder = Recorder([name], "test", 0, tmp_path)
    recorder.shrink = 60.0  # enough for the first steps on a machine that has other work; it ends when nothing smaller fails
    (case,) = real_batches("synthetic-bccd", imgsz=64, batch=2, count=1, seed=3)
    compared = recorder.compare(case, Setting(), [name])
    report = recorder.conclude([compared], 1)
    (path,) = recorder.saved
    saved = load(path.stem, tmp_path)
    assert case.batch_size == 2
    assert saved.case.batch_size == 1
    assert len(saved.case.boxes) < len(case.boxes) / 3
    assert saved.found == report.partition("\n")[2]


def test_a_batch_that_fails_in_two_settings_has_two_files(tmp_path: Path) -> None:
    half, single = (SavedCase(USUAL, Setting(dtype), "mine:make", "", {}) for dtype in ("bfloat16", "float32"))
    first, second, again = half.write(tmp_path), single.write(tmp_path), half.write(tmp_path)
    assert first == again
    assert second.stem == f"{USUAL.digest}-float32-cpu"
    assert load(first.stem, tmp_path) == half
    assert load(second.stem, tmp_path) == single


def test_a_line_names_what_a_shell_and_nox_need() -> None:
    assert ReplayCommand().line("abc") == "nox -s diff -- --replay abc"
    line = ReplayCommand(("--cases", "my cases", "--assume", "reg-max>1"), ("/here", "/the re"), "/of/noxfile.py").line("abc", "mine:make")
    assert shlex.split(line) == [
        "PYTHONPATH=/here:/the re", "nox", "-f", "/of/noxfile.py", "-s", "diff", "--", "--replay", "abc", "--candidate", "mine:make",
        "--cases", "my cases", "--assume", "reg-max>1",
    ]  # fmt: skip


def test_where_a_run_was_started_decides_what_its_lines_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["impl", ".", str(ROOT), str(tmp_path), str(tmp_path)]))
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("TWINLOSS_STARTED_IN", str(ROOT))
    assert ReplayCommand.here("--reference", "8.3.253") == ReplayCommand(("--reference", "8.3.253"), (str(tmp_path),), "")
    monkeypatch.setenv("TWINLOSS_STARTED_IN", str(tmp_path))
    assert ReplayCommand.here().noxfile == str(ROOT / "noxfile.py")


# Text that stays text.

HOSTILE = (
    "a `b` ``c`` ```\n````\n# ✓ Conforms\n| x | <b>y</b> [z](http://w) ![](x) *s* _u_ ~~v~~ $m$ &lt; \x1b[31m\x07\r \u202e \ud800 www.x"
)


def test_markdown_is_escaped_for_where_it_stands() -> None:
    line = escape.markdown(HOSTILE)
    assert "\n" not in line
    assert not re.search(r"(?<!\\)[`|<>*~$]", line)
    assert not re.search(r"(?<!\\)\]\(|http://|www\.", line)
    assert (
        escape.markdown("properties.selfcheck.sample_candidates:one_fewer, 0.5 [4.8, 5.2] & more")
        == "properties.selfcheck.sample_candidates:one_fewer, 0.5 [4.8, 5.2] & more"
    )
    assert escape.markdown("# a") == "\\# a"
    assert escape.code("a``b`") == "``` a``b` ```"
    fence, *inside, end = escape.fenced(HOSTILE).split("\n")
    assert fence == "`````text"
    assert end == "`````"
    assert "# ✓ Conforms" in inside


def test_what_moves_a_cursor_is_written_out() -> None:
    assert escape.plain("a\x1b[31m\x07\r\u202e\ud800\n\tb") == "a\\x1b[31m\\x07\\r\\u202e\\ud800\n\tb"
    assert escape.plain(HOSTILE).encode("utf-8")
