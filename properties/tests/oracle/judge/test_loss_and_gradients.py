"""The judge's tolerances bound every correct program's rounding, and show a relative fault of 1e-4."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from oracle.cases.build import build
from oracle.cases.case import Box, Case, Prediction, Setting
from oracle.comparison.compare import Comparison, compare
from oracle.comparison.explain import LIMITS, explain
from oracle.comparison.rows import Run, rows_of
from oracle.comparison.trial import Trial
from oracle.contract.contender import Contender
from oracle.contract.run import Outcome, with_gradient
from oracle.contract.verdict import Verdict, ratio
from oracle.judge.loss_and_gradients import outcome_errors
from oracle.judge.worst_elements import QuantityError, WorstElement, judge_quantity, worst_element
from oracle.tolerance.assignment import IndexedAssignment, weights_of
from oracle.tolerance.coordinates import decoded, predicted_corner_tolerance, truth_corner_tolerance
from oracle.tolerance.intervals import nth_largest
from oracle.tolerance.precision import precision_of
from properties.selfcheck.planted_faults import CATALOGUE
from properties.strategies import cases
from properties.tests.oracle.judge.helpers import (
    FLOAT32,
    FLOAT64,
    REFERENCE,
    TIED_TWIN,
    TWIN,
    changed,
    judged,
    judgement_of,
    ordinary,
    silent,
    trial_of,
)
from properties.tests.properties.selfcheck.planted_faults.test_catalogue import CASE as FAULTY
from twinloss import DetectionLoss, LossSpec

UNHURRIED = dataclasses.replace(LIMITS, seconds=None)
"""Limits of the search under which no machine is too slow to find the name."""

SETTINGS = [Setting("float32"), Setting("float64"), Setting("bfloat16"), Setting("float16"), Setting("float32", autocast="bfloat16")]


def error_of(value: float, tolerance: float = 1.0, truth: float = 0.0, group: str = "g") -> QuantityError:
    right, result, allowed = (torch.tensor([x], dtype=torch.float64) for x in (truth, value, tolerance))
    found = worst_element(group, right, result, allowed)
    assert found is not None
    return QuantityError("q", (found,))


@pytest.mark.parametrize(
    ("value", "own", "widen", "verdict"),
    [
        (0.999, None, True, Verdict.AGREE),
        (1.001, None, True, Verdict.DIFFER),
        (1.999, 0.5, True, Verdict.AGREE),
        (2.001, 0.5, True, Verdict.DIFFER),
        (1.001, 0.5, False, Verdict.DIFFER),
        (math.nan, 0.5, True, Verdict.DIFFER),
        (math.inf, math.inf, True, Verdict.AMBIGUOUS),
        (math.inf, math.inf, False, Verdict.DIFFER),
        (math.inf, 0.5, True, Verdict.DIFFER),
        (1.001, math.inf, True, Verdict.DIFFER),
        (0.999, math.inf, True, Verdict.AGREE),
    ],
)
def test_twice_the_references_error_and_the_rounding(value: float, own: float | None, widen: bool, verdict: Verdict) -> None:
    reference = None if own is None else error_of(own)
    found = judge_quantity("loss", error_of(value), reference, widen=widen)
    assert found.verdict is verdict
    assert (found.error_over_allowance <= 1) == (verdict is Verdict.AGREE)
    assert (found.finding is None) == (verdict is not Verdict.DIFFER)


def test_the_references_error_in_one_group_excuses_nothing_in_another() -> None:
    found = judge_quantity("loss", error_of(1.5, group="level 0"), error_of(9.0, group="level 1"))
    assert found.verdict is Verdict.DIFFER


def test_a_finding_gives_the_relative_error_with_its_sign() -> None:
    for value, result in ((1.5, "off by 0.5, +0.5 of it, at g"), (0.75, "off by 0.25, -0.25 of it, at g")):
        finding = judge_quantity("loss", error_of(value, tolerance=0.1, truth=1.0), None).finding
        assert finding is not None
        assert finding.what == result


def test_the_worst_element_is_found_and_named() -> None:
    truth, value = torch.zeros(2, 3, dtype=torch.float64), torch.tensor([[0.0, 1, 0], [0, 0, 2]], dtype=torch.float64)
    worst = worst_element("g", truth, value, torch.tensor([[1.0, 0.25, 1], [1, 1, 1]], dtype=torch.float64), ("row", "column"))
    assert worst is not None
    assert (worst.ratio, worst.where, worst.value) == (4.0, {"row": 0, "column": 1}, 1.0)
    assert worst_element("g", truth[:0], value[:0], truth[:0]) is None
    assert ratio(0.0, 0.0) == 0.0
    assert ratio(1e-300, 0.0) == math.inf


def test_the_nth_largest_of_each_group() -> None:
    values, group = np.array([3.0, 1, 2, 9, 5]), np.array([0, 0, 0, 2, 2])
    assert nth_largest(values, group, 4, 2, -1.0).tolist() == [2.0, -1.0, 5.0, -1.0]
    assert nth_largest(values[:0], group[:0], 2, 1, 0.5).tolist() == [0.5, 0.5]


def test_intervals_hold_what_float32_makes_of_distances() -> None:
    rng = np.random.default_rng(1)
    logits = torch.from_numpy(rng.normal(0, 1, (3000, 64)) * rng.choice([0.1, 1, 5, 30], (3000, 1))).float()
    centres = torch.from_numpy(rng.integers(0, 80, (3000, 2)) + 0.5)
    exact = decoded(logits, 16)
    corners = torch.cat([centres - exact.sides[:, :2], centres + exact.sides[:, 2:]], dim=1)
    tolerance = predicted_corner_tolerance(exact, corners, precision_of(FLOAT32, "float32"))
    sides = logits.unflatten(1, (4, 16)).softmax(-1) @ torch.arange(16.0)
    found = torch.cat([centres.float() - sides[:, :2], centres.float() + sides[:, 2:]], dim=1).double()
    used = (found - corners).abs() / tolerance
    assert used.max() < 1
    assert used.quantile(0.9) > 0.05


def scaled_first(boxes: Tensor, size: Tensor) -> Tensor:
    centre, half = boxes[:, :2] * size, boxes[:, 2:] * size / 2
    return torch.cat([centre - half, centre + half], dim=1)


def scaled_last(boxes: Tensor, size: Tensor) -> Tensor:
    return torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], dim=1) * size.repeat(2)


def from_the_first_corner(boxes: Tensor, size: Tensor) -> Tensor:
    corner, side = boxes[:, :2] * size - boxes[:, 2:] * size * 0.5, boxes[:, 2:] * size
    return torch.cat([corner, corner + side], dim=1)


@pytest.mark.parametrize("order", [scaled_first, scaled_last, from_the_first_corner])
@pytest.mark.parametrize("image_size", [(640, 640), (96, 120), (64, 128)], ids=str)
def test_ground_truth_may_be_prepared_in_any_order(order: Callable[[Tensor, Tensor], Tensor], image_size: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    size = torch.tensor([image_size[1], image_size[0]], dtype=torch.float32)
    pixels = torch.from_numpy(rng.uniform(0, 1, (3000, 4))) * size.repeat(2)
    pixels[::3] = (pixels[::3] / 4).round() * 4
    boxes = (pixels / size.repeat(2)).float()
    corners = scaled_first(boxes, size)
    tolerance = truth_corner_tolerance(corners, boxes, image_size, 2.0**-24)
    error = (order(boxes, size).double() - corners.double()).abs()
    assert (error <= tolerance).all()
    # Where no rounding happens in any order there is nothing to excuse.
    assert ((tolerance == 0).all(1).sum() > 500) == (image_size == (64, 128))


@pytest.mark.parametrize("claim", ["logits", "float32"])
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_roundoff_follows_the_setting_and_the_claim(setting: Setting, claim: str) -> None:
    arithmetic = precision_of(setting, claim)
    assert arithmetic.output == {"float64": 2.0**-53, "float32": 2.0**-24, "bfloat16": 2.0**-8 / 2 * 2, "float16": 2.0**-11}[setting.dtype]
    assert arithmetic.half == (claim == "logits" and setting.name not in ("float32", "float64"))
    with pytest.raises(ValueError, match="must be 'float32' or 'logits'"):
        precision_of(setting, "double")


def test_what_the_two_programs_round_stays_within_the_allowance_and_uses_it() -> None:
    """The measurement behind the factors: without the reference's own error on top, nothing passes 1, and the typical case is below 0.3."""
    used: dict[str, list[float]] = {}
    for seed in range(12):
        case = ordinary(seed, kind=("early", "middle", "late", "random")[seed % 4], reg_max=(16, 16, 1)[seed % 3])
        for result in compare(case, FLOAT32, [REFERENCE, TWIN], None).results:
            for j in result.judgements:
                if not math.isnan(j.error_over_allowance):
                    used.setdefault(f"{j.stage} {j.quantity}", []).append(j.error_over_allowance)
    medians = {name: float(np.median(found)) for name, found in used.items()}
    assert max(max(found) for found in used.values()) < 1
    assert max(medians.values()) < 0.5
    for name in ("metrics overlap", "loss_given gradient of boxes", "loss_given gradient of scores", "loss_given loss", "assign weights"):
        assert 0.02 < medians[name] < 0.35, (name, medians[name])


def level_part(trial: Trial, level: int) -> slice:
    return trial.definition.layout.slices[level]


def _longer(outcome: Outcome, term: int) -> Outcome:
    """The outcome with one term larger by one in ten thousand."""
    return dataclasses.replace(outcome, loss=outcome.loss * (1 + 1e-4 * (torch.arange(3) == term)))


def _scaled(outcome: Outcome, name: str, part: slice, trial: Trial) -> Outcome:
    """The outcome with a group of its gradients larger by one in ten thousand."""
    held = trial.standard(given=True).assignment
    if name == "boxes":
        grad = outcome.gradients["boxes"].clone()
        grad[:, :, part] *= 1 + 1e-4
        return with_gradient(outcome, "boxes", grad)
    mask = torch.zeros_like(outcome.gradients["scores"], dtype=torch.bool)
    mask[held.image, trial.definition.labels[held.box], held.anchor] = True
    mask = mask if name == "held" else ~mask
    inside = torch.zeros_like(mask)
    inside[:, :, part] = True
    right = outcome.gradients["scores"]
    return with_gradient(outcome, "scores", torch.where(mask & inside, right * (1 + 1e-4), right))


@pytest.mark.parametrize("group", ["box_loss", "cls_loss", "dfl_loss", *(f"{n}, {k}" for n in ("boxes", "held", "others") for k in (0, 1))])
def test_one_in_ten_thousand_shows_in_every_group(group: str) -> None:
    trial = trial_of(ordinary(5, kind="late"))
    expected, layout = trial.standard(given=True), trial.definition.layout
    assert {layout.place(0, int(a))["level"] for a in expected.assignment.anchor} >= {0, 1}
    right = expected.truth
    assert all(found.worst_ratio < 0.01 for found in outcome_errors(right, expected, layout).values())
    name, _, level = group.partition(", ")
    wrong = _scaled(right, name, level_part(trial, int(level)), trial) if level else _longer(right, layout.spec.term_names.index(name))
    ratios = {name: found.worst_ratio for name, found in outcome_errors(wrong, expected, layout).items()}
    assert sum(value > 1 for value in ratios.values()) == 1, ratios
    # As many allowances go into it: they are a few roundings, also of a sum of many.
    assert max(ratios.values()) > 12


@pytest.mark.parametrize("seed", range(3))
def test_without_zero_weights_the_tolerance_of_a_weight_is_its_rounding_alone(seed: int) -> None:
    trial = trial_of(ordinary(seed, kind="late"))
    assert not trial.allowed.vanishing.any()
    weights = weights_of(trial.allowed, trial.own_assignment(), trial.definition.case.spec, trial.arithmetic, trial.decided.zero_held)
    # The overlap to the sixth power makes hundreds of one rounding; what other anchors would weigh has no part in it.
    assert (weights.tolerance / weights.value).max() < 2000 * 2**-24


def test_a_gradient_where_nothing_is_held_must_be_zero() -> None:
    trial = trial_of(ordinary(4))
    expected = trial.standard(given=True)
    held = set(expected.assignment.anchor[expected.assignment.image == 0].tolist())
    free = next(a for a in range(trial.definition.case.num_anchors) if a not in held)
    grad = expected.truth.gradients["boxes"].clone()
    grad[0, 5, free] = 1e-30
    found = outcome_errors(with_gradient(expected.truth, "boxes", grad), expected, trial.definition.layout)["gradient of boxes"]
    assert found.worst_ratio == math.inf
    worst = max(found.elements, key=lambda worst: worst.ratio)
    assert (worst.where["anchor"], worst.where["side"], worst.where["bin"]) == (free, "left", 5)


@pytest.mark.parametrize(
    "numbers",
    [
        {"topk": 9},
        {"topk": 11},
        {"alpha": 0.501},
        {"beta": 6.01},
        {"assign_eps": 1e-6},
        {"clamp_margin": 0.02},
        {"gains": (7.5, 0.5, 1.501)},
    ],
    ids=str,
)
def test_another_definition_differs_whether_or_not_it_shows_its_stages(numbers: dict[str, Any]) -> None:
    # Large boxes, so that some have more than eleven candidates, and distances beyond the last bin.
    boxes = (Box(0, 0, 150.0, 150.0, 280.0, 290.0), Box(0, 1, 70.0, 80.0, 60.0, 70.0))
    case = Case(LossSpec(num_classes=2, strides=(8,)), (320, 320), 1, boxes, Prediction("random", seed=5))
    shown, unseen = changed(**numbers), silent(changed(**numbers))
    comparison = compare(case, FLOAT32, [shown, unseen, changed(), silent(changed())], REFERENCE)
    assert [result.verdict for result in comparison.results] == [Verdict.DIFFER, Verdict.DIFFER, Verdict.AGREE, Verdict.AGREE]


@settings(max_examples=25)
@given(case=cases(tagged=False))
def test_an_assignment_is_inferred_from_the_gradient_where_none_is_shown(case: Case) -> None:
    for contender in (TWIN, REFERENCE):
        if contender.declines and contender.declines(case.spec, build(case, FLOAT64), FLOAT64):
            continue
        trial = trial_of(case, contender, FLOAT64)
        held = trial.own_assignment()
        assert any(_alike(held, read, trial) for read in (trial.decided.held, *(inferred.assignment for inferred in trial.inferred())))


def _alike(held: IndexedAssignment, read: IndexedAssignment, trial: Trial) -> bool:
    """Returns whether two assignments agree in anchors and classes, as far as gradients distinguish them."""
    own, shown = (dict(zip(h.cell.tolist(), h.row.tolist(), strict=True)) for h in (held, read))
    seen, result = ({c for c, weight in zip(h.cell.tolist(), h.weight.tolist(), strict=True) if weight > 1e-9} for h in (held, read))
    label = trial.definition.labels
    return seen <= shown.keys() and result <= own.keys() and all(label[own[cell]] == label[shown[cell]] for cell in seen)


@settings(max_examples=12)
@given(case=cases(tagged=False))
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_no_false_alarm(setting: Setting, case: Case) -> None:
    contenders = [REFERENCE, TWIN, TIED_TWIN, silent(REFERENCE), silent(TWIN)]
    contenders[3] = dataclasses.replace(contenders[3], declines=REFERENCE.declines)
    comparison = compare(case, setting, contenders, REFERENCE)
    assert comparison.verdict is not Verdict.DIFFER, comparison.report()


class Raises(DetectionLoss):
    def metrics(self, preds: Any, batch: Any) -> Any:
        raise ZeroDivisionError("of all things")

    def decode(self, preds: Any) -> Any:
        return super().decode(preds)[..., :3]


def test_a_contender_that_raises_or_answers_in_another_shape_is_named() -> None:
    comparison = judged(ordinary(), Contender("raises", "", Raises, arithmetic="float32"))
    assert judgement_of(comparison, "candidates", "call").verdict is Verdict.DIFFER
    report = comparison.report()
    assert "raised ZeroDivisionError: of all things" in report
    assert "decoded corners must have shape (2, 189, 4); found (2, 189, 3)" in report
    assert judgement_of(comparison, "loss", "loss").verdict is Verdict.AGREE

    def refuses(spec: LossSpec) -> Any:
        raise NotImplementedError(f"reg_max {spec.reg_max}")

    refused = judged(ordinary(), Contender("refuses", "", refuses))
    assert [j.reason for j in refused.results[0].judgements] == ["raised NotImplementedError: reg_max 16"]


class Halved(DetectionLoss):
    """Its loss is half precision, and carries no gradient of the boxes."""

    def __call__(self, preds: Any, batch: Any) -> Any:
        loss, items = super().__call__({**preds, "boxes": preds["boxes"].detach()}, batch)
        return loss.half(), items


def test_a_loss_in_half_precision_and_a_missing_gradient_are_named() -> None:
    report = judged(ordinary(), Contender("halved", "", Halved, arithmetic="float32")).report()
    assert "the loss is torch.float16; it must be float32 or float64" in report
    assert "the loss has no gradient with respect to boxes" in report


def test_a_finding_gives_what_is_needed_to_reproduce_it() -> None:
    case = ordinary()
    comparison = judged(case, changed(gains=(7.5, 0.6, 1.5)))
    report = comparison.report()
    for part in (
        "loss_given, loss: off by",
        "where      term cls_loss",
        "exact",
        "reference",
        "candidate",
        "× the allowance of",
        "shapes     loss (3,)",
    ):
        assert part in report
    assert report.startswith(f"changed on {case.digest} (float32, cpu)")
    assert "replay" not in report, "no file is there to replay"
    assert judged(case, TWIN).report() == ""


def test_rows_have_details_where_they_differ() -> None:
    comparison = compare(ordinary(), FLOAT32, [TWIN, changed(topk=5)], REFERENCE)
    rows = rows_of(comparison, Run("test", "0"))
    assert {r.verdict for r in rows if r.contender == "twin"} == {"AGREE"}
    assert all(r.detail and not r.replay for r in rows if r.verdict == "DIFFER")


def test_inputs_that_are_no_numbers_are_not_judged() -> None:
    case = dataclasses.replace(ordinary(), prediction=Prediction("random", spread=1e6))
    comparison = compare(case, Setting("float16"), [TWIN], REFERENCE)
    assert comparison.verdict is Verdict.NOT_COMPARED
    assert {j.reason for j in comparison.results[0].judgements} == {"a logit is not a finite number in this dtype"}


def test_a_worst_element_is_located() -> None:
    worst = WorstElement("g", 2.0, 1.0, 0.5, {"image": 1}, 0.0, 1.0, finite=True)
    finding = judge_quantity("loss", QuantityError("q", (worst,)), None).finding
    assert finding is not None
    assert finding.error_over_allowance == 2.0


class Wrong(DetectionLoss):
    """The twin with its loss changed after the fact."""

    change: Callable[[Tensor, int], Tensor]

    def _changed(self, preds: Any, answer: Any) -> Any:
        loss, items = answer
        return type(self).change(loss, len(preds["boxes"])), items

    def __call__(self, preds: Any, batch: Any) -> Any:
        return self._changed(preds, super().__call__(preds, batch))

    def loss_given(self, preds: Any, batch: Any, assignment: Any) -> Any:
        return self._changed(preds, super().loss_given(preds, batch, assignment))


HINTS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "no factor of the number of images [7]": lambda loss, images: loss / images,
    "the factor of the number of images twice [7]": lambda loss, images: loss * images,
    "every term and its gradient are 1.5 times what they should be [7]": lambda loss, _: loss * 1.5,
    "cls_loss and its gradient are 2 times what they should be [7]": lambda loss, _: loss * loss.new_tensor([1.0, 2.0, 1.0]),
    "box_loss is 1.1 times what it should be, with the right gradient [7]": lambda loss, _: torch.cat(
        [loss[:1] + 0.1 * loss[:1].detach(), loss[1:]]
    ),
    "the gradient of box_loss is 2 times what it should be [8]": lambda loss, _: torch.cat([2 * loss[:1] - loss[:1].detach(), loss[1:]]),
    "no gradient of the distribution term [8]": lambda loss, _: torch.cat([loss[:2], loss[2:].detach()]),
}


def guesses(cases: Sequence[Case], contender: Contender, setting: Setting = FLOAT32) -> list[str]:
    findings = judged(cases[0], contender, setting).results[0].findings
    return [
        text
        for word, text in explain(cases[0], setting, contender, findings, [(case, setting) for case in cases[1:]], limits=UNHURRIED)
        if word == "looks like"
    ]


# The soft targets of the last batch's only box sum to less than its number of images: what is taken per image, in S or in the result,
# then gives other factors than on batches of two images.
THREE = [ordinary(0), ordinary(1), dataclasses.replace(ordinary(2), batch_size=6, boxes=ordinary(2).boxes[:1])]


@pytest.mark.parametrize("hint", HINTS)
def test_the_factors_of_the_terms_are_named(hint: str) -> None:
    kind = type("WrongTwin", (Wrong,), {"change": staticmethod(HINTS[hint])})
    (found,) = guesses(THREE, Contender("wrong", "", kind, arithmetic="float32"), FLOAT64)
    assert found.startswith(hint)
    assert found.endswith("explains 3 of 3 batches")


def test_a_factor_that_a_wrong_normaliser_gives_too_is_named_beside_it() -> None:
    kind = type("WrongTwin", (Wrong,), {"change": staticmethod(lambda loss, _: loss * loss.new_tensor([1.0, 2.0, 1.0]))})
    alike = [ordinary(seed) for seed in (0, 1, 2)]
    (found,) = guesses(alike, Contender("wrong", "", kind, arithmetic="float32"), FLOAT64)
    assert "cls_loss and its gradient are 2 times what they should be [7]" in found
    assert found.endswith("no batch tells them apart): explains 3 of 3 batches")


@pytest.mark.parametrize(
    "change",
    [
        lambda loss, _: loss * math.inf,
        lambda loss, _: loss + torch.tensor([0.3, 0.0, 0.0]),
        lambda loss, _: loss * (1 + 3e-5 * loss.detach()),
    ],
    ids=["infinite", "shifted", "bent"],
)
def test_what_nothing_explains_is_not_guessed_at(change: Callable[[Tensor, int], Tensor]) -> None:
    kind = type("WrongTwin", (Wrong,), {"change": staticmethod(change)})
    assert guesses(THREE, Contender("wrong", "", kind, arithmetic="float32")) == []


BOXES = (Box(0, 0, 50.0, 50.0, 70.0, 70.0), Box(1, 1, 48.0, 48.0, 40.0, 60.0))
PLAIN = Case(LossSpec(num_classes=2, strides=(8,)), (96, 96), 2, BOXES, Prediction("random", seed=1))


@pytest.mark.parametrize(
    ("hint", "numbers"), [("K = 9 instead of 10 [5.4]", {"topk": 9}), ("K = 12 instead of 10 [5.4]", {"topk": 12}), ("", {"beta": 2.0})]
)
def test_another_rule_of_assignment_is_named_and_any_other_assignment_is_not(hint: str, numbers: dict[str, Any]) -> None:
    (finding,) = [f for f in judged(PLAIN, changed(**numbers)).results[0].findings if (f.stage, f.quantity) == ("assign", "holders")]
    assert finding.hint == hint


# What each planted fault, seen by its loss alone, is taken for.
FAULTS = {
    "one candidate less": "K - 1 instead of K [5.4]",
    "α and β swapped": "α and β exchanged [5.3]",
    "no side lengthened": "short sides never lengthened [5.1]",
    "no factor of images": "no factor of the number of images [7]",
    "gradient through S": "",
    "boxes rounded to float16": "targets rounded to float16 [3]",
    "no gradient of the distribution term": "no gradient of the distribution term [8]",
    "box term too large by 1e-4": "box_loss and its gradient are 1.0001 times",
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_named_as_what_it_is_or_not_at_all(name: str) -> None:
    (fault,) = [fault for fault in CATALOGUE if fault.name == name]
    first, *others = [dataclasses.replace(FAULTY, prediction=Prediction("near", seed=seed, spread=0.25)) for seed in (1, 2, 3)]
    comparison = judged(first, fault.loss_only(), FLOAT32)
    notes = explain(
        first, FLOAT32, fault.loss_only(), comparison.results[0].findings, [(case, FLOAT32) for case in others], limits=UNHURRIED
    )
    assert not any("agrees" in text and f"gradient of {what}:" in text for what in _gradients(comparison) for _, text in notes)
    found = [text for word, text in notes if word == "looks like"]
    assert len(found) == bool(FAULTS[name])
    assert all(FAULTS[name] in text for text in found), found


def _gradients(comparison: Comparison) -> list[str]:
    return [
        finding.quantity.removeprefix("gradient of ")
        for finding in comparison.results[0].findings
        if finding.quantity.startswith("gradient")
    ]


def test_a_guess_counts_the_other_batches_that_it_explains() -> None:
    wide = Contender("wide", "", lambda spec: silent(changed(topk=9 if spec.num_classes == 2 else 8)).factory(spec), arithmetic="float32")
    more = [dataclasses.replace(PLAIN, prediction=Prediction("random", seed=seed)) for seed in (2, 3)]
    other = dataclasses.replace(PLAIN, spec=dataclasses.replace(PLAIN.spec, num_classes=3))
    (found,) = guesses([PLAIN, *more], wide)
    assert found.startswith("K - 1 instead of K [5.4]")
    assert found.endswith("explains 3 of 3 batches")
    (found,) = guesses([PLAIN, *more, other], wide)
    assert found.endswith("explains 3 of 4 batches; the rest is not explained")
