"""The native gradients, which the forward pass computes: right for any upstream gradient, and each time that they are asked for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from oracle.cases.build import build
from oracle.cases.case import Setting
from properties.tests.impl import oriented_inputs as oriented
from properties.tests.impl.backends.test_native import CASE, SPEC, native
from twinloss import Assignment, DetectionLoss, OrientedLoss

DTYPES = pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
TASKS = pytest.mark.parametrize("task", ["detect", "oriented"])
NAN = math.nan
LARGE = 8 << 20
"""Bytes of a gradient from which on it is written past the caches, as in ``source/output.hpp``."""

Step = tuple[Tensor, list[Tensor]]


def step(task: str, dtype: str = "float32", backend: Any = "native") -> Step:
    """The loss, and the logits that it can be differentiated by."""
    if task == "detect":
        inputs = build(CASE, Setting(dtype))  # type: ignore[arg-type]
        preds, batch = dict(inputs.preds), inputs.batch
        criterion: Any = DetectionLoss(SPEC, backend=backend)
    else:
        preds, batch = oriented.predictions(oriented.SPEC, dtype=getattr(torch, dtype)), oriented.targets()
        criterion = OrientedLoss(oriented.SPEC, backend=backend)
    leaves = {key: preds[key].detach().requires_grad_() for key in oriented.LOGITS if key in preds}
    return criterion({**preds, **leaves}, batch)[0], list(leaves.values())


def gradients(of: Step, upstream: Tensor) -> list[Tensor]:
    """One backward pass of several; the gradients are ours to write to, as an optimiser's are."""
    return list(torch.autograd.grad(of[0], of[1], upstream, retain_graph=True))


def upstreams(terms: int) -> dict[str, Tensor]:
    one = torch.ones(terms)
    return {
        "the sum's": one,
        "a scaled loss's": one * 1024,
        "one term's": torch.eye(terms)[1],
        "the other terms'": one - torch.eye(terms)[1],
        "any": torch.tensor([0.3, -2.0, 7.0, 0.11][:terms]),
        "zero": one * 0,
        "NaN in one term": torch.tensor([NAN, 1.0, 1.0, 1.0][:terms]),
    }


@TASKS
@DTYPES
def test_each_backward_pass_is_as_the_first(task: str, dtype: str) -> None:
    several = step(task, dtype)
    for name, upstream in 2 * list(upstreams(len(several[0])).items()):
        found, alone = gradients(several, upstream), gradients(step(task, dtype), upstream)
        for ours, wanted in zip(found, alone, strict=True):
            assert torch.equal(ours.nan_to_num(7.0), wanted.nan_to_num(7.0)), name
            ours.fill_(NAN)  # nobody else has it


@TASKS
def test_a_gradient_that_is_handed_over_is_the_one_that_is_computed_again(task: str) -> None:
    once = step(task)
    upstream = torch.ones(len(once[0]))
    handed, again = gradients(once, upstream), gradients(once, upstream)
    assert all(ours.data_ptr() != theirs.data_ptr() for ours, theirs in zip(handed, again, strict=True))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(handed, again, strict=True))


@TASKS
@pytest.mark.parametrize("name", list(upstreams(4)))
def test_as_on_torch_for_any_upstream_gradient(task: str, name: str) -> None:
    found, wanted = (step(task, backend=backend) for backend in ("native", "torch"))
    upstream = upstreams(len(found[0]))[name]
    for ours, theirs in zip(gradients(found, upstream), gradients(wanted, upstream), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.nan_to_num().abs().max()), equal_nan=True)


def test_of_some_logits_alone() -> None:
    loss, (boxes, scores) = step("detect")
    whole = torch.autograd.grad(loss.sum(), [boxes, scores], retain_graph=True)
    for leaf, wanted in ((scores, whole[1]), (boxes, whole[0])):
        assert torch.equal(torch.autograd.grad(loss.sum(), leaf, retain_graph=True)[0], wanted)
    inputs = build(CASE)
    for key, wanted in (("boxes", whole[0]), ("scores", whole[1])):
        preds = {**inputs.preds, **{name: inputs.preds[name].detach() for name in ("boxes", "scores")}}
        preds[key] = preds[key].requires_grad_()
        native()(preds, inputs.batch)[0].sum().backward()
        assert torch.equal(preds[key].grad, wanted)


@pytest.mark.parametrize("scale", [2.0**10, 2.0**-10])
def test_a_scaled_float16_loss_loses_nothing_that_float16_can_hold(scale: float) -> None:
    """Scaling gradients that float16 has already rounded, to 0 among others, would."""
    loss, leaves = step("detect", "float16")
    found = torch.autograd.grad((loss * scale).sum(), leaves)
    exact, wide = step("detect", "float32")
    for ours, wanted in zip(found, torch.autograd.grad(exact.sum(), wide), strict=True):
        torch.testing.assert_close(
            ours.float(), (wanted * scale).half().float(), rtol=2e-2, atol=2e-2 * float((wanted * scale).abs().max())
        )
        assert ((ours == 0) <= ((wanted * scale).half().abs() < 1e-6)).all()


def most_bytes(call: Callable[[], Any]) -> tuple[int, int]:
    """The most bytes that torch's allocator held during a call, and those that it held at its end."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        result = call()
    assert recorded.profiler is not None
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = [0]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held.append(held[-1] + event.nbytes())
    del result
    return max(held), held[-1]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_memory(dtype: str) -> None:
    """At most the gradients and little more; nothing of them where nobody will ask for one."""
    wide = dataclasses.replace(CASE, image_size=(512, 640), spec=dataclasses.replace(SPEC, num_classes=80))
    inputs, criterion = build(wide, Setting(dtype)), native(wide.spec)  # type: ignore[arg-type]
    leaves = [inputs.preds[name] for name in ("boxes", "scores")]
    size = sum(leaf.nbytes for leaf in leaves)

    def whole() -> None:
        for leaf in leaves:
            leaf.grad = None
        criterion(*inputs)[0].sum().backward()

    whole()
    for leaf in leaves:
        leaf.grad = None
    assert most_bytes(whole)[0] <= 1.1 * size + (1 << 19)
    with torch.no_grad():
        peak, kept = most_bytes(lambda: criterion(*inputs))
    assert peak < 0.2 * size + (1 << 19)
    assert kept < 1 << 14


@pytest.mark.parametrize(("dtype", "images"), [("float32", 16), ("float16", 32)])
@pytest.mark.parametrize("columns", [61, 64])
def test_gradients_larger_than_the_caches(columns: int, dtype: str, images: int) -> None:
    """Those are written past the caches, in rows that begin anywhere within a line of theirs; those of one image, through them."""
    spec = dataclasses.replace(SPEC, num_classes=40, strides=(8,))
    case = dataclasses.replace(CASE, spec=spec, image_size=(512, 8 * columns), batch_size=images)
    inputs = build(case, Setting(dtype))  # type: ignore[arg-type]
    held = native(spec).assign(*inputs)
    held = dataclasses.replace(held, weight=held.weight / (4 * held.weight.sum()))  # S is 1, of all images as of one

    def answer(preds: dict[str, Any], batch: dict[str, Tensor], given: Assignment, factor: float) -> tuple[Tensor, ...]:
        leaves = [preds[name].detach().clone().requires_grad_() for name in ("boxes", "scores")]
        loss, _ = native(spec).loss_given({**preds, "boxes": leaves[0], "scores": leaves[1]}, batch, given)
        return torch.autograd.grad(loss.sum() * factor, leaves)

    large = answer(dict(inputs.preds), dict(inputs.batch), held, 1.0)
    assert min(gradient.nbytes for gradient in large) > LARGE > max(gradient[:1].nbytes for gradient in large)
    for image in range(images):
        of_image = held.image == image
        alone = Assignment(held.image[of_image] * 0, held.anchor[of_image], held.box[of_image], held.weight[of_image])
        preds = {name: inputs.preds[name][image : image + 1] for name in ("boxes", "scores")}
        batch = {**inputs.batch, "batch_idx": inputs.batch["batch_idx"] * 0}
        small = answer({**preds, "feats": inputs.preds["feats"]}, batch, alone, float(images))
        assert all(torch.equal(whole[image], part[0]) for whole, part in zip(large, small, strict=True)), image
