"""What is given to the loss, and what may happen to it between the two passes: the same in every backend.

The Triton kernels run on the host where Triton's interpreter is on; then these tests are theirs, else the other backends'.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from oracle.cases.build import build
from oracle.cases.case import Box, Case, Inputs, Prediction
from twinloss import Assignment, DetectionLoss, LossSpec
from twinloss.backends.registry import BackendName
from twinloss.backends.triton.availability import interpreting
from twinloss.inputs.checks import MOST_CELLS

SPEC = LossSpec(num_classes=3, reg_max=4, strides=(8, 16), class_weights=(1.0, 2.0, 0.5))
BOXES = (Box(1, 2, 20, 12, 18, 14), Box(0, 1, 16, 16, 20, 24), Box(0, 0, 20, 14, 16, 20))
CASE = Case(SPEC, (32, 40), 2, BOXES, Prediction("near", spread=0.4))
UPSTREAM = torch.tensor([1.0, 0.25, -3.0])
BACKENDS: tuple[BackendName, ...] = ("triton",) if interpreting() else ("torch", "native")

Answer = tuple[Tensor, ...]


@pytest.fixture(params=BACKENDS)
def criterion(request: pytest.FixtureRequest) -> DetectionLoss:
    return DetectionLoss(SPEC, backend=request.param)


def leaves(inputs: Inputs) -> dict[str, Any]:
    return {**inputs.preds, **{name: inputs.preds[name].detach().clone().requires_grad_() for name in ("boxes", "scores")}}


def gradients(loss: Tensor, preds: dict[str, Any]) -> Answer:
    return torch.autograd.grad((loss * UPSTREAM).sum(), (preds["boxes"], preds["scores"]))


def answer(criterion: DetectionLoss, inputs: Inputs, held: Assignment | None = None, between: Callable[[], object] = bool) -> Answer:
    """Loss and gradients, with something done between the passes."""
    preds = leaves(inputs)
    loss, _ = criterion(preds, inputs.batch) if held is None else criterion.loss_given(preds, inputs.batch, held)
    between()
    return loss.detach(), *gradients(loss, preds)


def same_bits(found: Answer, expected: Answer) -> bool:
    return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def owned() -> Inputs:
    """Inputs whose targets are in the dtypes that the native kernels read: what need not be converted could be taken over."""
    inputs = build(CASE)
    return Inputs(inputs.preds, inputs.batch | {key: inputs.batch[key].long() for key in ("batch_idx", "cls")})


# Between the passes.

CHANGES: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "boxes in pixels": lambda batch: batch["bboxes"].mul_(160),
    "a class that does not exist": lambda batch: batch["cls"].fill_(10**12),
    "an image that does not exist": lambda batch: batch["batch_idx"].fill_(-(10**12)),
    "memory that is another's": lambda batch: batch["bboxes"].numpy().fill(float("nan")),
    "no memory": lambda batch: [column.untyped_storage().resize_(0) for column in batch.values()],
    "keys removed": dict.clear,
}


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("name", CHANGES)
def test_a_batch_that_changes_after_the_call_changes_nothing(name: str, given: bool, criterion: DetectionLoss) -> None:
    inputs, held = owned(), criterion.assign(*owned()) if given else None
    expected = answer(criterion, owned(), held)
    assert same_bits(answer(criterion, inputs, held, between=lambda: CHANGES[name](inputs.batch)), expected)


def test_an_assignment_that_changes_after_the_call_changes_nothing(criterion: DetectionLoss) -> None:
    held = criterion.assign(*build(CASE))
    expected = answer(criterion, build(CASE), held)

    def change() -> None:
        for column in (held.image, held.anchor, held.box, held.weight):
            column.fill_(10**6)

    assert same_bits(answer(criterion, build(CASE), held, between=change), expected)


def test_another_thread_may_write_the_batch(criterion: DetectionLoss) -> None:
    inputs, done = owned(), threading.Event()
    label = inputs.batch["cls"].clone()

    def write() -> None:
        while not done.is_set():
            inputs.batch["cls"].fill_(10**12)
            inputs.batch["cls"].copy_(label)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(1 if interpreting() else 200):
            with suppress(ValueError):  # of a class that does not exist: what was copied is what was looked at
                assert all(part.isfinite().all() for part in answer(criterion, inputs))
    finally:
        done.set()
        writer.join()


def test_logits_that_change_before_the_backward_pass_are_an_error(criterion: DetectionLoss) -> None:
    for name in ("scores",) if criterion.backend == "torch" else ("boxes", "scores"):  # torch saves what it made of the boxes
        preds = leaves(build(CASE))
        preds[name] = preds[name] * 1
        loss, _ = criterion(preds, build(CASE).batch)
        preds[name].mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.sum().backward()


def test_targets_and_given_weights_get_no_gradient(criterion: DetectionLoss) -> None:
    inputs, held = build(CASE), criterion.assign(*build(CASE))
    expected = answer(criterion, inputs, held)
    targets = [inputs.batch[key].requires_grad_() for key in ("cls", "bboxes")]
    weight = held.weight.clone().requires_grad_()
    assert same_bits(answer(criterion, inputs, dataclasses.replace(held, weight=weight)), expected)
    preds = leaves(inputs)
    for loss, _ in (criterion(preds, inputs.batch), criterion.loss_given(preds, inputs.batch, dataclasses.replace(held, weight=weight))):
        assert all(found is None for found in torch.autograd.grad(loss.sum(), [*targets, weight], allow_unused=True))


def test_differentiable_once_and_as_often_as_the_graph_is_kept(criterion: DetectionLoss) -> None:
    preds = leaves(build(CASE))
    loss, _ = criterion(preds, build(CASE).batch)
    first, second = (torch.autograd.grad(loss.sum(), (preds["boxes"], preds["scores"]), retain_graph=True) for _ in range(2))
    assert same_bits(first, second)
    for name in ("boxes", "scores"):
        (gradient,) = torch.autograd.grad(loss.sum(), preds[name], create_graph=True)
        for penalised in (gradient.sum(), loss.sum() + gradient.square().sum()):
            with pytest.raises(RuntimeError, match="differentiated once: its gradients have none"):
                torch.autograd.grad(penalised, preds[name], retain_graph=True, allow_unused=True)
            with pytest.raises(RuntimeError, match="differentiated once: its gradients have none"):
                penalised.backward(retain_graph=True)
    gradients(loss, preds)
    with pytest.raises(RuntimeError, match="second time"):
        gradients(loss, preds)


# Hooks on what is saved.


def apart(tensor: Tensor) -> Tensor:
    """The same numbers, with a gap after each."""
    return torch.stack([tensor, torch.zeros_like(tensor)], dim=-1)[..., 0]


UNPACKED: dict[str, Callable[[Tensor], Tensor]] = {
    "other strides": lambda tensor: tensor.mT.contiguous().mT if tensor.ndim > 1 else tensor,
    "gaps": apart,
    "a copy": torch.clone,
    "a negative view": lambda tensor: torch._neg_view(-tensor) if tensor.is_floating_point() else tensor,
}
REFUSED: dict[str, Callable[[Tensor], Tensor]] = {
    "another dtype": lambda tensor: tensor.double() if tensor.ndim == 3 else tensor,
    "half precision": lambda tensor: tensor.half() if tensor.ndim == 3 else tensor,
    "another device": lambda tensor: tensor.to("meta") if tensor.ndim == 3 else tensor,
    "another shape": lambda tensor: tensor[..., :-1] if tensor.ndim == 3 else tensor,
}


@pytest.mark.parametrize("name", UNPACKED)
def test_what_was_saved_may_come_back_laid_out_otherwise(name: str, criterion: DetectionLoss) -> None:
    expected = answer(criterion, build(CASE))
    with saved_tensors_hooks(lambda tensor: tensor, UNPACKED[name]):
        found = answer(criterion, build(CASE))
    for ours, theirs in zip(found, expected, strict=True):  # to rounding: on torch, sums group otherwise
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", REFUSED)
def test_what_comes_back_as_another_tensor_is_refused(name: str, criterion: DetectionLoss) -> None:
    preds = leaves(build(CASE))
    with saved_tensors_hooks(lambda tensor: tensor, REFUSED[name]):
        loss, _ = criterion(preds, build(CASE).batch)
    with pytest.raises(RuntimeError, match=r"the loss saved \w+ as \(.*gave back .*give back what was saved"):
        loss.sum().backward()


def test_offloading_and_checkpoints_change_nothing(criterion: DetectionLoss) -> None:
    expected = answer(criterion, build(CASE))
    with save_on_cpu():
        assert same_bits(answer(criterion, build(CASE)), expected)
    for reentrant in (False, True):
        inputs = build(CASE)
        preds = leaves(inputs)

        def run(boxes: Tensor, scores: Tensor, inputs: Inputs = inputs) -> Tensor:
            return criterion({**inputs.preds, "boxes": boxes, "scores": scores}, inputs.batch)[0]

        loss = checkpoint(run, preds["boxes"], preds["scores"], use_reentrant=reentrant)
        (loss * UPSTREAM).sum().backward()
        assert same_bits((loss.detach(), preds["boxes"].grad, preds["scores"].grad), expected)


# What is given.


def lazy(tensor: Tensor) -> Tensor:
    """The same numbers as a view whose memory holds their negatives."""
    return torch._neg_view(-tensor)


def test_views_that_promise_their_numbers(criterion: DetectionLoss) -> None:
    plain = build(CASE)
    expected = answer(criterion, plain)
    preds = leaves(plain)
    promised = {name: torch._neg_view(-preds[name]) for name in ("boxes", "scores")}
    assert promised["boxes"].is_neg()
    loss, _ = criterion(preds | promised, {key: lazy(column) for key, column in plain.batch.items()})
    assert same_bits((loss.detach(), *gradients(loss, preds)), expected)


@pytest.mark.parametrize("name", ["boxes", "scores", "cls", "bboxes"])
def test_zeros_without_memory(name: str, criterion: DetectionLoss) -> None:
    plain = build(CASE)
    like = (plain.preds | plain.batch)[name]
    found: list[Tensor] = []
    expected: list[Tensor] = []
    for zeros, into in ((torch._efficientzerotensor(like.shape), found), (torch.zeros(like.shape), expected)):
        preds, batch = leaves(plain), dict(plain.batch)
        (preds if name in preds else batch)[name] = zeros
        loss, _ = criterion(preds, batch)
        into += [loss.detach(), *torch.autograd.grad(loss.sum(), [x for x in (preds["boxes"], preds["scores"]) if x.requires_grad])]
    assert same_bits(tuple(found), tuple(expected))


class Named(Tensor):
    """A tensor with a type of its own."""


def test_targets_of_a_type_of_their_own(criterion: DetectionLoss) -> None:
    plain = build(CASE)
    named: dict[str, Tensor] = {key: column.as_subclass(Named) for key, column in plain.batch.items()}
    assert same_bits(answer(criterion, Inputs(plain.preds, named)), answer(criterion, plain))


def test_tensors_made_in_inference_mode(criterion: DetectionLoss) -> None:
    plain = build(CASE)
    expected = answer(criterion, plain)
    with torch.inference_mode():
        made = build(CASE)
        inside, _ = criterion(*made)
    assert torch.equal(inside, expected[0])
    assert same_bits(answer(criterion, Inputs(plain.preds, made.batch)), expected)
    preds = leaves(plain) | {"boxes": made.preds["boxes"]}
    loss, _ = criterion(preds, plain.batch)
    assert torch.equal(torch.autograd.grad((loss * UPSTREAM).sum(), preds["scores"])[0], expected[2])


@contextmanager
def default_device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


DEFAULTS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "a device": lambda: torch.device("meta"),
    "the process's device": lambda: default_device("meta"),
    "float64": lambda: default_dtype(torch.float64),
    "float16": lambda: default_dtype(torch.float16),
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_for_what_is_made_change_nothing(name: str) -> None:
    inputs = build(CASE)
    for backend in BACKENDS:
        expected = answer(DetectionLoss(SPEC, backend=backend), inputs)
        # A definition of its own, so that nothing is there already.
        spec = dataclasses.replace(SPEC, class_weights=(1.0, 2.0, 0.5 if name == "a device" else 0.25))
        preds = leaves(inputs)
        with DEFAULTS[name]():
            criterion = DetectionLoss(SPEC, backend=backend)
            held = criterion.assign(*inputs)
            loss, _ = criterion(preds, inputs.batch)
            given, _ = criterion.loss_given(preds, inputs.batch, held)
            other, _ = DetectionLoss(spec, backend=backend)(preds, inputs.batch)
            total = (loss * UPSTREAM).sum()
        assert same_bits((loss.detach(), *torch.autograd.grad(total, (preds["boxes"], preds["scores"]), retain_graph=True)), expected)
        torch.testing.assert_close(given, loss)
        torch.testing.assert_close(other, DetectionLoss(spec, backend=backend)(preds, inputs.batch)[0])
        with DEFAULTS[name]():  # the backward pass makes tensors as well
            assert same_bits(torch.autograd.grad(total, (preds["boxes"], preds["scores"])), expected[1:])


@pytest.mark.parametrize("strides", [(8.0, 16.0), [8, 16], torch.tensor([8.0, 16.0])])
def test_numbers_of_the_definition_in_any_form(strides: Any, criterion: DetectionLoss) -> None:
    spec = dataclasses.replace(SPEC, strides=strides, gains=[7.5, torch.tensor(0.5), 1.5], topk=10.0, class_weights=[1, 2, 0.5])  # type: ignore[arg-type]
    assert spec == SPEC
    inputs = build(CASE)
    assert same_bits(answer(DetectionLoss(spec, backend=criterion.backend), inputs), answer(criterion, inputs))


def test_more_picks_than_anchors_however_many(criterion: DetectionLoss) -> None:
    inputs = build(CASE)
    anchors = inputs.preds["boxes"].shape[-1]
    found, expected = (
        answer(DetectionLoss(dataclasses.replace(SPEC, topk=topk), backend=criterion.backend), inputs) for topk in (2**31 - 1, anchors)
    )
    assert same_bits(found, expected)


# What is refused, and in which words.


def with_target(key: str, change: Callable[[Tensor], Any]) -> Callable[[Inputs], Inputs]:
    return lambda inputs: Inputs(inputs.preds, inputs.batch | {key: change(inputs.batch[key])})


def with_logits(change: Callable[[Tensor], Any]) -> Callable[[Inputs], Inputs]:
    return lambda inputs: Inputs(inputs.preds | {"boxes": change(inputs.preds["boxes"].detach())}, inputs.batch)


def without(key: str) -> Callable[[Inputs], Inputs]:
    return lambda inputs: Inputs({k: v for k, v in inputs.preds.items() if k != key}, {k: v for k, v in inputs.batch.items() if k != key})


def with_maps(*shape: int) -> Callable[[Inputs], Inputs]:
    maps = [torch.empty(shape, device="meta")] * 2
    return lambda inputs: Inputs(inputs.preds | {"feats": maps}, inputs.batch)


WRONG: dict[str, tuple[Callable[[Inputs], Inputs], str]] = {
    "no boxes": (without("bboxes"), "batch has no 'bboxes'; it has 'batch_idx', 'cls'"),
    "no scores": (without("scores"), "preds has no 'scores'; it has"),
    "a list": (with_target("cls", Tensor.tolist), r"batch\['cls'\] is a list; give a tensor"),
    "an array": (with_logits(Tensor.numpy), r"preds\['boxes'\] is a ndarray; give a tensor"),
    "sparse": (with_target("bboxes", Tensor.to_sparse), r"batch\['bboxes'\] has the layout torch.sparse_coo; give a dense tensor"),
    "sparse logits": (with_logits(Tensor.to_sparse), r"preds\['boxes'\] has the layout torch.sparse_coo"),
    "complex": (with_target("bboxes", lambda boxes: boxes + 0j), r"batch\['bboxes'\] has dtype torch.complex64"),
    "large whole numbers": (with_target("cls", lambda cls: cls.to(torch.uint64)), r"batch\['cls'\] has dtype torch.uint64"),
    "a map without columns": (with_maps(3), r"preds\['feats'\]\[0\] has shape \(3,\); expected"),
    "a long axis": (with_maps(1, 1, 1, MOST_CELLS + 1), rf"preds\['feats'\]\[0\] has {MOST_CELLS + 1} cells along one axis"),
    "many cells": (with_maps(1, 1, MOST_CELLS, 256), r"expected \(B, 16, 4294967296\)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_read_is_named(name: str, criterion: DetectionLoss) -> None:
    change, words = WRONG[name]
    with pytest.raises((ValueError, TypeError), match=words):
        criterion(*change(build(CASE)))


def test_transforms_of_functions_are_refused_in_plain_words(criterion: DetectionLoss) -> None:
    inputs = build(CASE)

    def loss(boxes: Tensor) -> Tensor:
        return criterion({**inputs.preds, "boxes": boxes}, inputs.batch)[0].sum()

    for transform in (torch.func.grad(loss), torch.vmap(loss)):
        with pytest.raises(ValueError, match=r"preds\['boxes'\] comes from torch.func"):
            transform(inputs.preds["boxes"].detach())


COLUMNS: dict[str, tuple[str, Callable[[Tensor], Any], str]] = {
    "fewer weights": ("weight", lambda column: column[:-1], r"columns have different lengths .* of weight"),
    "more anchors": ("anchor", lambda column: torch.cat([column, column[-1:] + 1]), "columns have different lengths"),
    "no boxes": ("box", lambda column: column[:0], "columns have different lengths .* 0 of box"),
    "two dimensions": ("image", lambda column: column[:, None], r"assignment.image has shape \(\d+, 1\)"),
    "fractions": ("anchor", Tensor.float, r"assignment.anchor has .* dtype torch.float32; expected \(H,\) whole numbers"),
    "whole weights": ("weight", Tensor.long, r"assignment.weight has .* real numbers"),
    "a list": ("box", Tensor.tolist, "assignment.box is a list"),
    "an image beyond": ("image", lambda column: column + 2, "assignment entry 0 is image 2"),
    "another image's box": ("box", lambda column: column.flip(0), "each box of that image"),
    "out of order": ("anchor", lambda column: column.flip(0), "entries are sorted by image"),
    "beyond 32 bits": ("anchor", lambda column: column + 2**32, "assignment entry 0 is .* anchor 42949"),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_an_assignment_whose_columns_disagree_is_refused(name: str, criterion: DetectionLoss) -> None:
    column, change, words = COLUMNS[name]
    held = criterion.assign(*build(CASE))
    wrong = dataclasses.replace(held, **{column: change(getattr(held, column))})
    with pytest.raises((ValueError, TypeError), match=words):
        criterion.loss_given(*build(CASE), wrong)


@pytest.mark.parametrize(("option", "value"), [("pairs_at_once", 0), ("pairs_at_once", 2.5), ("validate", "no")])
def test_options_out_of_range_are_named(option: str, value: object) -> None:
    with pytest.raises(ValueError, match=option):
        DetectionLoss(SPEC, **{option: value})  # type: ignore[arg-type]
