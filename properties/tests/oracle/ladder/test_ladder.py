"""The release ladder on artificial releases: the changes that it must find, and the failures that it must survive. No network."""

from __future__ import annotations

import dataclasses
import functools
import re
import textwrap
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from oracle.cases.build import build
from oracle.cases.case import Box, Case, Prediction, Setting
from oracle.ladder import __main__ as command
from oracle.ladder import install, releases
from oracle.ladder.answers import AnswerCache, Answers
from oracle.ladder.catalogue import all_questions, stage_questions
from oracle.ladder.changes import compare, difference, judge_arrays
from oracle.ladder.contender import ReleaseCriterion, ReleaseError, open_release
from oracle.ladder.definitions import Matcher, departure
from oracle.ladder.inside.eras import NotOfferedError, arrange
from oracle.ladder.inside.messages import Message, pack, unpack
from oracle.ladder.inside.stand_ins import GaussianFlow
from oracle.ladder.questions import SMALL, CaseKind, Question, questions
from oracle.ladder.release_process import Release
from oracle.ladder.rows import no_twin, rows
from oracle.ladder.search import first_changes
from oracle.ladder.task_catalogue import task_questions
from reports import markdown
from reports.ladder.__main__ import texts
from reports.ladder.report import KIND
from reports.ladder.tables import in_order
from reports.rows import validated
from twinloss import LossSpec

# A package that is called as the reference is and computes something else: enough to be asked, and to be changed.
UTILS = """
import torch

class v8DetectionLoss:
    def __init__(self, model, tal_topk=10{more}):
        self.gains = model.args.box, model.args.cls, model.args.dfl

    def __call__(self, preds, batch):
        {unpack}
        scale = {scale}
        if {refuses}:
            raise ValueError("refused")
        {dies}
        terms = torch.stack([boxes.float().square().mean(), scores.float().square().mean(), boxes.float().abs().mean()])
        terms = terms * torch.tensor(self.gains) * scale
        return {result}, terms.detach()
"""
MAPPING = 'boxes, scores = preds["boxes"], preds["scores"]'
MAPS = "flat = torch.cat([m.flatten(2) for m in preds], 2); boxes, scores = flat[:, :-3], flat[:, -3:]"


def release(
    folder: Path,
    version: str,
    *,
    place: str = "utils",
    unpack: str = MAPPING,
    scale: str = "1.0",
    refuses: str = "False",
    dies: str = "pass",
    result: str = "terms * boxes.shape[0]",
    more: str = "",
    needs: str = "",
) -> Path:
    """Returns the folder of an artificial release."""
    package = folder / version / "ultralytics"
    (package / place).mkdir(parents=True)
    for parent in (package, package / place):
        (parent / "__init__.py").write_text("")
    (package / "__init__.py").write_text(f"{needs}\n__version__ = {version!r}\nprint('hello')\n")
    text = UTILS.format(unpack=unpack, scale=scale, refuses=refuses, dies=dies, result=result, more=more)
    (package / place / "loss.py").write_text(textwrap.dedent(text))
    (package / place / "tal.py").write_text("class TaskAlignedAssigner:\n    def __init__(self, topk=13): ...\n")
    return folder / version


def few() -> tuple[Question, ...]:
    """Some questions: two kinds of batch, one without boxes, and the interface."""
    box = Box(0, 1, 30.0, 30.0, 24.0, 24.0)
    one = Case(SMALL, (32, 32), 1, (box,), Prediction("random", 1))
    case_kinds = (CaseKind("one box", (one,)), CaseKind("no boxes", (Case(SMALL, (32, 32), 1, (), Prediction("random", 1)),)))
    return (*questions(case_kinds), *(question for question in stage_questions() if question.entry_point == "interface"))


@functools.cache
def real_questions() -> tuple[Question, ...]:
    """Returns the questions that real releases are asked."""
    return all_questions()


def climb(tmp_path: Path, made: dict[str, Path]) -> AnswerCache:
    return AnswerCache(few(), tmp_path / "cache", made)


def verdicts(answers_of: AnswerCache, before: str, after: str) -> dict[str, str]:
    return {change.question.name: change.verdict for change in compare(answers_of(before), answers_of(after), few())}


class TestChangesAreFound:
    def test_nothing_changed(self, tmp_path: Path) -> None:
        answers_of = climb(tmp_path, {name: release(tmp_path, name) for name in ("8.0.1", "8.0.2")})
        assert set(verdicts(answers_of, "8.0.1", "8.0.2").values()) == {"same"}

    def test_values(self, tmp_path: Path) -> None:
        answers_of = climb(tmp_path, {"8.0.1": release(tmp_path, "8.0.1"), "8.0.2": release(tmp_path, "8.0.2", scale="1.001")})
        found = verdicts(answers_of, "8.0.1", "8.0.2")
        assert found["one box/0/loss/float32"] == found["no boxes/0/loss/float64"] == "changed"
        assert found["interface/0/interface/float32"] == "same"

    def test_rounding_is_no_change(self, tmp_path: Path) -> None:
        answers_of = climb(tmp_path, {"8.0.1": release(tmp_path, "8.0.1"), "8.0.2": release(tmp_path, "8.0.2", scale="1.0000003")})
        found = verdicts(answers_of, "8.0.1", "8.0.2")
        assert found["one box/0/loss/float32"] == "rounding"
        assert found["one box/0/loss/float64"] == "changed"  # far more than float64 rounds: the definition, or a precision, moved

    def test_refusing_and_accepting(self, tmp_path: Path) -> None:
        empty = 'len(batch["cls"]) == 0'
        answers_of = climb(tmp_path, {"8.0.1": release(tmp_path, "8.0.1"), "8.0.2": release(tmp_path, "8.0.2", refuses=empty)})
        assert verdicts(answers_of, "8.0.1", "8.0.2")["no boxes/0/loss/float32"] == "raises"
        assert verdicts(answers_of, "8.0.2", "8.0.1")["no boxes/0/loss/float32"] == "accepts"
        assert verdicts(answers_of, "8.0.1", "8.0.2")["one box/0/loss/float32"] == "same"

    def test_interfaces_and_eras(self, tmp_path: Path) -> None:
        old = release(tmp_path, "8.0.1", place="yolo/utils", unpack=MAPS, result="terms.sum() * boxes.shape[0]")
        (old / "ultralytics" / "yolo" / "__init__.py").write_text("")
        answers_of = climb(tmp_path, {"8.0.1": old, "8.0.2": release(tmp_path, "8.0.2", more=", tal_topk2=None")})
        assert [answers_of(name).greeting["era"] for name in ("8.0.1", "8.0.2")] == ["yolo.utils", "utils"]
        found = {change.question.entry_point: change for change in compare(answers_of("8.0.1"), answers_of("8.0.2"), few())}
        assert found["loss"].verdict in ("same", "rounding")  # a list of maps and a scalar, a mapping and a vector: one loss
        text = found["interface"].message
        assert "yolo.utils.loss:v8DetectionLoss → ultralytics.utils.loss:v8DetectionLoss" in text
        assert "predictions: maps → mapping" in text
        assert "loss: scalar → vector of 3" in text
        assert "tal_topk2=None" in text

    def test_dying_is_an_answer(self, tmp_path: Path) -> None:
        kills = 'len(batch["cls"]) or __import__("os")._exit(3)'
        answers_of = climb(tmp_path, {"8.0.1": release(tmp_path, "8.0.1"), "8.0.2": release(tmp_path, "8.0.2", dies=kills)})
        answers = answers_of("8.0.2")
        assert answers.replies["no boxes/0/loss/float32"].fields["outcome"] == "died"
        assert answers.replies["interface/0/interface/float32"].fields["outcome"] == "answered"  # asked after that, of a new process
        assert verdicts(answers_of, "8.0.1", "8.0.2")["no boxes/0/loss/float64"] == "raises"

    def test_hanging_is_an_answer(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("oracle.ladder.release_process.ANSWER_SECONDS", 0.5)
        hangs = 'len(batch["cls"]) or __import__("time").sleep(60)'
        with Release(release(tmp_path, "8.0.1", dies=hangs), tmp_path / "cache") as process:
            replies = {question.name: process.ask(question.message).fields["outcome"] for question in few()}
        assert replies["no boxes/0/loss/float32"] == "timed out"


class TestFirstReleases:
    @pytest.fixture
    def made(self, tmp_path: Path) -> dict[str, Path]:
        """Nine releases: the value changes with the fourth and with the eighth, the fifth fails to import."""
        scales = ["1.0", "1.0", "1.0", "2.0", "2.0", "2.0", "2.0", "3.0", "3.0"]
        broken = {4: "raise RuntimeError('broken at birth')"}
        return {f"8.0.{n}": release(tmp_path, f"8.0.{n}", scale=scale, needs=broken.get(n, "")) for n, scale in enumerate(scales)}

    def test_halving_finds_each(self, tmp_path: Path, made: dict[str, Path]) -> None:
        assert list(first_changes(list(made), climb(tmp_path, made), few())) == [("8.0.2", "8.0.3"), ("8.0.6", "8.0.7")]

    def test_halving_asks_few(self) -> None:
        """Two questions change at two places: each release in between is asked only the questions that are still undecided there."""
        first, second = few()[:2]
        asked: list[tuple[str, int]] = []

        def ask(name: str, /, names: Collection[str] | None = None) -> Answers:
            patch = int(name.split(".")[2])
            asked.append((name, len(names or ())))
            since = {first.name: 77, second.name: 200}
            replies = {
                question: Message({"outcome": "answered"}, {"total": np.array([float(patch >= at)])}) for question, at in since.items()
            }
            return Answers(name, {"outcome": "answered"}, replies)

        found = first_changes([f"8.0.{n}" for n in range(256)], ask, [first, second])
        assert list(found) == [("8.0.76", "8.0.77"), ("8.0.199", "8.0.200")]
        assert len({name for name, _ in asked}) <= 18
        assert {count for name, count in asked if name not in ("8.0.0", "8.0.255", "8.0.127", "8.0.128")} == {1}

    def test_the_command_writes_rows_and_the_report_reads_them(
        self, tmp_path: Path, made: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(command, "all_questions", few)
        monkeypatch.setattr(command, "cache_folder", lambda: tmp_path / "cache")
        monkeypatch.setattr(command, "published", lambda: tuple(made))
        monkeypatch.setattr(command, "AnswerCache", lambda asked, cache: AnswerCache(asked, cache, made))
        monkeypatch.setattr(command, "Matcher", lambda: lambda *asked: no_twin(*asked) | {"definition": "newest"})
        file = tmp_path / "rows.parquet"
        assert command.main(["8.0.0", "8.0.4", "8.0.8", "--rows", str(file)]) == 0
        text = capsys.readouterr().out
        assert "change: 8.0.2 -> 8.0.3" in text
        assert re.search(r"\n(\d+) of \1 releases asked in \d+ s; \d+ differ: 8\.0\.\d \(", text), text
        assert command.main(["8.0.2", "--rows", str(tmp_path / "one.parquet"), "--quiet"]) == 0
        assert "releases asked in" not in capsys.readouterr().out
        frame = validated(pd.read_parquet(file), KIND.schema, file)
        assert in_order(frame["release"]) == ["8.0.0", "8.0.2", "8.0.3", "8.0.4", "8.0.6", "8.0.7", "8.0.8"]
        report = KIND.build(frame)
        assert report.headline.startswith("6 releases from 8.0.0 to 8.0.8: values changed in 2")
        written = texts(frame)
        assert "broken at birth" in written["ladder.md"]
        assert 'python -m oracle.ladder 8.0.2 8.0.3 --show "one box/0/loss/float32"' in written["ladder.md"]
        assert written["asked.txt"].split() == ["8.0.0", "8.0.2", "8.0.3", "8.0.6", "8.0.7", "8.0.8"]
        lines = written["changes.csv"].splitlines()
        assert sum(line.startswith("8.0.3,8.0.2,1,no boxes,loss,float32,changed,") for line in lines) == 1

    def test_showing_one_question(
        self, tmp_path: Path, made: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(command, "all_questions", few)
        monkeypatch.setattr(command, "cache_folder", lambda: tmp_path / "cache")
        monkeypatch.setattr(command, "AnswerCache", lambda asked, cache: AnswerCache(asked, cache, made))
        assert command.main(["8.0.2", "8.0.3", "--show", "one box/0/loss/float32"]) == 0
        assert "against 8.0.2: changed" in capsys.readouterr().out
        assert command.main(["8.0.2", "--show", "no such"]) == 2

    def test_answers_are_kept(self, tmp_path: Path, made: dict[str, Path]) -> None:
        first = climb(tmp_path, made)("8.0.0")
        (made["8.0.0"] / "ultralytics" / "utils" / "loss.py").write_text("raise RuntimeError('asked again')")
        again = climb(tmp_path, made)("8.0.0")
        assert first.summary == again.summary
        assert compare(first, again, few())
        assert all(change.verdict == "same" for change in compare(first, again, few()))
        assert {*first.replies} == {question.name for question in few()}


class TestWhatCannotBeAsked:
    def test_a_release_that_does_not_exist_is_a_row(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fails(requirement: str, _: Path) -> None:
            raise install.InstallError(f"{requirement} could not be installed: there is no version of it")

        monkeypatch.setattr(install, "install", fails)
        answers_of = AnswerCache(few(), tmp_path / "cache", {"8.0.1": release(tmp_path, "8.0.1")})
        frame = rows(["8.0.1", "8.0.99"], ["8.0.1", "8.0.99"], answers_of, few())
        last = frame.iloc[-1]
        assert (last["release"], last["kind"], last["outcome"]) == ("8.0.99", "release", "not installed")
        assert "there is no version" in last["message"]

    def test_a_missing_small_package_is_added_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        installed: list[str] = []

        def adds(requirement: str, folder: Path) -> None:
            installed.append(requirement)
            (folder / "seaborn.py").write_text("")

        monkeypatch.setattr(install, "install", adds)
        monkeypatch.setitem(install.DEPENDENCIES, "seaborn", "seaborn-for-this-test")
        answers_of = climb(tmp_path, {"8.0.1": release(tmp_path, "8.0.1", needs="import seaborn")})
        assert answers_of("8.0.1").asked
        assert installed == ["seaborn-for-this-test"]

    def test_an_unknown_package_is_not_installed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(install, "install", lambda *_: pytest.fail("nothing is to be installed"))
        answers_of = climb(tmp_path, {"8.0.1": release(tmp_path, "8.0.1", needs="import a_package_that_nobody_knows")})
        assert answers_of("8.0.1").greeting["outcome"] == "not installed"
        assert "a_package_that_nobody_knows" in answers_of("8.0.1").greeting["message"]

    def test_a_release_reaches_no_network(self, tmp_path: Path) -> None:
        calls = "import socket\nsocket.create_connection(('127.0.0.1', 9))"
        answers_of = climb(tmp_path, {"8.0.1": release(tmp_path, "8.0.1", needs=calls)})
        assert "without a network" in answers_of("8.0.1").greeting["message"]

    def test_a_failing_installer_gives_the_reason(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        script = tmp_path / "fails"
        script.write_text("#!/bin/sh\necho 'error: there is no version of it at https://somewhere' >&2\nexit 1\n")
        script.chmod(0o755)
        monkeypatch.setattr(install, "installer", lambda: [str(script)])
        with pytest.raises(install.InstallError, match=r"there is no version of it at$"):
            install.install("ultralytics==0.0.0", tmp_path / "target")
        assert not (tmp_path / "target").exists()

    @pytest.mark.parametrize("arguments", [["8.3"], ["8.3.0", "--newest"], ["--bisect", "8.3.0", "newest"]])
    def test_usage(self, arguments: Sequence[str]) -> None:
        with pytest.raises(SystemExit) as ended:
            command.main(arguments)
        assert ended.value.code == 2


class TestPieces:
    def test_messages_come_back_to_the_bit(self) -> None:
        message = Message({"a": [1, "two"]}, {"x": np.array([[1.5, np.nan]]), "y": np.array(3, dtype=np.int64)})
        for compress in (False, True):
            back = unpack(pack(message, compress=compress))
            assert back.fields == message.fields
            assert all(np.array_equal(back.arrays[name], message.arrays[name], equal_nan=name == "x") for name in message.arrays)

    def test_differences(self) -> None:
        one = np.array([1.0, -2.0, np.nan])
        assert difference(one, one) == 0
        assert difference(one, np.array([1.0, -2.5, np.nan])) == 0.2
        assert difference(one, np.array([1.0, -2.0, 0.0])) == np.inf
        assert difference(one, one[:2]) == np.inf
        assert difference(np.array([-1, -1, 0, 2]), np.array([-1, 1, 0, 2])) == pytest.approx(1 / 3)  # of those held by either

    def test_an_array_that_one_alone_gives_is_a_change(self) -> None:
        question = few()[0]
        both, one = {"total": np.ones(1), "gradient of boxes": np.zeros(2)}, {"total": np.ones(1)}
        verdict = judge_arrays(Message({}, both), Message({}, one), question.dtype)
        assert verdict[:2] == ("changed", "gradient of boxes")

    def test_the_default_ladder_is_long_and_in_order(self) -> None:
        assert len(releases.DEFAULT) >= 25
        assert list(releases.DEFAULT) == sorted(releases.DEFAULT, key=releases.order)
        assert {"8.0.100", "8.2.103", "8.3.253", "8.4.0", "8.4.60", "8.4.190"} <= set(releases.DEFAULT)
        assert releases.between("8.0.3", "8.0.1", ["8.0.0", "8.0.2", "8.0.10"]) == ("8.0.1", "8.0.2", "8.0.3")

    def test_the_index_is_asked_or_the_committed_list_is_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        known = tmp_path / "releases.txt"
        known.write_text("8.9.1\n8.9.2\n")
        monkeypatch.setattr(releases, "ask_index", list)
        assert releases.published(known)[-2:] == ("8.9.1", "8.9.2")
        monkeypatch.setattr(releases, "ask_index", lambda: ["8.10.0"])
        assert releases.published(known)[-1] == "8.10.0"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """Answers of the reference of this environment to some of the real questions."""
    kinds = ("typical", "reg_max 1", "sides below 8 px", "sides 8 to 16 px", "no boxes", "interface", "class weights", "second cut")
    asked = [question for question in real_questions() if question.kind in kinds and question.task == "detect"]
    answers_of = AnswerCache(asked, tmp_path_factory.mktemp("cache"), {"8.4.190": None})
    answers = answers_of("8.4.190")
    assert answers.greeting["version"] == "8.4.190"
    return answers


class TestTheInstalledRelease:
    def test_it_answers_everything(self, installed: Answers) -> None:
        assert {reply.fields["outcome"] for reply in installed.replies.values()} == {"answered"}
        interface = installed.replies["interface/0/interface/float32"].fields["interface"]
        assert interface["predictions"] == "mapping"
        assert interface["loss"] == "vector of 3"

    def test_the_twin_agrees_with_it(self, installed: Answers) -> None:
        match = Matcher()
        asked = [question for question in real_questions() if question.name in installed.replies]
        found = [match(installed, question) for question in asked]
        compared = [one for one in found if one["twin"]]
        assert len(compared) >= 40
        assert {one["twin"] for one in compared} == {"agrees"}

    def test_the_twin_of_an_older_definition_does_not(self, installed: Answers) -> None:
        older = Answers("8.3.253", installed.greeting, installed.replies)
        match = Matcher()
        small = [q for q in real_questions() if q.name in older.replies and q.kind in ("sides below 8 px", "sides 8 to 16 px", "reg_max 1")]
        assert "differs" in {match(older, question)["twin"] for question in small}

    @pytest.mark.parametrize(
        ("task", "kinds", "older"),
        [
            ("segment", ("index maps, semantic", "instance masks", "mask-aware", "masks finer than the prototypes"), "8.4.60"),
            ("oriented", ("typical", "sides below 8 px", "no boxes"), "8.4.0"),
            ("pose", ("first generation", "likelihood", "17 keypoints"), "8.4.128"),
        ],
    )
    def test_the_twins_of_other_tasks(self, tmp_path: Path, task: str, kinds: tuple[str, ...], older: str) -> None:
        """They agree with it, and by the definition of an older release they do not."""
        asked = [question for question in task_questions() if question.task == task and question.kind in kinds]
        answers = AnswerCache(asked, tmp_path / "cache", {"8.4.190": None})("8.4.190")
        assert {match["twin"] for match in map(Matcher(), [answers] * len(asked), asked)} == {"agrees"}
        as_older = dataclasses.replace(answers, release=older)
        assert "differs" in {match["twin"] for match in map(Matcher(), [as_older] * len(asked), asked)}

    def test_a_difference_is_explained_only_where_its_reason_is_known(self, installed: Answers) -> None:
        (question,) = (q for q in real_questions() if q.name == "predictions exact/0/loss/float64")
        others = [q for q in real_questions() if (q.task, q.kind, q.dtype) == ("detect", "reg_max 1", "float32")]
        assert "float32" in departure("8.3.120", question)
        assert {departure("8.3.43", question), departure("8.3.237", question), *(departure("8.3.120", q) for q in others)} == {""}
        one = dataclasses.replace(installed, release="8.3.120")
        assert {match["twin_why"] for match in map(Matcher(), [one] * len(others), others) if match["twin"] == "differs"} == {""}


class TestTasks:
    def test_every_question_has_a_name_of_its_own(self) -> None:
        names = [question.name for question in real_questions()]
        assert len(names) == len(set(names))
        assert {question.task for question in real_questions()} == {"detect", "segment", "oriented", "pose"}

    def test_layouts_of_predictions(self) -> None:
        grids = [(2, 2), (1, 1)]
        predictions = {"boxes": torch.rand(1, 8, 5), "scores": torch.rand(1, 3, 5), "mask_coefficient": torch.rand(1, 6, 5)}
        predictions["proto"], semantic = torch.rand(1, 6, 4, 4), torch.rand(1, 3, 2, 2)
        maps, coefficients, proto = arrange("maps", predictions, grids)
        assert [tuple(level.shape) for level in maps] == [(1, 11, 2, 2), (1, 11, 1, 1)]
        assert (coefficients is predictions["mask_coefficient"], proto is predictions["proto"]) == (True, True)
        with pytest.raises(NotOfferedError, match="no semantic logits"):
            arrange("maps", predictions | {"semantic": semantic}, grids)
        pair = arrange("mapping", predictions | {"semantic": semantic}, grids)["proto"]
        assert (pair[0] is proto, pair[1] is semantic, len(pair)) == (True, True, 2)

    def test_the_flow_is_a_normal_density(self) -> None:
        matrix = torch.tensor([[1.5, 0.5], [-0.25, 0.75]], dtype=torch.float64)
        errors = torch.randn(7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        expected = torch.distributions.MultivariateNormal(torch.zeros(2, dtype=torch.float64), precision_matrix=matrix.T @ matrix)
        torch.testing.assert_close(GaussianFlow(matrix).log_prob(errors), expected.log_prob(errors))

    def test_a_release_that_the_twin_refuses_is_refused_with_the_reason(self) -> None:
        (question,) = (q for q in real_questions() if q.name == "oriented: typical/0/loss/float32")
        answers = Answers("8.4.10", {"outcome": "answered"}, {question.name: Message({"outcome": "answered"}, {"total": np.ones(1)})})
        match = Matcher()(answers, question)
        assert (match["twin"], "short sides lengthened" in match["twin_why"]) == ("refused", True)
        oldest = dataclasses.replace(answers, release="8.0.200")
        match = Matcher()(oldest, question)
        assert (match["twin"], match["definition"]) == ("refused", "refused")
        assert "the oldest whose oriented loss the twin follows" in match["twin_why"]

    def test_texts_of_each_task(self, tmp_path: Path) -> None:
        releases_ = {name: release(tmp_path, name, scale=scale) for name, scale in (("8.0.1", "1.0"), ("8.0.2", "2.0"))}
        frame = rows(list(releases_), list(releases_), climb(tmp_path, releases_), few(), lambda *a: no_twin(*a) | {"definition": "newest"})
        both = pd.concat([frame, frame.assign(task="pose", kind=frame["kind"] + " of pose")], ignore_index=True)
        written = texts(validated(both, KIND.schema, tmp_path))
        assert {"ladder.md", "pose/ladder.md", "pose/matrix.csv"} <= written.keys()
        assert "one box of pose" in written["pose/matrix.csv"]
        assert "of pose" not in written["matrix.csv"]
        titles = [
            line for line in markdown.render(KIND.build(validated(both, KIND.schema, tmp_path))).splitlines() if "after 8.0.1" in line
        ]
        assert titles == ["**detect: 8.0.2, after 8.0.1**", "**pose: 8.0.2, after 8.0.1**"]


class TestReleaseAsContender:
    def test_it_is_differentiable_term_by_term(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        process = Release(release(tmp_path, "8.0.1"), tmp_path / "cache")
        monkeypatch.setattr("oracle.ladder.contender.open_release", lambda _: process)
        spec = LossSpec(num_classes=3)
        criterion = ReleaseCriterion(spec, release="8.0.1")
        case = Case(spec, (32, 32), 2, (Box(0, 1, 16.0, 16.0, 8.0, 8.0),), Prediction("random", 1))
        weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)

        def direct(preds: dict[str, torch.Tensor]) -> torch.Tensor:
            boxes, scores = preds["boxes"], preds["scores"]
            terms = torch.stack([boxes.square().mean(), scores.square().mean(), boxes.abs().mean()])
            return terms * torch.tensor(spec.gains, dtype=torch.float64) * 2

        gradients = []
        for asked in (True, False):
            preds, batch = build(case, Setting("float64"))
            loss = criterion(preds, batch)[0] if asked else direct(preds)
            (loss * weights).sum().backward()
            gradients.append((preds["boxes"].grad, preds["scores"].grad))
        process.close()
        for found, expected in zip(*gradients, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)

    def test_what_it_refuses_is_an_error_with_its_words(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        process = Release(release(tmp_path, "8.0.1", refuses='len(batch["cls"]) == 0'), tmp_path / "cache")
        monkeypatch.setattr("oracle.ladder.contender.open_release", lambda _: process)
        criterion = ReleaseCriterion(SMALL, release="8.0.1")
        with pytest.raises(ReleaseError, match="ValueError: refused"):
            criterion(*build(Case(SMALL, (32, 32), 1, ())))
        process.close()

    def test_a_release_that_is_not_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fails(*_: object) -> Path:
            raise install.InstallError("there is no version of it")

        monkeypatch.setattr("oracle.ladder.contender.release_folder", fails)
        with pytest.raises(ReleaseError, match="there is no version of it"):
            open_release("8.0.9999")
