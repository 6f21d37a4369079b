"""Contenders: the reference behind the contract, what it declines, running any of them, and finding a user's."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from oracle.cases.build import build
from oracle.cases.case import Box, Case, Inputs, Prediction, Setting
from oracle.cases.tasks.flow import Flow
from oracle.comparison.registry import CandidateError, load_candidate, shipped
from oracle.contract.contender import Contender, Criterion, OffersStages
from oracle.contract.run import in_setting, make_criterion, run_assign, run_given, run_loss
from oracle.definition.criterion import ExactCriterion
from twinloss import DetectionLoss, LossSpec, PoseLoss, PoseSpec

reference = pytest.importorskip("oracle.reference.criterion")

SPEC = LossSpec(num_classes=3, reg_max=4)
BOXES = (Box(0, 1, 21, 33, 30, 27), Box(0, 2, 40, 22, 18, 41), Box(1, 0, 30, 30, 50, 44))
CASE = Case(SPEC, (64, 64), 2, BOXES, Prediction("random", 11))
SETTINGS = (
    Setting("float64"),
    Setting("float32"),
    Setting("float16"),
    Setting("bfloat16"),
    Setting("float32", autocast="bfloat16"),
    Setting("float32", autocast="float16"),
    Setting("bfloat16", autocast="bfloat16"),
    Setting("float16", autocast="float16"),
)


def by_name(setting: Setting) -> str:
    return setting.name


class TestReference:
    @pytest.mark.parametrize("setting", SETTINGS, ids=by_name)
    def test_its_own_assignment_given_back_gives_its_own_loss_to_the_bit(self, setting: Setting) -> None:
        criterion, inputs = reference.ReferenceCriterion(SPEC), build(CASE, setting)
        whole = run_loss(criterion, inputs, setting)
        assignment = criterion.last_assignment(inputs.batch)
        assert len(assignment.anchor) > 0
        given = run_given(criterion, inputs, setting, assignment)
        assert torch.equal(whole.loss, given.loss)
        assert torch.equal(whole.gradients["boxes"], given.gradients["boxes"])
        assert torch.equal(whole.gradients["scores"], given.gradients["scores"])
        again = run_assign(criterion, inputs, setting)
        assert torch.equal(again.anchor, assignment.anchor)
        assert torch.equal(again.box, assignment.box)

    @pytest.mark.parametrize("setting", SETTINGS, ids=by_name)
    def test_every_stage_can_be_called_in_every_setting(self, setting: Setting) -> None:
        criterion, inputs = reference.ReferenceCriterion(SPEC), build(CASE, setting)
        assert isinstance(criterion, OffersStages)
        with in_setting(setting, criterion):
            centres, strides = criterion.anchors(inputs.preds)
            assert centres.shape == (84, 2)
            assert strides.shape == (84,)
            assert criterion.decode(inputs.preds).shape == (2, 84, 4)
            assert criterion.targets(*inputs).row.tolist() == [0, 1, 2]
            metrics = criterion.metrics(*inputs)
        assert len(metrics.row) == len(metrics.metric) > 0
        assert (metrics.overlap >= 0).all()

    def test_it_computes_in_float64_throughout_when_the_logits_are(self) -> None:
        criterion = reference.ReferenceCriterion(SPEC)
        assert set(criterion.dtypes(*build(CASE, Setting("float64"))).values()) == {torch.float64}
        assert torch.get_default_dtype() == torch.float32

    def test_in_half_precision_scores_and_corners_are_half_and_the_rest_is_float32(self) -> None:
        dtypes = reference.ReferenceCriterion(SPEC).dtypes(*build(CASE, Setting("bfloat16")))
        assert {name for name, dtype in dtypes.items() if dtype == torch.bfloat16} == {"anchors", "decode", "probability"}
        assert {dtypes[name] for name in ("boxes", "targets", "weight", "loss")} == {torch.float32}

    def test_rows_that_it_drops_keep_their_numbers(self) -> None:
        dropped = Box(0, 0, -30, 20, 20, 20)
        inputs = build(Case(SPEC, (64, 64), 2, (dropped, *BOXES), Prediction("random", 11)))
        criterion = reference.ReferenceCriterion(SPEC)
        assert set(criterion.assign(*inputs).box.tolist()) == {1, 2, 3}
        assert criterion.targets(*inputs).row.tolist() == [1, 2, 3]

    def test_batches_without_boxes(self) -> None:
        inputs = build(Case(SPEC, (64, 64), 2, (), Prediction("random", 11)))
        criterion = reference.ReferenceCriterion(SPEC)
        outcome = run_loss(criterion, inputs, Setting())
        assert outcome.missing == ()
        assert len(criterion.last_assignment(inputs.batch).anchor) == 0
        assert torch.equal(run_given(criterion, inputs, Setting(), ExactCriterion(SPEC).assign(*inputs)).loss, outcome.loss)

    def test_nothing_is_recorded_before_a_call(self) -> None:
        with pytest.raises(RuntimeError, match="call the criterion first"):
            reference.ReferenceCriterion(SPEC).last_assignment(build(CASE).batch)

    def test_exponents_reach_it(self) -> None:
        spec = LossSpec(num_classes=3, reg_max=4, alpha=1.0, beta=2.0)
        inputs = build(CASE, Setting("float64"))
        ours, theirs = ExactCriterion(spec)(*inputs)[0], reference.ReferenceCriterion(spec)(*inputs)[0]
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
        assert not torch.allclose(ours, ExactCriterion(SPEC)(*inputs)[0])


class TestDeclines:
    """What is reported as "not compared" is what the reference raises on, and nothing else is."""

    @pytest.mark.parametrize("setting", SETTINGS, ids=by_name)
    def test_ordinary_batches_are_compared(self, setting: Setting) -> None:
        assert reference.declines(SPEC, build(CASE, setting), setting) is None

    @pytest.mark.parametrize("setting", [Setting("float16", "bfloat16"), Setting("bfloat16", "float16")], ids=by_name)
    def test_two_halves_at_once(self, setting: Setting) -> None:
        self.declined(SPEC, build(CASE, setting), setting, "under autocast", RuntimeError)

    @pytest.mark.parametrize("spec", [LossSpec(num_classes=3, strides=(32,)), LossSpec(num_classes=3, strides=(32,), topk=2, topk2=5)])
    def test_fewer_anchors_than_topk(self, spec: LossSpec) -> None:
        case = Case(spec, (64, 64), 2, BOXES, Prediction("random", 1))
        self.declined(spec, build(case), Setting(), "fewer anchors", RuntimeError)
        empty = build(Case(spec, (64, 64), 2, (), Prediction("random", 1)))
        assert reference.declines(spec, empty, Setting()) is None
        assert run_loss(reference.ReferenceCriterion(spec), empty, Setting()).loss[1] > 0

    def test_unsorted_batches(self) -> None:
        case = Case(SPEC, (64, 64), 2, (BOXES[2], *BOXES[:2]), Prediction("random", 1))
        self.declined(SPEC, build(case), Setting(), "sorted", IndexError)

    def test_targets_in_another_dtype(self) -> None:
        inputs = build(CASE)
        self.declined(SPEC, Inputs(inputs.preds, {k: v.double() for k, v in inputs.batch.items()}), Setting(), "boxes", RuntimeError)

    @pytest.mark.parametrize("field", ["assign_eps", "ciou_eps", "clamp_margin"])
    def test_numbers_that_it_has_no_opening_for(self, field: str) -> None:
        with pytest.raises(reference.ReferenceDeclines, match=field):
            reference.ReferenceCriterion(LossSpec(num_classes=3, **{field: 1e-3}))  # type: ignore[arg-type]

    def declined(self, spec: LossSpec, inputs: Inputs, setting: Setting, reason: str, error: type[Exception]) -> None:
        assert reason in (reference.declines(spec, inputs, setting) or "")
        with pytest.raises(error):
            run_loss(reference.ReferenceCriterion(spec), inputs, setting)


class TestRun:
    @pytest.mark.parametrize("name", sorted(shipped()))
    @pytest.mark.parametrize("setting", SETTINGS, ids=by_name)
    def test_shipped_contenders_run_in_every_setting(self, name: str, setting: Setting) -> None:
        contender = shipped()[name]
        criterion = make_criterion(contender, SPEC, setting)
        inputs = build(CASE, setting)
        truth = run_loss(ExactCriterion(SPEC), inputs, setting)
        outcome = run_loss(criterion, inputs, setting)
        assert outcome.missing == ()
        assert outcome.loss.dtype == outcome.gradients["boxes"].dtype == torch.float64
        assert list(outcome.items) == ["box_loss", "cls_loss", "dfl_loss"]
        torch.testing.assert_close(outcome.loss, truth.loss, rtol=0.05, atol=0.05)
        assert isinstance(criterion, OffersStages)
        assignment = run_assign(criterion, inputs, setting)
        torch.testing.assert_close(run_given(criterion, inputs, setting, assignment).loss, outcome.loss)

    def test_cotangent_weighs_the_terms(self) -> None:
        inputs = build(CASE)
        cotangents = ((2.0, 3.0, 5.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
        whole, box, cls, dfl = (run_loss(ExactCriterion(SPEC), inputs, Setting(), cotangent) for cotangent in cotangents)
        torch.testing.assert_close(whole.gradients["boxes"], 2 * box.gradients["boxes"] + 5 * dfl.gradients["boxes"])
        torch.testing.assert_close(whole.gradients["scores"], 3 * cls.gradients["scores"])
        assert not cls.gradients["boxes"].any()
        assert not box.gradients["scores"].any()

    def test_truth_is_of_the_rounded_logits_and_is_not_rounded_itself(self) -> None:
        inputs = build(CASE, Setting("bfloat16"))
        outcome = run_loss(ExactCriterion(SPEC), inputs, Setting("bfloat16", "bfloat16"))
        assert (outcome.gradients["scores"] != outcome.gradients["scores"].bfloat16().double()).any()
        wide = Inputs({**inputs.preds, "boxes": inputs.preds["boxes"].double(), "scores": inputs.preds["scores"].double()}, inputs.batch)
        assert torch.equal(outcome.loss, run_loss(ExactCriterion(SPEC), wide, Setting("float64")).loss)

    def test_a_criterion_cannot_spoil_the_inputs_of_the_next(self) -> None:
        def vandal(preds, batch):  # type: ignore[no-untyped-def]
            batch["bboxes"].zero_()
            preds["feats"].clear()
            with torch.no_grad():
                preds["scores"].zero_()
            return (preds["scores"] * 0).sum() + torch.zeros(3), {}

        inputs = build(CASE)
        before = inputs.batch["bboxes"].clone(), inputs.preds["scores"].detach().clone()
        outcome = run_loss(vandal, inputs, Setting())
        assert torch.equal(inputs.batch["bboxes"], before[0])
        assert torch.equal(inputs.preds["scores"], before[1])
        assert len(inputs.preds["feats"]) == 3
        assert outcome.missing == ("boxes",)

    def test_gradients_that_are_missing_are_named(self) -> None:
        outcome = run_loss(lambda _preds, _batch: (torch.ones(3), {}), build(CASE), Setting())
        assert outcome.missing == ("boxes", "scores")
        assert not outcome.gradients["scores"].any()

    def test_a_loss_of_another_shape_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"shape \(2,\); it must be a tensor of shape \(3,\)"):
            run_loss(lambda _preds, _batch: (torch.ones(2), {}), build(CASE), Setting())

    def test_the_twin_is_not_helped_by_the_default_dtype(self) -> None:
        with in_setting(Setting("float64"), DetectionLoss(SPEC)):
            assert torch.get_default_dtype() == torch.float32
        with in_setting(Setting("float64"), reference.ReferenceCriterion(SPEC)):
            assert torch.get_default_dtype() == torch.float64

    def test_a_factory_that_makes_nothing_callable(self) -> None:
        with pytest.raises(TypeError, match="factory of broken returned None"):
            make_criterion(Contender("broken", "0", lambda _spec: None), SPEC, Setting())  # type: ignore[arg-type, return-value]


MINE = """
from twinloss import DetectionLoss

def factory(spec):
    return DetectionLoss(spec)

factory.arithmetic = "float32"
number = 3
"""


class TestCandidates:
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        """A current folder with a package of candidates."""
        (tmp_path / "candidates_here").mkdir()
        (tmp_path / "candidates_here" / "__init__.py").write_text("__version__ = '3.1'\n")
        (tmp_path / "candidates_here" / "mine.py").write_text(MINE)
        (tmp_path / "candidates_here" / "needy.py").write_text("import a_package_that_nobody_has\n")
        (tmp_path / "candidates_here" / "broken.py").write_text("raise RuntimeError('no licence')\n")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", list(sys.path))
        importlib.invalidate_caches()
        yield tmp_path
        for name in [name for name in sys.modules if name.startswith("candidates_here")]:
            del sys.modules[name]

    def test_a_candidate_of_the_current_folder(self) -> None:
        contender = load_candidate("candidates_here.mine:factory")
        assert (contender.name, contender.version) == ("candidates_here.mine:factory", "candidates_here 3.1")
        assert contender.arithmetic == "float32"
        inputs = build(CASE)
        expected = run_loss(DetectionLoss(SPEC), inputs, Setting())
        assert torch.equal(run_loss(make_criterion(contender, SPEC, Setting()), inputs, Setting()).loss, expected.loss)

    def test_a_class_is_a_factory(self) -> None:
        contender = load_candidate("twinloss:DetectionLoss")
        assert contender.version.startswith("twinloss ")
        assert contender.arithmetic == "logits"

    @pytest.mark.parametrize(
        ("path", "message"),
        [
            ("candidates_here.mine", "has no module or no factory"),
            (":factory", "write --candidate package.module:factory"),
            ("candidates_here.mine:", "write --candidate package.module:factory"),
            ("nowhere.mine:factory", "there is no module 'nowhere'; run from the folder that holds it.*PYTHONPATH"),
            ("candidates_here.yours:factory", r"there is no module 'candidates_here\.yours'"),
            ("candidates_here.needy:factory", "imports 'a_package_that_nobody_has', which is not installed"),
            ("candidates_here.broken:factory", "importing candidates_here.broken raised RuntimeError: no licence"),
            ("candidates_here.mine:factroy", "has no 'factroy'; did you mean factory"),
            ("candidates_here.mine:zzz", "has no 'zzz'; .*mine.py does not define it"),
            ("candidates_here.mine:number", "must be a function that takes a LossSpec"),
        ],
    )
    def test_paths_that_lead_nowhere_say_where_they_end(self, path: str, message: str) -> None:
        with pytest.raises(CandidateError, match=message):
            load_candidate(path)


def test_a_factory_that_takes_no_flow_is_told_of_it() -> None:
    def factory(spec: PoseSpec) -> Criterion:
        return PoseLoss(spec)

    spec, contender = PoseSpec(num_classes=1, generation=2, flow=True), Contender("mine", "none", factory)
    with pytest.raises(TypeError, match=r"factory\(spec, flow=module\): take it, or say so in factory\.declines"):
        make_criterion(contender, spec, Setting(), Flow())
