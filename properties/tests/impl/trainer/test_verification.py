"""The drop-in computes what the model's own criterion computes, release by release, or says what differs."""

from __future__ import annotations

import copy
import dataclasses
import functools
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from properties.tests.impl.test_hook import END_TO_END, PLAIN, alone, detection_model, example  # noqa: F401 - a fixture that applies by itself
from properties.tests.impl.trainer.release_stand_ins import GENERATIONS, Generation, some_batch, stand_in
from twinloss import DetectionLoss, LossSpec, hook
from twinloss.release_definitions import release_of
from twinloss.trainer import verification
from twinloss.trainer.criterion_swap import _twin
from twinloss.trainer.own_criterion import OwnCriterion
from twinloss.trainer.verification import TERMS, verify

BOTH = pytest.mark.parametrize("name", [PLAIN, END_TO_END], ids=["plain", "end to end"])
NEWEST = GENERATIONS[-2]


def listed(value: Any) -> list[float]:
    """A loss or items as numbers."""
    parts = value.values() if isinstance(value, dict) else [value]
    return [float(number) for part in parts for number in torch.as_tensor(part).detach().reshape(-1)]


def same(ours: Any, theirs: Any) -> None:
    """Two answers, loss and items, alike in value and in kind."""
    for found, expected in zip(ours, theirs, strict=True):
        assert type(found) is type(expected)
        assert getattr(found, "shape", None) == getattr(expected, "shape", None)
        assert listed(found) == pytest.approx(listed(expected), rel=1e-4)


class TestReleases:
    """Each release's definition and way of returning."""

    @pytest.mark.parametrize("how", GENERATIONS, ids=[how.release for how in GENERATIONS])
    def test_computes_and_returns_as_the_release_does(self, how: Generation, monkeypatch: pytest.MonkeyPatch) -> None:
        own, model = stand_in(how, monkeypatch), stand_in(how, monkeypatch)
        installed = hook.install(model)
        for training in (True, False):
            with torch.set_grad_enabled(training):
                same(model.train(training).loss(some_batch()), own.train(training).loss(some_batch()))
        assert (installed.training_calls, installed.validation_calls, installed.verifications) == (1, 1, 1)
        model.train().loss(some_batch())[0].sum().backward()
        assert model.model[0].logits.grad.abs().sum() > 0

    def test_a_validation_comes_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        own, model = stand_in(GENERATIONS[0], monkeypatch).eval(), stand_in(GENERATIONS[0], monkeypatch).eval()
        installed = hook.install(model)
        with torch.inference_mode():
            same(model.loss(some_batch()), own.loss(some_batch()))
        assert installed.verifications == 0

    def test_another_definition_than_the_version_says(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = stand_in(Generation("8.4.190", definition="8.4.0"), monkeypatch)
        hook.install(model)
        with pytest.raises(RuntimeError, match=r"of stand_in 8\.4\.190: .*definition of release 8\.4\.0: say install"):
            model.loss(some_batch())
        hook.install(model, release="8.4.0")
        model.criterion = None
        model.loss(some_batch())

    def test_a_release_that_nobody_examined(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = stand_in(Generation("8.0.99", definition="8.0.101"), monkeypatch)
        with pytest.raises(ValueError, match=r"release 8\.0\.99 is older than 8\.0\.100"):
            hook.install(model)
        assert "init_criterion" not in vars(model)

    def test_a_release_whose_models_have_no_criterion(self) -> None:
        model = torch.nn.Module()
        model.model = torch.nn.Sequential(torch.nn.Linear(1, 1))
        yolo = SimpleNamespace(model=model, add_callback=lambda *_: None)
        for target in (model, yolo):
            with pytest.raises(TypeError, match=r"the models of torch .* have no criterion of their own .* 8\.0\.120 and newer"):
                hook.install(target)

    def test_the_version_is_that_of_the_family(self) -> None:
        model = detection_model()
        mine = type("Mine", (type(model),), {"init_criterion": lambda _: None})
        model.__class__ = mine
        assert release_of(model) == release_of(detection_model())
        assert release_of(model).package == "ultralytics"
        assert release_of(object()).version is None

    def test_a_release_that_is_none(self) -> None:
        with pytest.raises(ValueError, match="'newest' is not three numbers"):
            hook.install(detection_model(), release="newest")


class TestNumbers:
    """Numbers are read when and where the model's own criterion reads them."""

    @BOTH
    def test_gains_that_change_between_steps(self, name: Any) -> None:
        own, model = detection_model(name), detection_model(name)
        model.load_state_dict(own.state_dict())
        own.args, model.args = SimpleNamespace(**vars(own.args)), SimpleNamespace(**vars(own.args))
        installed, batch = hook.install(model, ties="reference"), example()
        for factor in (1, 10, 0.3):
            for one in (own, model):
                one.args.box *= factor
                one.args.cls *= 2
            same(model.loss(batch), own.loss(batch))
        assert installed.verifications == 3
        for one in (own, model):
            getattr(one.criterion, "one2one", one.criterion).hyp.dfl = 9.0
        same(model.loss(batch), own.loss(batch))
        for one in (own, model):
            one.args = SimpleNamespace(box=1.0, cls=1.0, dfl=1.0, epochs=5)  # the reference keeps to what it was given
        same(model.loss(batch), own.loss(batch))

    def test_class_weights(self) -> None:
        own, model, batch = detection_model(), detection_model(), example()
        model.load_state_dict(own.state_dict())
        for one in (own, model):
            one.class_weights = torch.tensor([1.0, 5.0, 9.0])
        hook.install(model, ties="reference")
        same(model.loss(batch), own.loss(batch))
        for one in (own, model):
            one.class_weights.mul_(3)
        same(model.loss(batch), own.loss(batch))
        for one in (own, model):
            one.class_weights = torch.ones(3)
        same(model.loss(batch), own.loss(batch))

    @BOTH
    @pytest.mark.parametrize("change", [{"topk": 3}, {"alpha": 1.0}, {"beta": 2.0}, {"eps": 1e-3}])
    def test_an_assigner_with_other_constants(self, name: Any, change: dict[str, float]) -> None:
        own, model, batch = detection_model(name), detection_model(name), example()
        model.load_state_dict(own.state_dict())
        for one in (own, model):
            one.criterion = one.init_criterion()
            part = getattr(one.criterion, "one2one", one.criterion)
            vars(part.assigner).update(change)
        installed = hook.install(model, ties="reference")
        same(model.loss(batch), own.loss(batch))
        assert installed.verifications == 1

    def test_the_share_of_an_end_to_end_head(self) -> None:
        own, model, batch = detection_model(END_TO_END), detection_model(END_TO_END), example()
        model.load_state_dict(own.state_dict())
        hook.install(model, ties="reference")
        for _ in range(3):
            same(model.loss(batch), own.loss(batch))
            for one in (own, model):
                one.criterion.update()
        for one in (own, model):
            one.criterion.o2m, one.criterion.o2o = 0.25, 0.75
        same(model.loss(batch), own.loss(batch))


def giou(metrics: Any, *arguments: Any, **options: Any) -> Any:
    return metrics(*arguments, **{**options, "CIoU": False, "GIoU": True})


class TestChanged:
    """A criterion that somebody has changed is never replaced without a word."""

    @BOTH
    @pytest.mark.parametrize(
        ("change", "told"),
        [
            (lambda own: setattr(own, "bce", torch.nn.BCELoss()), "its bce is a BCELoss"),
            (lambda own: setattr(own.bce, "reduction", "sum"), "its bce has reduction = sum instead of none"),
            (lambda own: setattr(own.bce, "pos_weight", torch.ones(3)), "its bce has pos_weight"),
            (lambda own: setattr(own, "bbox_loss", torch.nn.Identity()), "its bbox_loss is a Identity, not a BboxLoss"),
            (lambda own: setattr(own, "bbox_decode", lambda *_: None), "its criterion is a v8DetectionLoss with its own bbox_decode"),
            (lambda own: setattr(own.assigner, "forward", lambda *_: None), "its assigner is a TaskAlignedAssigner with its own forward"),
            (lambda own: setattr(own, "__class__", type("v8DetectionLoss", (type(own),), {})), "defined in properties"),
        ],
    )
    def test_is_refused_by_name(self, name: Any, change: Any, told: str) -> None:
        before, after = detection_model(name), detection_model(name)
        before.criterion = before.init_criterion()
        change(getattr(before.criterion, "one2one", before.criterion))
        with pytest.raises(TypeError, match=told):
            hook.install(before)
        assert "init_criterion" not in vars(before)
        hook.install(after)
        after.loss(example())
        change(getattr(after.criterion, "one2one", after.criterion))
        with pytest.raises(TypeError, match=told):
            after.loss(example())

    def test_a_method_of_the_model_that_makes_another(self) -> None:
        model = detection_model()
        model.init_criterion = lambda: SimpleNamespace(hyp=None)
        hook.install(model)
        with pytest.raises(TypeError, match="the model's own criterion is a SimpleNamespace, but not the one of ultralytics"):
            model.loss(example())

    @BOTH
    def test_another_overlap_everywhere(self, name: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        model = detection_model(name)
        part = getattr(model.init_criterion(), "one2one", model.init_criterion())
        for kind in (type(part), type(part.assigner)):
            module = sys.modules[kind.__module__]
            assert hasattr(module, "bbox_iou"), "this release computes its overlap elsewhere: mend the test"
            monkeypatch.setattr(module, "bbox_iou", functools.partial(giou, module.bbox_iou))
        hook.install(model)
        with pytest.raises(RuntimeError, match=r"E?2?E?.*Loss of ultralytics .*: box_loss .* where the twin has"):
            model.loss(example())

    @pytest.mark.parametrize("where", ["assigner", "bbox_loss"])
    def test_another_overlap_in_one_place(self, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
        model = detection_model()
        module = sys.modules[type(getattr(model.init_criterion(), where)).__module__]
        monkeypatch.setattr(module, "bbox_iou", functools.partial(giou, module.bbox_iou))
        hook.install(model)
        told = "box_loss" if where == "bbox_loss" else "it assigns other anchors or soft targets to .* of the batch's boxes"
        with pytest.raises(RuntimeError, match=told):
            model.loss(example())

    @pytest.mark.parametrize("term", range(3))
    def test_a_term_that_is_a_thousandth_larger(self, term: int, monkeypatch: pytest.MonkeyPatch) -> None:
        model = detection_model()
        kind = type(model.init_criterion())
        call, factors = kind.__call__, torch.ones(3)
        factors[term] = 1.001

        def scaled(*arguments: Any) -> Any:
            loss, items = call(*arguments)
            return loss * factors, items

        monkeypatch.setattr(kind, "__call__", scaled)
        hook.install(model)
        with pytest.raises(RuntimeError, match=f"ultralytics .*: {('box', 'cls', 'dfl')[term]}_loss \\(in the loss\\) is"):
            model.loss(example())
        silent = hook.install(model, verify=False)
        model.criterion = None
        model.loss(example())
        assert silent.verifications == 0


class TestVerifying:
    """What verification costs, and when it is made."""

    def test_asks_once_and_disturbs_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        gradients = []
        for asked in (True, False):
            model = stand_in(NEWEST, monkeypatch)
            hook.install(model, verify=asked)
            state = torch.get_rng_state()
            for _ in range(3):
                model.loss(some_batch())[0].sum().backward()
            assert torch.equal(torch.get_rng_state(), state)
            assert model.criterion.calls == 1 + asked  # once to learn how it returns
            gradients.append(model.model[0].logits.grad)
        assert torch.equal(*gradients)

    def test_waits_for_a_batch_with_boxes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = stand_in(Generation("8.4.190", definition="8.4.0"), monkeypatch)
        installed = hook.install(model)
        nothing = {name: value[:0] for name, value in some_batch().items()}
        model.loss(nothing)
        assert installed.verifications == 0
        assert model.criterion.pending
        with pytest.raises(RuntimeError, match="definition of release"):
            model.loss(some_batch())

    def test_asks_less_and_less_while_a_batch_says_little(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = stand_in(NEWEST, monkeypatch)
        with torch.no_grad():
            model.model[0].logits[:, -3:] = -80.0  # no class is likely, so that soft targets are all but 0
        hook.install(model)
        calls = []
        for _ in range(9):
            model.loss(some_batch())
            calls.append(model.criterion.calls - 1)
        assert calls == [1, 2, 2, 3, 3, 3, 3, 4, 4]

    @BOTH
    @pytest.mark.parametrize("logit", [0.0, 2.0])
    def test_ties_raise_no_alarm(self, name: Any, logit: float) -> None:
        model = detection_model(name)
        own = OwnCriterion(model.init_criterion(), release_of(model))
        sides = (16, 8, 4)
        columns, bins = sum(side**2 for side in sides), model.model[-1].reg_max
        part = {
            "boxes": torch.full((1, 4 * bins, columns), logit),
            "scores": torch.full((1, 3, columns), -1.0),
            "feats": [torch.zeros(1, 1, side, side) for side in sides],
        }
        batch = {
            "batch_idx": torch.zeros(3),
            "cls": torch.zeros(3, 1),
            "bboxes": torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5], [0.25, 0.5, 0.25, 0.25]]),
        }
        preds = part if own.generation is None else {"one2many": part, "one2one": part}
        assert not verify(own, _twin(own, own.numbers(), {}), preds, batch).differs

    def test_random_batches_raise_no_alarm(self) -> None:
        model = detection_model()
        own = OwnCriterion(model.init_criterion(), release_of(model))
        twin = _twin(own, own.numbers(), {})
        generator = torch.Generator().manual_seed(0)
        for _ in range(40):
            sides, count = (20, 10, 5), 24
            columns = sum(side**2 for side in sides)
            preds = {
                "boxes": torch.randn(2, 64, columns, generator=generator).to(torch.bfloat16),
                "scores": torch.randn(2, 3, columns, generator=generator).to(torch.bfloat16),
                "feats": [torch.zeros(2, 1, side, side) for side in sides],
            }
            batch = {
                "batch_idx": torch.arange(2).repeat_interleave(count // 2).float(),
                "cls": torch.randint(0, 3, (count, 1), generator=generator).float(),
                "bboxes": torch.cat([torch.rand(count, 2, generator=generator), 0.4 * torch.rand(count, 2, generator=generator)], 1),
            }
            finding = verify(own, twin, preds, batch)
            assert not finding.differs
            assert finding.telling

    def test_a_difference_is_said_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = stand_in(Generation("8.4.190", definition="8.4.0"), monkeypatch)
        hook.install(model)
        for _ in range(3):
            with pytest.raises(RuntimeError, match="definition of release"):
                model.loss(some_batch())

    def test_the_log_says_which_batch_shows_the_assignment(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        model = stand_in(NEWEST, monkeypatch)
        hook.install(model)
        with caplog.at_level("INFO", logger="ultralytics.twinloss"):
            with monkeypatch.context() as changed:
                changed.setattr(verification, "TELLING_TARGET", 2.0)  # as where all soft targets are below a thousandth
                model.loss(some_batch())
            assert model.criterion.pending
            for _ in range(3):
                model.loss(some_batch())
        first, second = (record.getMessage() for record in caplog.records)
        assert "verified in part on this batch" in first
        assert second.startswith("twinloss: batch 2: verified on this batch against the model's own v8DetectionLoss: terms ")

    def test_an_own_criterion_that_raises_does_not_end_the_training(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        model = stand_in(NEWEST, monkeypatch)
        installed = hook.install(model)
        call = type(model.init_criterion.own()).__call__

        def raising(*arguments: Any) -> Any:
            if len(arguments[2]["bboxes"]):
                raise IndexError("selected index k out of range")
            return call(*arguments)

        monkeypatch.setattr(type(model.init_criterion.own()), "__call__", raising)
        with caplog.at_level("WARNING", logger="ultralytics.twinloss"):
            model.loss(some_batch())
        assert model.criterion.pending
        assert installed.verifications == 0
        told = "not verified on this batch: the model's own v8DetectionLoss raises IndexError (selected index k out of range)"
        assert told in caplog.text

    def test_a_comparison_that_fails_by_itself_is_not_passed_over(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A warning alone would leave the twin unverified."""
        model = stand_in(NEWEST, monkeypatch)

        def unreadable(*_: Any) -> None:
            raise ValueError("not enough values to unpack")

        monkeypatch.setattr("twinloss.trainer.verification._assignment", unreadable)
        hook.install(model)
        with pytest.raises(RuntimeError, match=r"could not be compared .*: ValueError \(not enough values .*verify=False"):
            model.loss(some_batch())

    def test_predictions_that_have_overflowed_raise_no_alarm(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = stand_in(NEWEST, monkeypatch)
        with torch.no_grad():
            model.model[0].logits.fill_(torch.nan)
        hook.install(model)
        model.loss(some_batch())
        assert model.criterion.pending

    def test_a_copy_reads_the_numbers_of_its_own(self) -> None:
        model = detection_model()
        model.args = SimpleNamespace(**vars(model.args))
        hook.install(model)
        model.loss(example())
        average = copy.deepcopy(model)
        model.args.box *= 10
        model.loss(example())
        average.loss(example())
        gains = [one.criterion.loss.spec.gains[0] for one in (model, average)]
        assert gains == [75.0, 7.5]
        assert average.criterion.own.criterion is not model.criterion.own.criterion
        assert average.criterion.hyp is average.args

    def test_the_newest_definition_where_no_version_is_known(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = stand_in(NEWEST, monkeypatch)
        monkeypatch.delattr(sys.modules["stand_in"], "__version__")
        hook.install(model)
        model.loss(some_batch())
        assert model.criterion.loss.spec == LossSpec(num_classes=3)


class TestRounding:
    """Roundings of the own criterion in float32 are no difference, and hide none."""

    @staticmethod
    def asked(name: Any) -> tuple[OwnCriterion, Any, Any]:
        """The own criterion of a model, a function that makes its twin, and predictions that say the same of every class and anchor."""
        model = detection_model(name)
        model.train()
        with torch.no_grad():
            preds = model(torch.zeros(2, 3, 1280, 1280))
        for part in preds.values() if "scores" not in preds else [preds]:
            part["scores"].fill_(-11.5)
        hook.install(model)
        model.criterion = model.init_criterion()
        return model.criterion.own, model.criterion.loss, preds

    @BOTH
    def test_equal_logits_far_below_zero(self, name: Any) -> None:
        own, loss, preds = self.asked(name)
        finding = verify(own, loss, preds, example())
        assert finding.largest > TERMS  # the reference's roundings have one sign
        assert not finding.differs

    @BOTH
    def test_another_gain_on_such_logits(self, name: Any) -> None:
        own, loss, preds = self.asked(name)
        for part in (loss,) if isinstance(loss, DetectionLoss) else (loss.one2many, loss.one2one):
            gains = part.spec.gains
            part.spec = dataclasses.replace(part.spec, gains=(gains[0], gains[1] * 1.001, gains[2]))
        assert "cls_loss" in verify(own, loss, preds, example()).differs
