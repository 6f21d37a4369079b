"""The decisions of the gate, from given estimates."""

from __future__ import annotations

import pytest

from benches.gate.decision import (
    Decision,
    GateVerdict,
    Limits,
    Pass,
    RowFinding,
    RowRatios,
    conclude,
    count_findings,
    error_findings,
    given_up,
    row_findings,
    suspected,
    time_verdict,
)
from benches.run.estimates import Estimate

LIMITS = Limits()
STEADY = (1.0, 0.02)
PASS, FAIL, INCONCLUSIVE = GateVerdict.PASS, GateVerdict.FAIL, GateVerdict.INCONCLUSIVE


def estimate(value: float, half: float) -> Estimate:
    return Estimate(value, value - half, value + half, 80, 8)


def one(twin: tuple[float, float], control: tuple[float, float] = STEADY, row: str = "coco") -> dict[str, RowRatios]:
    return {row: RowRatios(estimate(*twin), estimate(*control))}


SLOW, SAME, DOUBTFUL = one((1.2, 0.05)), one((1.0, 0.05)), one((1.12, 0.05))
MOVED, NOISY = one((1.2, 0.05), (1.09, 0.02)), one((1.0, 0.05), (1.0, 0.15))


@pytest.mark.parametrize(
    ("passes", "verdict"),
    [
        pytest.param([], INCONCLUSIVE, id="nothing measured"),
        pytest.param([SAME], PASS, id="the same"),
        pytest.param([one((0.5, 0.1))], PASS, id="faster"),
        pytest.param([DOUBTFUL], PASS, id="slower within doubt"),
        pytest.param([SLOW], INCONCLUSIVE, id="slower once"),
        pytest.param([SLOW, SLOW], FAIL, id="slower twice"),
        pytest.param([SLOW, SAME], PASS, id="slower, then the same"),
        pytest.param([MOVED], INCONCLUSIVE, id="control moved"),
        pytest.param([MOVED, MOVED], INCONCLUSIVE, id="control moved twice"),
        pytest.param([MOVED, SAME], PASS, id="control moved, then the same"),
        pytest.param([MOVED, SLOW], INCONCLUSIVE, id="control moved, then slower once"),
        pytest.param([MOVED, SLOW, SLOW], FAIL, id="control moved, then slower twice"),
        pytest.param([NOISY, NOISY], INCONCLUSIVE, id="control noisy"),
        pytest.param([one((1.2, 0.05), (0.92, 0.02))], INCONCLUSIVE, id="control faster"),
    ],
)
def test_verdict_on_time(passes: list[Pass], verdict: GateVerdict) -> None:
    assert time_verdict(passes, LIMITS).verdict is verdict


def test_a_bound_exactly_at_the_threshold_passes() -> None:
    at = one((1.15, 0.15 - 0.1 + 1e-12))
    assert time_verdict([at, at], Limits(slower=1.10)).verdict is PASS


def test_one_moved_control_voids_the_pass_for_every_row() -> None:
    passes = [SLOW | one((1.0, 0.05), (1.2, 0.02), row="gwhd")] * 3
    decision = time_verdict(passes, LIMITS)
    assert decision.verdict is INCONCLUSIVE
    assert [note.row for note in decision.notes] == ["gwhd"] * 3
    assert "pass 1: the reference moved by +20.0 %" in decision.notes[0].text


def test_a_row_that_failed_twice_fails_whatever_the_others_say() -> None:
    first = SLOW | one((1.0, 0.05), row="gwhd")
    decision = time_verdict([first, SLOW], LIMITS)
    assert decision.verdict is FAIL
    assert {finding.row: finding.verdict for finding in decision.findings} == {"coco": FAIL, "gwhd": PASS}
    assert "1.200 [1.150, 1.250], and again 1.200" in decision.findings[0].text


def test_later_passes_may_measure_fewer_rows() -> None:
    both = one((1.0, 0.05)) | one((1.2, 0.05), row="gwhd")
    assert time_verdict([both, one((1.0, 0.05), row="gwhd")], LIMITS).verdict is PASS


@pytest.mark.parametrize(
    ("comparison", "doubt"),
    [
        pytest.param(SAME, False, id="the same"),
        pytest.param(SLOW, False, id="slower beyond doubt"),
        pytest.param(DOUBTFUL, True, id="slower within doubt"),
        pytest.param(one((1.07, 0.05)), True, id="perhaps slower"),
        pytest.param(one((1.0, 0.05), (1.0, 0.12)), True, id="control a little noisy"),
        pytest.param(one((1.0, 0.05), (1.0, 0.3)), False, id="control hopeless"),
        pytest.param(MOVED, False, id="control moved"),
    ],
)
def test_more_pairs_are_taken_where_they_can_decide(comparison: dict[str, RowRatios], *, doubt: bool) -> None:
    assert comparison["coco"].in_doubt(LIMITS) is doubt


def test_a_machine_that_keeps_moving_is_given_up() -> None:
    assert not given_up([MOVED, SAME], LIMITS)
    assert given_up([MOVED, SAME, NOISY], LIMITS)


def test_suspicion_asks_for_one_more_pass() -> None:
    assert suspected([SLOW], LIMITS) == {"coco"}
    assert suspected([SLOW, SLOW], LIMITS) == set()
    assert suspected([SLOW, SAME], LIMITS) == set()
    assert suspected([MOVED], LIMITS) == set()


def test_a_missing_or_renamed_row_fails_by_name() -> None:
    (missing,) = row_findings(["coco", "gwhd"], ["coco"])
    assert (missing.verdict, missing.row) == (FAIL, "gwhd")
    (renamed,) = row_findings(["coco", "gwhd"], ["coco", "wheat"])
    assert "was it renamed to wheat?" in renamed.text
    assert "--drop gwhd" in renamed.text
    assert not row_findings(["coco"], ["coco", "new"])
    assert not row_findings(["coco", "gwhd"], ["coco"], allowed=["gwhd"])


def test_exact_measures_are_compared_exactly() -> None:
    base = {"coco": {"peak_step": 1000, "launches": 12}}
    assert not count_findings(base, {"coco": {"peak_step": 1000, "launches": 12}})
    (grown,) = count_findings(base, {"coco": {"peak_step": 1001, "launches": 12}})
    assert (grown.verdict, grown.row) == (FAIL, "coco")
    assert "1,000 before, 1,001 now; if this is intended, give --allow coco:peak_step" in grown.text
    (less,) = count_findings(base, {"coco": {"peak_step": 1000, "launches": 11}})
    assert less.verdict is PASS
    (meant,) = count_findings(base, {"coco": {"peak_step": 1001}}, allowed=["coco:peak_step"])
    assert meant.verdict is PASS
    assert not count_findings({}, {"coco": {"peak_step": 5}}), "a row that the base does not have has nothing to grow from"


@pytest.mark.parametrize(
    ("before", "after", "fails"),
    [(0.5, 0.6, False), (0.5, 0.63, True), (0.1, 0.24, False), (0.9, 1.01, True), (None, 0.9, False), (None, 1.1, True), (1.2, 1.2, True)],
)
def test_accuracy_may_not_creep_up(before: float | None, after: float, fails: bool) -> None:
    base = {} if before is None else {"float32": {"loss": before}}
    assert bool(error_findings(base, {"float32": {"loss": after}}, LIMITS)) is fails


def test_what_has_no_noise_fails_even_when_the_clock_is_inconclusive() -> None:
    failure = RowFinding(FAIL, "coco", "peak_step")
    inconclusive = Decision(INCONCLUSIVE, (RowFinding(INCONCLUSIVE, "coco", "moved"),))
    assert conclude(inconclusive, [failure]).verdict is FAIL
    assert conclude(inconclusive, [RowFinding(PASS, "coco", "less")]).verdict is INCONCLUSIVE
    assert conclude(Decision(PASS), []).verdict is PASS


def test_exit_codes() -> None:
    assert (int(PASS), int(FAIL), int(INCONCLUSIVE)) == (0, 1, 3)
