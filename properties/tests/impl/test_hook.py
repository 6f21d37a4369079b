"""The drop-in on real models and trainers of the reference: what survives, what is refused, and that nothing else changes."""

from __future__ import annotations

import copy
import io
import logging
import pickle
import pickletools
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from properties.tests.properties.training.no_network import offline
from properties.training.synthetic_images import make_images
from twinloss import DetectionLoss, EndToEndLoss, LossSpec, hook

training = pytest.importorskip("oracle.reference.training")

MODELS = ("yolov8n.yaml", "yolo11n.yaml", "yolov10n.yaml", "yolo26n.yaml")
YAMLS = Path(__file__).parents[3] / "properties" / "training"
PLAIN, END_TO_END = YAMLS / "tiny.yaml", YAMLS / "tiny-end-to-end.yaml"
GAINS = SimpleNamespace(box=7.5, cls=0.5, dfl=1.5, epochs=5)


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """A trainer's own surroundings, with no way out to a network."""
    with training.training_process(), offline():
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("pictures"), train=8, val=4)


@pytest.fixture
def train(data: Path, tmp_path: Path) -> Callable[..., list[float]]:
    """Trains and gives the loss of every step: two an epoch."""

    def run(yolo: Any, **overrides: Any) -> list[float]:
        losses: list[float] = []
        yolo.add_callback("on_train_batch_end", lambda trainer: losses.append(float(trainer.loss)))
        yolo.train(
            **training.CPU_OPTIONS
            | {"data": str(data), "imgsz": 64, "epochs": 2, "batch": 4, "project": str(tmp_path), "name": "run"}
            | overrides
        )
        return losses

    return run


def detection_model(name: str | Path = PLAIN) -> Any:
    model = training.yolo(name).model
    model.args = GAINS
    return model.train()


def example() -> dict[str, torch.Tensor]:
    boxes = torch.tensor([[0.5, 0.5, 0.4, 0.3], [0.3, 0.6, 0.2, 0.2], [0.6, 0.4, 0.5, 0.5]])
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return {"img": images, "batch_idx": torch.tensor([0.0, 0.0, 1.0]), "cls": torch.tensor([[0.0], [2.0], [1.0]]), "bboxes": boxes}


def modules(content: bytes) -> set[str]:
    """Modules of the twin that a pickle, or a checkpoint, refers to; a path may hold the same word."""
    if zipfile.is_zipfile(io.BytesIO(content)):
        archive = zipfile.ZipFile(io.BytesIO(content))
        content = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    words = [word for _, argument, _ in pickletools.genops(content) if isinstance(argument, str) for word in argument.split(" ")[:1]]
    return {word for word in words if word.split(".", maxsplit=1)[0] == "twinloss"}


def test_modules_of_a_pickle_are_found_whatever_the_path() -> None:
    assert modules(pickle.dumps([DetectionLoss, "/a/twinloss/b"])) == {"twinloss.loss"}
    assert modules(pickle.dumps(LossSpec(num_classes=1), protocol=2)) == {"twinloss.spec"}
    assert not modules(pickle.dumps("/a/twinloss/b"))


class TestTraining:
    """Whole trainings, from YAML to checkpoint."""

    @pytest.mark.parametrize("model", MODELS)
    def test_follows_the_reference(self, model: str, train: Callable[..., list[float]]) -> None:
        validated: list[dict[str, float]] = []

        def note(trainer: Any) -> None:
            losses = {name: value for name, value in trainer.metrics.items() if name.startswith("val/")}
            validated.extend([losses] * bool(losses))  # the last of all has none

        own, replaced = training.yolo(model), training.yolo(model)
        own.add_callback("on_fit_epoch_end", note)
        replaced.add_callback("on_fit_epoch_end", note)
        expected = train(own)
        with hook.install(replaced, ties="reference") as installed:
            found = train(replaced)
        assert found == pytest.approx(expected, rel=1e-3)
        assert found != expected, "to the bit the same: this cannot have been another implementation"
        assert (installed.training_calls, installed.validation_calls) == (4, 2)
        assert len(validated) == 2 * 2
        assert validated[2:] == [pytest.approx(losses, rel=1e-3) for losses in validated[:2]]

    def test_a_trainer_without_yolo(self, data: Path, tmp_path: Path) -> None:
        overrides = {"model": str(PLAIN), "data": str(data), "imgsz": 64, "epochs": 1, "batch": 4, "project": str(tmp_path), "name": "run"}
        trainer = training.trainer_class()(overrides=training.CPU_OPTIONS | overrides)
        with hook.install(trainer) as installed:
            trainer.train()
        assert (installed.training_calls, installed.validation_calls) == (2, 1)

    def test_the_average_has_a_twin_of_its_own_and_validates_with_it(self, train: Callable[..., list[float]]) -> None:
        yolo, averages = training.yolo(PLAIN), []
        installed = hook.install(yolo)

        def note(trainer: Any) -> None:
            averages.append((trainer.ema.ema.criterion, trainer.ema.ema.init_criterion.model is trainer.ema.ema))
            assert averages[-1][0] is not trainer.model.criterion

        yolo.add_callback("on_model_save", note)  # after the validation of an epoch
        train(yolo)
        assert [type(criterion.loss) for criterion, _ in averages] == [DetectionLoss] * 2
        assert all(own for _, own in averages)
        assert installed.validation_calls == 2

    def test_class_weights_reach_the_twin(self, train: Callable[..., list[float]]) -> None:
        expected, weights = train(training.yolo(PLAIN), cls_pw=1.0), []
        yolo = training.yolo(PLAIN)
        hook.install(yolo)
        yolo.add_callback("on_train_epoch_end", lambda trainer: weights.append(trainer.model.criterion.loss.spec.class_weights))
        assert train(yolo, cls_pw=1.0) == pytest.approx(expected, rel=1e-3)
        assert len(set(weights[0])) == 3

    def test_says_once_that_it_is_active(self, train: Callable[..., list[float]]) -> None:
        records: list[logging.LogRecord] = []
        handler = logging.Handler()
        handler.emit = records.append  # type: ignore[method-assign, assignment]
        logger = logging.getLogger("ultralytics")
        yolo = training.yolo(PLAIN)
        yolo.add_callback("on_pretrain_routine_end", hook.callback())
        logger.addHandler(handler)
        try:
            train(yolo)
        finally:
            logger.removeHandler(handler)
        assert [record.name for record in records].count("ultralytics.twinloss") == 1
        assert any("active, this training's criterion is DetectionLoss" in record.getMessage() for record in records)

    def test_checkpoints_hold_none_of_it(self, train: Callable[..., list[float]]) -> None:
        yolo, during = training.yolo(PLAIN), []
        hook.install(yolo)
        yolo.add_callback("on_model_save", lambda trainer: during.append(Path(trainer.last).read_bytes()))
        train(yolo)
        final = [Path(yolo.trainer.last).read_bytes(), Path(yolo.trainer.best).read_bytes()]
        assert len(during) == 2
        assert not any(modules(checkpoint) for checkpoint in (*during, *final))
        model = training.yolo(yolo.trainer.last).model.train()
        model.args = GAINS
        loss, _ = model.loss(example())
        assert loss.isfinite().all()
        assert type(model.criterion).__name__ == "v8DetectionLoss"

    def test_trains_again_with_the_same_object(self, train: Callable[..., list[float]]) -> None:
        yolo = training.yolo(PLAIN)
        installed = hook.install(yolo)
        train(yolo, epochs=1)
        assert installed.training_calls == 2
        train(yolo, epochs=1)
        assert installed.training_calls == 4
        hook.uninstall(yolo)
        train(yolo, epochs=1)
        assert installed.training_calls == 4
        assert type(yolo.trainer.model.criterion).__name__ == "v8DetectionLoss"

    def test_resumes_where_the_schedule_was(self, train: Callable[..., list[float]]) -> None:
        shares: list[float] = []

        def note(trainer: Any) -> None:
            shares.append(trainer.model.criterion.loss.one2many_share)

        def stop(trainer: Any) -> None:
            if trainer.epoch == 1:
                raise KeyboardInterrupt

        yolo = training.yolo(END_TO_END)
        hook.install(yolo)
        yolo.add_callback("on_train_batch_end", note)
        yolo.add_callback("on_fit_epoch_end", stop)
        with pytest.raises(KeyboardInterrupt):
            train(yolo, epochs=4)
        resumed = training.yolo(yolo.trainer.last)
        resumed.add_callback("on_train_batch_end", note)
        with hook.install(resumed) as installed:
            train(resumed, epochs=4, resume=True)
        expected = EndToEndLoss(LossSpec(num_classes=3), epochs=4)
        for share in shares[::2]:
            assert share == expected.one2many_share
            expected.update()
        assert installed.training_calls == 4 == len(shares) // 2

    @pytest.mark.skipif(
        torch.torch_version.TorchVersion(torch.__version__) < "2.7",
        reason="Gloo, which joins processes on a CPU, cannot average in torch 2.6, and the reference's trainer asks it to",
    )
    def test_two_processes(self, train: Callable[..., list[float]]) -> None:
        from properties.tests.properties.training.two_process_trainer import TwoProcesses

        yolo = training.yolo(PLAIN)
        with hook.install(yolo) as installed:
            train(yolo, trainer=TwoProcesses)
        assert installed.training_calls == 2 * 2 * 2  # processes, epochs, steps

    def test_compiled(self, train: Callable[..., list[float]], monkeypatch: pytest.MonkeyPatch) -> None:
        compiled: list[type] = []
        compile_ = torch.compile

        def trace_only(model: Any, **_: Any) -> Any:
            compiled.append(type(model))
            return compile_(model, backend="eager")  # everything but the minutes that code generation takes

        monkeypatch.setattr(torch, "compile", trace_only)
        expected, yolo = train(training.yolo(PLAIN)), training.yolo(PLAIN)
        with hook.install(yolo) as installed:
            assert train(yolo, compile="default") == pytest.approx(expected, rel=1e-3)
        assert compiled
        assert installed.training_calls == 4


class TestModel:
    """On a model alone."""

    @pytest.mark.parametrize("name", MODELS)
    def test_takes_over_and_gives_back(self, name: str) -> None:
        model, batch = detection_model(name), example()
        expected, items = model.loss(batch)
        own = model.criterion
        installed = hook.install(model, ties="reference")
        found, found_items = model.loss(batch)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found_items, items, rtol=1e-4, atol=1e-4)
        assert installed.training_calls == 1
        hook.uninstall(model)
        assert model.criterion is own
        assert "init_criterion" not in vars(model)
        torch.testing.assert_close(model.loss(batch)[0], expected, rtol=0, atol=0)
        assert installed.training_calls == 1

    def test_leaves_a_fresh_model_as_it_was(self) -> None:
        model = detection_model()
        before = set(vars(model))
        with hook.install(model):
            model.loss(example())
        assert set(vars(model)) == before

    def test_a_validating_model_is_heard_apart(self) -> None:
        model = detection_model().eval()
        installed = hook.install(model)
        with torch.inference_mode():
            loss, _ = model.loss(example())
        assert loss.isfinite().all()
        assert (installed.training_calls, installed.validation_calls) == (0, 1)

    def test_a_copy_has_a_twin_of_its_own(self) -> None:
        model = detection_model(END_TO_END)
        installed = hook.install(model)
        model.loss(example())
        average = copy.deepcopy(model)
        assert average.criterion is not model.criterion
        average.criterion.update()
        assert (average.criterion.updates, model.criterion.updates) == (1, 0)
        average.criterion = None
        average.loss(example())
        assert average.init_criterion.model is average
        assert installed.training_calls == 2
        hook.uninstall(average)
        assert type(average.init_criterion()).__name__ == "E2ELoss"

    def test_a_copy_leaves_the_model_alone(self) -> None:
        model = detection_model()
        hook.install(model)
        model.loss(example())
        average = copy.deepcopy(model)
        assert model.init_criterion.model is model
        hook.uninstall(model)
        assert "init_criterion" not in vars(model)
        assert average.init_criterion.model is average

    def test_a_pickled_model_has_its_own(self) -> None:
        model = detection_model()
        hook.install(model)
        expected, _ = model.loss(example())
        content = pickle.dumps(model)
        assert not modules(content)
        loaded = pickle.loads(content)
        found, _ = loaded.loss(example())
        assert type(loaded.criterion).__name__ == "v8DetectionLoss"
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        assert hook.install(loaded).training_calls == 0

    def test_the_schedule_passes_from_one_to_the_other(self) -> None:
        model, batch = detection_model(END_TO_END), example()
        model.loss(batch)
        model.criterion.update()
        hook.install(model)
        model.loss(batch)
        assert model.criterion.updates == 1
        model.criterion.update()
        share = model.criterion.loss.one2many_share
        ours, _ = model.loss(batch)
        hook.uninstall(model)
        assert (model.criterion.updates, model.criterion.o2m) == (2, pytest.approx(share, abs=1e-12))
        torch.testing.assert_close(ours, model.loss(batch)[0], rtol=1e-4, atol=1e-4)

    def test_the_last_installed_is_used(self) -> None:
        model = detection_model()
        first, second = hook.install(model), hook.install(model, conflicts="pickers")
        model.loss(example())
        assert (first.training_calls, second.training_calls) == (0, 1)
        assert model.criterion.loss.conflicts == "pickers"
        hook.uninstall(model)
        assert "init_criterion" not in vars(model)

    def test_compiled_with_the_loss_inside(self) -> None:
        plain, model, batch = detection_model(), detection_model(), example()
        model.load_state_dict(plain.state_dict())
        expected, _ = plain.loss(batch)
        compiled: Any = torch.compile(model, backend="eager")
        installed = hook.install(compiled)
        for _ in range(2):
            loss, _ = compiled(batch)
            loss.sum().backward()
        assert installed.training_calls == 2
        assert isinstance(model.criterion.loss, DetectionLoss)
        torch.testing.assert_close(loss.detach(), expected.detach(), rtol=0.2, atol=1)  # batch statistics moved once in between

    def test_reads_what_the_model_says(self) -> None:
        model = detection_model()
        model.args = SimpleNamespace(box=1.0, cls=2.0, dfl=3.0, epochs=7)
        hook.install(model)
        spec = model.init_criterion().loss.spec
        assert (spec.num_classes, spec.reg_max, spec.strides, spec.gains) == (3, 16, (8, 16, 32), (1.0, 2.0, 3.0))
        assert (spec.topk, spec.topk2, spec.alpha, spec.beta, spec.class_weights) == (10, 10, 0.5, 6.0, None)


class TestSilence:
    """Where the twin would silently not be used, an error says so."""

    def test_a_criterion_replaced_later(self, train: Callable[..., list[float]]) -> None:
        yolo = training.yolo(PLAIN)
        hook.install(yolo)
        yolo.add_callback("on_train_start", lambda trainer: setattr(trainer.model, "criterion", trainer.model.init_criterion.own()))
        with pytest.raises(
            RuntimeError, match="an epoch was trained without the twin: the DetectionModel's criterion is a v8DetectionLoss"
        ):
            train(yolo)

    def test_nothing_trained(self) -> None:
        with pytest.raises(RuntimeError, match="nothing was trained with it"), hook.install(training.yolo(PLAIN)):
            pass

    def test_an_error_in_the_block_is_not_hidden(self) -> None:
        with pytest.raises(KeyError), hook.install(training.yolo(PLAIN)):
            raise KeyError

    def test_added_to_the_wrong_event(self, train: Callable[..., list[float]]) -> None:
        yolo = training.yolo(PLAIN)
        yolo.add_callback("on_pretrain_routine_start", hook.callback())
        with pytest.raises(RuntimeError, match="add this callback to 'on_pretrain_routine_end'"):
            train(yolo)


class TestRefusals:
    """Heads and criteria that the twin does not stand for."""

    def test_names_the_head(self) -> None:
        yolo = training.yolo("yolov8n-cls.yaml")
        before = set(vars(yolo.model))
        with pytest.raises(TypeError, match="does not serve the head Classify; it serves Detect, v10Detect, Segment, OBB, Pose and those"):
            hook.install(yolo)
        assert set(vars(yolo.model)) == before

    def test_a_trainer_of_another_head(self) -> None:
        trainer = SimpleNamespace(model=training.yolo("yolov8n-cls.yaml").model, ema=None, callbacks={})
        with pytest.raises(TypeError, match="does not serve the head Classify"):
            hook.callback()(trainer)

    def test_another_criterion(self) -> None:
        model = detection_model()
        model.init_criterion = SimpleNamespace
        hook.install(model)
        with pytest.raises(TypeError, match="the model's own criterion is a SimpleNamespace"):
            model.loss(example())

    def test_neither_model_nor_trainer(self) -> None:
        with pytest.raises(TypeError, match="Linear is neither a model with init_criterion nor a trainer or YOLO with add_callback"):
            hook.install(torch.nn.Linear(1, 1))

    def test_an_unknown_option(self) -> None:
        with pytest.raises(ValueError, match="ties is 'first'"):
            hook.install(detection_model(), ties="first")

    def test_uninstalling_nothing_is_harmless(self) -> None:
        model = detection_model()
        before = set(vars(model))
        hook.uninstall(model)
        hook.uninstall(training.yolo(PLAIN))
        assert set(vars(model)) == before
