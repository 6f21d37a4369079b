"""The drop-in on real segmentation, oriented-box and pose models of the reference."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from properties.tests.impl.test_hook import modules
from properties.tests.properties.training.no_network import offline
from properties.training.synthetic_images import make_images
from twinloss import EndToEndLoss, OrientedLoss, PoseLoss, SegmentationLoss, hook
from twinloss.terms.registry import TERMS

training = pytest.importorskip("oracle.reference.training")

LOSSES: dict[str, type] = {
    "yolov8n-seg.yaml": SegmentationLoss,
    "yolo11n-seg.yaml": SegmentationLoss,
    "yolo26n-seg.yaml": EndToEndLoss,
    "yolov8n-obb.yaml": OrientedLoss,
    "yolo26n-obb.yaml": EndToEndLoss,
    "yolov8n-pose.yaml": PoseLoss,
    "yolo26n-pose.yaml": EndToEndLoss,
}
GAINS = {"box": 7.5, "cls": 0.5, "dfl": 1.5, "pose": 12.0, "kobj": 1.0, "rle": 1.0, "angle": 1.0, "overlap_mask": True, "epochs": 5}
POINTS, SIDE = 17, 64


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """A trainer's own surroundings, with no way out to a network."""
    with training.training_process(), offline():
        torch.set_num_threads(1)  # these models are small: on a busy machine several threads wait for each other
        yield


def model_of(name: str, **arguments: Any) -> Any:
    torch.manual_seed(0)
    model = training.yolo(name).model
    model.args = SimpleNamespace(**GAINS | arguments)
    return model.train()


def example(name: str, *, instance_masks: bool = False) -> dict[str, Tensor]:
    """Two images of 64 px with four boxes, the second of them narrow; no border lies on a mask's pixel, where rounding would decide."""
    generator = torch.Generator().manual_seed(0)
    boxes = torch.tensor([[0.5, 0.5, 0.4, 0.3], [0.7, 0.3, 0.01, 0.3], [0.3, 0.62, 0.2, 0.2], [0.6, 0.4, 0.5, 0.52]])
    batch = {
        "img": torch.rand(2, 3, SIDE, SIDE, generator=generator),
        "batch_idx": torch.tensor([0.0, 0.0, 0.0, 1.0]),
        "cls": torch.zeros(4, 1),
        "bboxes": boxes,
    }
    if "obb" in name:
        batch["bboxes"] = torch.cat([boxes, torch.tensor([[0.3], [0.1], [-0.5], [1.2]])], 1)
    if "pose" in name:
        places = boxes[:, None, :2] + (torch.rand(4, POINTS, 2, generator=generator) - 0.5) * boxes[:, None, 2:]
        batch["keypoints"] = torch.cat([places, torch.randint(0, 3, (4, POINTS, 1), generator=generator)], 2)
    if "seg" in name:
        batch |= masks_of(boxes, batch["batch_idx"], instance_masks=instance_masks)
    return batch


def masks_of(boxes: Tensor, image: Tensor, *, instance_masks: bool) -> dict[str, Tensor]:
    """The boxes themselves as instances, on a quarter of the image's grid."""
    centres = (torch.arange(SIDE // 4) + 0.5) / (SIDE // 4)
    low, high = boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2
    across, down = ((centres > low[:, i, None]) & (centres < high[:, i, None]) for i in (0, 1))
    instances = (down[:, :, None] & across[:, None, :]).to(torch.uint8)
    maps = torch.zeros(2, *instances.shape[1:], dtype=torch.uint8)
    for row, instance in enumerate(instances):
        at = int(image[row])
        maps[at][instance > 0] = int((image[: row + 1] == at).sum())
    return {"masks": instances if instance_masks else maps, "sem_masks": torch.zeros(maps.shape)}


def step(model: Any, batch: dict[str, Tensor], state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor | None]]:
    """Loss, items and the gradients of all parameters, from the same weights and statistics."""
    model.load_state_dict(state)
    model.zero_grad(set_to_none=True)
    loss, items = model.loss(batch)
    loss.sum().backward()
    return loss.detach(), items, {name: parameter.grad for name, parameter in model.named_parameters()}


class TestModel:
    """On a model alone."""

    @pytest.mark.parametrize("name", LOSSES)
    def test_takes_over_and_gives_back(self, name: str) -> None:
        model, batch = model_of(name), example(name)
        state = copy.deepcopy(model.state_dict())
        expected, items, gradients = step(model, batch, state)
        own = model.criterion
        installed = hook.install(model, ties="reference")
        found, found_items, found_gradients = step(model, batch, state)
        assert isinstance(model.criterion.loss, LOSSES[name])
        assert (installed.training_calls, installed.verifications, model.criterion.pending) == (1, 1, False)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        assert list(found_items) == list(items)
        torch.testing.assert_close(found_items, items, rtol=1e-4, atol=1e-4)
        scale = max(float(gradient.abs().max()) for gradient in gradients.values() if gradient is not None)
        for parameter, gradient in gradients.items():
            torch.testing.assert_close(found_gradients[parameter], gradient, rtol=1e-3, atol=1e-5 * scale, msg=parameter)
        hook.uninstall(model)
        assert model.criterion is own
        torch.testing.assert_close(step(model, batch, state)[0], expected, rtol=0, atol=0)

    @pytest.mark.parametrize("name", LOSSES)
    def test_validates(self, name: str) -> None:
        model = model_of(name).eval()
        with torch.inference_mode():
            expected, items = model.loss(example(name))
            hook.install(model, ties="reference")
            model.criterion = None
            found, found_items = model.loss(example(name))
        # A thousandth: an untrained model's class logits are all near -11, where the reference's cross-entropy is mostly rounding.
        torch.testing.assert_close(found, expected, rtol=2e-3, atol=1e-4)
        torch.testing.assert_close(found_items, items, rtol=2e-3, atol=1e-4)

    @pytest.mark.parametrize("ties", ["stable", "reference"])
    def test_says_how_many_anchors_count_in_the_own_criterion_alone(self, ties: str, caplog: pytest.LogCaptureFixture) -> None:
        """A narrow box, most of whose candidates have a metric of 0: the own criterion gives it some of them, whose masks count."""
        model, batch = model_of("yolov8n-seg.yaml"), example("yolov8n-seg.yaml")
        batch["bboxes"][3] = torch.tensor([0.5, 0.5, 0.05, 0.9])
        hook.install(model, ties=ties)
        with caplog.at_level("WARNING", logger="ultralytics.twinloss"):
            for _ in range(2):
                model.loss(batch)
        model.criterion.loss.ties = "reference"
        held = model.criterion.loss.assign(model.predict(batch["img"]), batch)
        count = int((held.weight == 0).sum())
        assert count > 0
        said = [record.getMessage() for record in caplog.records]
        assert len(said) == (ties == "stable")
        assert all(f"counts {count} anchors without a soft target in its mask" in line for line in said)

    @pytest.mark.parametrize("name", ["yolov8n-seg.yaml", "yolo26n-seg.yaml"])
    def test_instance_masks(self, name: str) -> None:
        model, batch = model_of(name, overlap_mask=False), example(name, instance_masks=True)
        state = copy.deepcopy(model.state_dict())
        expected, _, _ = step(model, batch, state)
        installed = hook.install(model, ties="reference")
        found, _, _ = step(model, batch, state)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        assert installed.verifications == 1

    @pytest.mark.parametrize(
        ("name", "gain", "logged"), [("yolov8n-obb.yaml", "angle", "angle_loss"), ("yolo26n-pose.yaml", "rle", "rle_loss")]
    )
    def test_gains_that_change_between_steps(self, name: str, gain: str, logged: str) -> None:
        model, batch = model_of(name), example(name)
        state = copy.deepcopy(model.state_dict())
        installed = hook.install(model)
        _, before, _ = step(model, batch, state)
        setattr(model.args, gain, 3.0)
        _, after, _ = step(model, batch, state)
        torch.testing.assert_close(after[logged], before[logged] * 3)
        assert installed.verifications == 2

    def test_the_flow_is_the_models_own(self) -> None:
        model, batch = model_of("yolo26n-pose.yaml"), example("yolo26n-pose.yaml")
        hook.install(model)
        model.loss(batch)[0].sum().backward()
        average = copy.deepcopy(model)
        assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in model.model[-1].flow_model.parameters())
        average.zero_grad(set_to_none=True)
        average.loss(batch)[0].sum().backward()
        assert all(parameter.grad is not None for parameter in average.model[-1].flow_model.parameters())

    def test_a_pose_model_without_a_flow(self) -> None:
        model, batch = model_of("yolo26n-pose.yaml"), example("yolo26n-pose.yaml")
        model.model[-1].flow_model = None
        state = copy.deepcopy(model.state_dict())
        expected, items, _ = step(model, batch, state)
        hook.install(model, ties="reference")
        found, found_items, _ = step(model, batch, state)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        assert list(found_items) == list(items)

    def test_sigmas_of_the_model(self) -> None:
        model, batch = model_of("yolov8n-pose.yaml"), example("yolov8n-pose.yaml")
        model.kpt_oks_sigmas = [0.05 + 0.01 * at for at in range(POINTS)]
        hook.install(model)
        model.loss(batch)
        assert model.criterion.loss.spec.sigmas == pytest.approx(model.kpt_oks_sigmas)
        assert not model.criterion.pending

    @pytest.mark.parametrize("name", ["yolo26n-seg.yaml", "yolo26n-obb.yaml", "yolo26n-pose.yaml"])
    def test_a_pickled_model_has_its_own(self, name: str) -> None:
        model, batch = model_of(name), example(name)
        hook.install(model)
        model.loss(batch)
        content = pickle.dumps(model)
        assert not modules(content)
        loaded = pickle.loads(content)
        loaded.loss(batch)
        assert type(loaded.criterion).__name__ == "E2ELoss"


class TestRefusals:
    """What the twin would change without a word."""

    @pytest.mark.parametrize(
        ("name", "change", "told"),
        [
            ("yolov8n-seg.yaml", lambda own: setattr(own.bcedice_loss, "weight_dice", 1.0), "its bcedice_loss has weight_dice = 1.0"),
            ("yolov8n-seg.yaml", lambda own: setattr(own.bcedice_loss.dice, "smooth", 0.1), "its dice has smooth = 0.1"),
            ("yolov8n-obb.yaml", lambda own: setattr(own, "bbox_loss", torch.nn.Identity()), "its bbox_loss is a Identity, not a Rotated"),
            ("yolov8n-pose.yaml", lambda own: setattr(own, "kpt_shape", (17, 3)), r"its kpt_shape is the tuple \(17, 3\)"),
            (
                "yolov8n-pose.yaml",
                lambda own: setattr(own.bce_pose, "reduction", "sum"),
                "its bce_pose has reduction = sum instead of mean",
            ),
            (
                "yolo26n-pose.yaml",
                lambda own: setattr(own.assigner, "sigmas", own.assigner.sigmas * 2),
                "its assigner has other sigmas than its keypoint_loss",
            ),
            ("yolo26n-pose.yaml", lambda own: setattr(own, "target_weights", own.target_weights * 2), r"its target_weights are \[2.0"),
            ("yolo26n-pose.yaml", lambda own: setattr(own.rle_loss, "residual", False), "its rle_loss has residual = False"),
            ("yolo26n-obb.yaml", lambda own: setattr(own.assigner, "stride_val", 8), "its assigner.stride_val is 8, and was 16.0 when"),
            ("yolov8n-seg.yaml", lambda own: own.proj.mul_(2), r"its proj is \(0.0, 2.0, .*, and was \(0.0, 1.0, 2.0, .* when"),
        ],
    )
    def test_a_changed_criterion(self, name: str, change: Callable[[Any], None], told: str) -> None:
        model = model_of(name)
        hook.install(model)
        model.loss(example(name))
        change(getattr(model.criterion.own.criterion, "one2one", model.criterion.own.criterion))
        with pytest.raises(TypeError, match=told):
            model.loss(example(name))

    def test_a_batch_that_is_wrong_by_itself(self) -> None:
        model, batch = model_of("yolov8n-seg.yaml"), example("yolov8n-seg.yaml")
        hook.install(model)
        with pytest.raises(ValueError, match=r"batch\['masks'\] of image 0 has the index 9; an index map holds whole numbers from 0 to 3"):
            model.loss(batch | {"masks": torch.full_like(batch["masks"], 9)})

    def test_another_release_than_the_models(self) -> None:
        model = model_of("yolov8n-seg.yaml")
        hook.install(model, release="8.3.253")
        with pytest.raises(RuntimeError, match=r"seg_loss is .*agrees with the definition of release 8\.4\.128: say install"):
            model.loss(example("yolov8n-seg.yaml"))

    def test_a_release_whose_definition_is_not_followed(self) -> None:
        model = model_of("yolov8n-seg.yaml")
        hook.install(model, release="8.4.3")
        with pytest.raises((TypeError, ValueError), match=r"8\.4\.3"):
            model.loss(example("yolov8n-seg.yaml"))

    @pytest.mark.parametrize(
        ("name", "term", "logged"),
        [
            ("yolov8n-seg.yaml", "mask", "seg_loss"),
            ("yolo26n-seg.yaml", "semantic", "sem_loss"),
            ("yolov8n-obb.yaml", "angle", "angle_loss"),
            ("yolov8n-pose.yaml", "kobj", "kobj_loss"),
            ("yolo26n-pose.yaml", "likelihood", "rle_loss"),
        ],
    )
    def test_a_term_that_is_a_thousandth_larger(self, name: str, term: str, logged: str, monkeypatch: pytest.MonkeyPatch) -> None:
        sound = TERMS[term]
        monkeypatch.setitem(TERMS, term, lambda held: sound(held) * 1.001)
        model = model_of(name)
        hook.install(model, backend="torch")
        with pytest.raises(RuntimeError, match=f"the twin does not compute what the model's own criterion does.*{logged}"):
            model.loss(example(name))


@pytest.fixture(scope="module", params=["segment", "oriented", "pose"])
def data(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return request.param, make_images(tmp_path_factory.mktemp(request.param), train=8, val=4, task=request.param)


@pytest.mark.parametrize("family", ["yolov8n", "yolo26n"])
def test_a_training_follows_the_reference(family: str, data: tuple[str, Path], tmp_path: Path) -> None:
    task, path = data

    def train(yolo: Any) -> list[float]:
        losses: list[float] = []
        yolo.add_callback("on_train_batch_end", lambda trainer: losses.append(float(trainer.loss)))
        options = {"data": str(path), "imgsz": 64, "epochs": 1, "batch": 4, "project": str(tmp_path), "name": "run"}
        yolo.train(**training.CPU_OPTIONS | options)
        return losses

    name = {"segment": "seg", "oriented": "obb"}.get(task, task)
    own, replaced = training.yolo(f"{family}-{name}.yaml"), training.yolo(f"{family}-{name}.yaml")
    expected = train(own)
    with hook.install(replaced, ties="reference") as installed:
        found = train(replaced)
    assert found == pytest.approx(expected, rel=1e-3)
    assert (installed.training_calls, installed.validation_calls) == (2, 1)
    assert installed.verifications >= 1
