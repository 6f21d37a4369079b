"""Any release of the reference as a contender: a criterion that asks a process of that release for loss and gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cache, partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from oracle.cases.case import Case, Inputs, Setting
from oracle.contract.contender import Batch, Contender, LossAndItems, Preds
from oracle.ladder.inside.messages import Arrays, Message
from oracle.ladder.install import InstallError, cache_folder, release_folder
from oracle.ladder.release_process import Release
from oracle.ladder.tasks import spec_fields
from twinloss import LossSpec
from twinloss.release_definitions import refusal, switches

PATIENCE = 600.0  # seconds of processor time; enough for a real batch at full size
SWITCHES = ("lengthen", "distance_term", "anchor_weights")


class ReleaseError(RuntimeError):
    """A release cannot be asked, or raised an error; the message holds its own."""


@cache
def open_release(release: str) -> Release:
    """Returns the process of a release, shared by all criteria in this process.

    Raises:
        ReleaseError: the release does not exist, cannot be installed, or cannot be imported.
    """
    try:
        process = Release(release_folder(release, cache_folder()), cache_folder())
    except InstallError as error:
        raise ReleaseError(str(error)) from error
    if not process.answers:
        raise ReleaseError(f"ultralytics {release} failed to import: {process.greeting.get('message')}")
    return process


def contender(release: str) -> Contender:
    """Returns the release as a contender under the name ``reference``, in place of the installed one."""
    return Contender(
        "reference", f"ultralytics {release}", partial(ReleaseCriterion, release=release), declines=partial(declines, release=release)
    )


def of_release(case: Case, release: str) -> Case:
    """Returns the batch with the definition that a release computes."""
    return dataclasses.replace(case, spec=dataclasses.replace(case.spec, **switches(release)))


def declines(spec: LossSpec, inputs: Inputs, setting: Setting, *, release: str) -> str | None:
    """Returns why a release cannot compute this batch in this setting, or ``None``."""
    from oracle.reference.criterion import declines_inputs  # Imported here because it imports the installed reference, which takes seconds.

    usual = LossSpec(num_classes=1)
    for field in ("alpha", "beta", "assign_eps", "ciou_eps", "clamp_margin"):
        if getattr(spec, field) != getattr(usual, field):
            return f"release {release} has no option for {field} = {getattr(spec, field)}"
    if LossSpec.for_release(release, num_classes=1) != dataclasses.replace(usual, **{name: getattr(spec, name) for name in SWITCHES}):
        return f"this is not the definition of release {release}"
    return refusal(release, vars(spec)) or declines_inputs(spec, inputs, setting)


class ReleaseCriterion:
    """The whole loss of a release, differentiable: its process computes value and gradients.

    Args:
        spec: the definition; fields for which the release has no option are not sent.
        release: version, such as "8.3.253".
    """

    def __init__(self, spec: LossSpec, *, release: str) -> None:
        self.spec, self.process = spec, open_release(release)

    def __call__(self, preds: Preds, batch: Batch) -> LossAndItems:
        """Returns the loss (3,), times the number of images, and the logged items.

        Raises:
            ReleaseError: the release raised an error; the message holds its own.
        """
        grids = [tuple(level.shape[-2:]) for level in preds["feats"]]
        loss = cast(Tensor, _ReleaseLoss.apply(self, preds["boxes"], preds["scores"], batch, grids))
        return loss, dict(zip(self.spec.term_names, loss.detach() / max(len(preds["boxes"]), 1), strict=True))

    def ask(self, gains: Sequence[float], boxes: Tensor, scores: Tensor, batch: Batch, grids: Sequence[tuple[int, int]]) -> Arrays:
        """Returns items and gradients with these gains; a weighted sum of the terms is their sum with other gains."""
        autocast = str(torch.get_autocast_dtype("cpu")).removeprefix("torch.") if torch.is_autocast_enabled("cpu") else None
        fields: dict[str, Any] = {
            "entry_point": "loss",
            "dtype": str(boxes.dtype).removeprefix("torch."),
            "spec": spec_fields(dataclasses.replace(self.spec, gains=tuple(gains))),
            "predictions": ["boxes", "scores"],
            "targets": list(batch),
            "grids": grids,
            "batch_size": len(boxes),
            "autocast": autocast,
        }
        arrays = {name: value.detach().double().cpu().numpy() for name, value in (("boxes", boxes), ("scores", scores), *batch.items())}
        reply = self.process.ask(Message(fields, arrays), PATIENCE)
        if reply.fields["outcome"] != "answered":
            raise ReleaseError(f"{reply.fields['outcome']}: {reply.fields.get('message', '')}")
        return reply.arrays


class _ReleaseLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, criterion: ReleaseCriterion, boxes: Tensor, scores: Tensor, batch: Batch, grids: Sequence[tuple[int, int]]
    ) -> Tensor:
        ctx.criterion, ctx.batch, ctx.grids = criterion, batch, grids
        ctx.save_for_backward(boxes, scores)
        ctx.answer = criterion.ask(criterion.spec.gains, boxes, scores, batch, grids)
        items = torch.from_numpy(ctx.answer["items"])
        return (items.double() if boxes.dtype == torch.float64 else items.float()).to(boxes.device) * len(boxes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[None, Tensor, Tensor, None, None]:
        boxes, scores = ctx.saved_tensors
        answer = ctx.answer
        if not bool((cotangent == 1).all()):
            gains = [gain * factor for gain, factor in zip(ctx.criterion.spec.gains, cotangent.tolist(), strict=True)]
            answer = ctx.criterion.ask(gains, boxes, scores, ctx.batch, ctx.grids)
        return None, _gradient(answer, boxes, "boxes"), _gradient(answer, scores, "scores"), None, None


def _gradient(answer: Arrays, like: Tensor, name: str) -> Tensor:
    """Returns the release's gradient; zeros where it computes none, as some releases do on batches without boxes."""
    found = answer.get(f"gradient of {name}")
    return torch.zeros_like(like) if found is None else torch.from_numpy(found).to(like)
