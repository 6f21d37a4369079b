"""Every way in which a candidate can misbehave has its name, and ours do not misbehave."""

from __future__ import annotations

import dataclasses
import time

import pytest
import torch

from oracle.cases.case import Box, Case, Prediction, Setting
from oracle.comparison.compare import STAGES, Comparison, compare
from oracle.comparison.conduct import MODES, STAGE
from oracle.comparison.registry import load_candidate, shipped
from oracle.contract.contender import Contender
from oracle.contract.time_limit import TimeLimitExceeded, time_limit
from oracle.contract.verdict import Verdict
from twinloss import LossSpec

WITH_BOXES = Case(
    LossSpec(num_classes=3, reg_max=4, strides=(8, 16)),
    (64, 96),
    2,
    (Box(0, 1, 30, 30, 40, 30), Box(0, 2, 36, 30, 20, 20), Box(1, 0, 60, 20, 30, 30)),
    Prediction("near", spread=0.25),
)
NO_BOXES = Case(LossSpec(num_classes=3, reg_max=4, strides=(8, 16)), (64, 64), 1)

SETTINGS = (Setting("float64"), Setting(), Setting("float16"), Setting("float32", "bfloat16"))


def judged(candidate: Contender, case: Case = WITH_BOXES, setting: Setting = Setting()) -> Comparison:
    return compare(case, setting, [candidate], shipped()["reference"], (STAGE, *STAGES))


def modes(comparison: Comparison) -> set[str]:
    return {finding.quantity for finding in comparison.results[0].findings if finding.stage == STAGE}


@pytest.mark.parametrize(
    ("name", "mode", "sentence"),
    [
        ("exits", "raises", "raised SystemExit: 3"),
        ("not_finite", "not finite", "1 of 3 numbers of its loss are not finite"),
        ("scalar", "wrong shape", "the loss is a torch.float32 tensor of shape (); it must be a tensor of shape (3,)"),
        ("no_items", "wrong shape", "it must be a pair (loss, items)"),
        ("half", "wrong dtype", "the loss is torch.float16; it must be float32 or float64"),
        ("changes_boxes", "mutates inputs", "the call changed batch['bboxes']"),
        ("leaves_a_key", "mutates inputs", "the call left batch_idx, cls, bboxes, pixels"),
        ("changes_the_default_dtype", "changes settings", "default dtype from torch.float32 to torch.float64"),
        ("keeps_state", "keeps state", "the second call on the same batch gave another loss"),
        ("stale_cache", "depends on history", "after one of 64 × 96 px, a batch of 96 × 64 px gave another loss"),
        ("depends_on_history", "depends on history", "this one, of 64 × 96 px, gave another loss"),
    ],
)
def test_a_failure_mode_has_a_name(name: str, mode: str, sentence: str) -> None:
    case = NO_BOXES if name == "depends_on_history" else WITH_BOXES
    comparison = judged(load_candidate(f"properties.selfcheck.sample_candidates:{name}"), case)
    assert modes(comparison) == {mode}, comparison.report()
    assert f"{STAGE}, {mode}: " in comparison.report()
    assert sentence.replace("64 × 96", f"{case.image_size[0]} × {case.image_size[1]}") in comparison.report()
    assert torch.get_default_dtype() == torch.float32


def test_raising_on_one_kind_of_batch_is_named_there_alone() -> None:
    candidate = load_candidate("properties.selfcheck.sample_candidates:raises")
    assert modes(judged(candidate)) == set()
    comparison = judged(candidate, NO_BOXES)
    assert modes(comparison) == {"raises"}
    assert "raised IndexError: index 0 is out of bounds" in comparison.report()


def test_a_call_that_hangs_is_interrupted_and_named() -> None:
    candidate = dataclasses.replace(load_candidate("properties.selfcheck.sample_candidates:hangs"), time_limit=0.2)
    comparison = judged(candidate)
    assert modes(comparison) == {"hangs"}
    assert "the call did not come back within 2 s, of which it computed 0." in comparison.report()
    rest = {j.verdict for j in comparison.results[0].judgements if j.stage != STAGE}
    assert rest == {Verdict.NOT_COMPARED}


def test_a_factory_that_raises_is_named() -> None:
    def factory(_: LossSpec) -> None:
        raise KeyError("weights")

    assert modes(judged(Contender("broken", "", factory))) == {"raises"}  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["reference", "twin", "silent"])
@pytest.mark.parametrize("case", [WITH_BOXES, NO_BOXES], ids=["boxes", "no boxes"])
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_ours_behave(name: str, case: Case, setting: Setting) -> None:
    comparison = judged(load_candidate(f"properties.selfcheck.sample_candidates:{name}"), case, setting)
    assert comparison.verdict is not Verdict.DIFFER, comparison.report()
    seen = {j.quantity for j in comparison.results[0].judgements if j.stage == STAGE and j.verdict is Verdict.AGREE}
    assert seen == set(MODES)


def test_a_limit_puts_back_the_timer_that_it_found() -> None:
    signal = pytest.importorskip("signal")
    seen: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: seen.append(number))
    left = signal.setitimer(signal.ITIMER_REAL, 100)
    try:
        with pytest.raises(TimeLimitExceeded, match=r"within 0\.5 s"), time_limit(0.05):
            time.sleep(10)
        assert 90 < signal.getitimer(signal.ITIMER_REAL)[0] <= 100
        assert seen == []
    finally:
        signal.setitimer(signal.ITIMER_REAL, *left)
        signal.signal(signal.SIGALRM, before)
