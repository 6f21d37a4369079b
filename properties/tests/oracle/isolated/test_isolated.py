"""A candidate in a process of its own: same answers, and what it does to its process stays there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from oracle.cases.build import build
from oracle.cases.case import Setting
from oracle.comparison.compare import compare
from oracle.comparison.conduct import STAGE, call_once
from oracle.comparison.registry import CandidateError, load_isolated
from oracle.contract.contender import Contender
from oracle.contract.run import make_criterion
from oracle.inside.arena import POISON, Arena, ArenaError
from oracle.isolated.candidate_process import ENDS, CandidateSource
from oracle.isolated.contender import set_clock
from oracle.isolated.decode import decode
from oracle.ladder.questions import scene
from twinloss import DetectionLoss

CASE = scene(1, images=1, boxes=2)
SETTING = Setting("float32")
SOUND = """
import os, sys, time, torch
from twinloss import DetectionLoss

def make(spec):
    return DetectionLoss(spec, backend="torch")

class Told(Exception):
    pass

def inner(call):
    def factory(spec):
        sound = DetectionLoss(spec, backend="torch")
        return lambda preds, batch: call(sound, preds, batch)
    return factory

def _path(sound, preds, batch):
    raise Told(str([one for one in ("oracle", "properties", "reports") if any(os.path.isdir(os.path.join(p, one)) for p in sys.path)]))

def _loaded(sound, preds, batch):
    raise Told(str([one for one in sys.modules if one.partition(".")[0] in ("oracle", "ultralytics", "properties")]))

def _scaled(sound, preds, batch):
    preds["boxes"].data.mul_(2)
    return sound(preds, batch)

def _ends(sound, preds, batch):
    os._exit(0)

def _clock(sound, preds, batch):
    loss, items = sound(preds, batch)
    return loss * 0 + time.time(), items

def _for_ever(sound, preds, batch):
    while True:
        pass

path, loaded, scaled, ends, clock, for_ever = map(inner, (_path, _loaded, _scaled, _ends, _clock, _for_ever))
clock.arithmetic = "float32"
half = 3
"""

Load = Callable[[str], Contender]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    (tmp_path / "mine_isolated.py").write_text(SOUND)

    def loaded(name: str) -> Contender:
        return load_isolated(f"mine_isolated:{name}", 5.0, CandidateSource("mine_isolated", name, (str(tmp_path),)))

    return loaded


def raised(contender: Contender) -> str:
    judgements = compare(CASE, SETTING, [contender], None, (STAGE,)).results[0].findings
    return judgements[0].what


def test_its_answers_have_the_bits_of_the_same_criterion_here(load: Load) -> None:
    here = Contender("twin", "", lambda spec: DetectionLoss(spec, backend="torch"))
    there = load("make")
    for setting in (SETTING, Setting("float64"), Setting("bfloat16")):
        answers = []
        for contender in (here, there):
            criterion = make_criterion(contender, CASE.spec, setting)
            answers.append(call_once(contender, criterion, build(CASE, setting), setting)[0].tensors)
        assert answers[0].keys() == answers[1].keys()
        assert all(torch.equal(answers[0][name], answers[1][name]) for name in answers[0])


def test_stages_attributes_and_gradients_of_single_terms_come_through(load: Load) -> None:
    contender = load("make")
    criterion = make_criterion(contender, CASE.spec, SETTING)
    assert criterion.ties == "stable"  # type: ignore[attr-defined]
    preds, batch = build(CASE, SETTING)
    weights = torch.tensor([0.0, 2.0, 0.0])
    (criterion(preds, batch)[0] * weights).sum().backward()
    sound, _ = build(CASE, SETTING)
    (DetectionLoss(CASE.spec, backend="torch")(sound, batch)[0] * weights).sum().backward()
    assert torch.equal(preds["scores"].grad, sound["scores"].grad)
    assert not compare(CASE, SETTING, [contender], None).results[0].findings


def test_its_process_holds_neither_the_judge_nor_the_reference(load: Load) -> None:
    assert raised(load("path")) == "raised Told: []"
    assert raised(load("loaded")) == "raised Told: []"


def test_the_judge_sees_changed_inputs_and_an_ended_process(load: Load) -> None:
    findings = compare(CASE, SETTING, [load("scaled")], None, (STAGE,)).results[0].findings
    assert [finding.quantity for finding in findings] == ["mutates inputs"]
    ending = load("ends")
    for _ in range(2):  # its process is started again
        assert [one.quantity for one in compare(CASE, SETTING, [ending], None, (STAGE,)).results[0].findings] == [ENDS]


def test_the_watchdog_is_outside(load: Load) -> None:
    findings = compare(CASE, SETTING, [load("for_ever")], None, (STAGE,)).results[0].findings
    assert [finding.quantity for finding in findings] == ["hangs"]
    assert "5 s of processor time" in findings[0].what


def test_its_clocks_can_be_put_ahead(load: Load) -> None:
    contender = load("clock")
    criterion = make_criterion(contender, CASE.spec, Setting("float64"))
    before = float(criterion(*build(CASE, Setting("float64")))[0][0].detach())
    set_clock(contender, 1e6)
    assert 1e6 <= float(criterion(*build(CASE, Setting("float64")))[0][0].detach()) - before < 1e6 + 600


@pytest.mark.parametrize(
    ("name", "message"),
    [("mak", "has no 'mak'; did you mean make?"), ("half", "half is of type float|must be a function")],
)
def test_errors_of_loading_name_the_remedy(load: Load, name: str, message: str) -> None:
    with pytest.raises(CandidateError, match=message.replace("?", r"\?")):
        load(name)


def test_memory_is_poisoned_and_places_are_checked(tmp_path: Path) -> None:
    with (tmp_path / "memory").open("w+b") as file:
        arena = Arena(file.fileno())
        place, end = arena.put(torch.arange(6.0).reshape(2, 3), 0)
        kept = arena.view(place)
        arena.poison(end)
        assert kept.isnan().all()
        assert arena.poisoned()
        kept[0, 0] = 1.0
        assert not arena.poisoned()
        assert POISON == 0xFF
        for wrong in ([0, "float33", [1]], [-8, "float32", [1]], [0, "float32", [1 << 40]], "text"):
            with pytest.raises(ArenaError):
                arena.view(wrong)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="cannot be read"):
            decode({"tensor": [0, "float32", [1 << 40]]}, arena)
