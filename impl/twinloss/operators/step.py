"""The operators ``twinloss::step`` and ``twinloss::step_gradients``: the loss of a batch, and the gradients of its predictions.

Both take the predictions and targets as they came, by name, and admit them themselves (:mod:`twinloss.inputs.admission`).

Shape suffixes: B images, A anchors, N rows of the batch, S = N·K slots, n keypoints, Q = S·n pairs at most, P that count, T terms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from twinloss.backends import evaluate as mixed
from twinloss.backends.call import Call
from twinloss.backends.registry import choose_backend
from twinloss.backends.slots import Slots
from twinloss.inputs.admission import admit
from twinloss.inputs.checks import check_present
from twinloss.operators.definition import Definition, definition_of, shape_of
from twinloss.operators.reentrant import autograd_recorded
from twinloss.spec import LossSpec
from twinloss.task_specs import PoseSpec
from twinloss.terms.classification import working_dtype
from twinloss.terms.keypoints import DeferredFlow

_INPUTS = "Tensor[] predictions, Tensor[] targets, Tensor? numbers, SymInt[] grids, str names, str definition"
_SLOTS = "Tensor anchor, Tensor box, Tensor weight, Tensor count"

# The host decides what happens inside, which a captured CUDA graph would not repeat. Older torch has no such tag, and captures nothing
# that it is not told to.
_TAGS = tuple(tag for name in ("cudagraph_unsafe",) if (tag := getattr(torch.Tag, name, None)) is not None)

library = torch.library.Library("twinloss", "DEF")
"""Holds the definitions for as long as the module lives."""

library.define(f"step({_INPUTS}) -> (Tensor loss, Tensor items, {_SLOTS}, Tensor[] pairs)", tags=_TAGS)
library.define(f"step_gradients(Tensor to_loss, Tensor[] to_pairs, {_SLOTS}, {_INPUTS}, bool[] wanted) -> Tensor[]", tags=_TAGS)


class Given(NamedTuple):
    """The arguments of either operator, in the order of its schema.

    Attributes:
        predictions: tensors of the predictions, ``boxes`` (B, 4R, A) and ``scores`` (B, C, A) among them, in any order.
        targets: tensors of the batch, ``batch_idx``, ``cls`` and ``bboxes`` among them, in any order.
        numbers: the definition's real numbers, float64 on the host, or ``None`` where they are in ``definition``.
        grids: rows and columns of each level, one after the other.
        names: keys of the predictions and then of the targets, separated by spaces.
        definition: of :func:`twinloss.operators.definition.definition_of`.
    """

    predictions: Sequence[Tensor]
    targets: Sequence[Tensor]
    numbers: Tensor | None
    grids: Sequence[int]
    names: str
    definition: str

    def parsed_definition(self) -> Definition:
        """The definition with its options."""
        return definition_of(self.definition, None if self.numbers is None else tuple(self.numbers.tolist()))

    def by_name(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Predictions and targets by their keys."""
        names, count = self.names.split(), len(self.predictions)
        predictions = dict(zip(names[:count], self.predictions, strict=True))
        return predictions, dict(zip(names[count:], self.targets, strict=True))


class _Level(NamedTuple):
    """Stands in for a feature map, of which the shape alone is read."""

    shape: tuple[int, int]


def _call(given: Given, predictions: Mapping[str, Tensor], definition: Definition, validate: bool | None) -> Call:
    """The call, with these predictions, admitted as in eager mode."""
    layout: dict[str, Any] = dict(predictions)
    layout["feats"] = [_Level((int(rows), int(columns))) for rows, columns in zip(given.grids[::2], given.grids[1::2], strict=True)]
    if "semantic" in layout:
        layout["proto"] = layout["proto"], layout.pop("semantic")
    options: dict[str, Any] = {"conflicts": definition.conflicts, "ties": definition.ties, "pairs_at_once": definition.pairs_at_once}
    flow = {"flow": DeferredFlow()} if _has_flow(definition.spec) else {}
    return admit(layout, given.by_name()[1], definition.spec, validate, **options, **flow)


def _has_flow(spec: LossSpec) -> bool:
    return isinstance(spec, PoseSpec) and spec.flow


def _pairs(call: Call) -> tuple[Tensor, ...]:
    """What a flow is to be given: the part of the term without it (1,), points (P, 2), and float64 shares (P,); nothing without a flow."""
    if not isinstance(call.flow, DeferredFlow) or call.flow.given is None:
        return ()
    without, latents, shares = call.flow.given
    return without.view(1), latents.to(working_dtype(call.boxes)), shares


def _padded(values: Tensor, length: int | torch.SymInt) -> Tensor:
    """Values in the first rows of ``length``, zeros in the others."""
    found = values.new_zeros(length, *values.shape[1:])
    found[: len(values)] = values
    return found


def _step(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, list[Tensor]]:
    """``twinloss::step``.

    Returns:
        (T,) loss and (T,) logged items, that of a flow 0; the slots' anchors (S,) int32, rows (S,) int32 and soft targets (S,); (1,) int32,
        after how many slots there are none but empty ones; and where a flow is to run, the part of its term without it (1,), the points
        (Q, 2) that it is given and their shares (Q,), zeros where no pair counts.
    """
    given = Given(*arguments)
    definition, predictions = given.parsed_definition(), given.by_name()[0]
    with torch.no_grad():
        call = _call(given, predictions, definition, definition.validate)
        backend = choose_backend(definition.backend, call)
        found = mixed.evaluate(backend, call)
        slots, count = mixed.slots_of(backend, call, found)
        filled = torch.full((1,), count, dtype=torch.int32, device=slots.anchor.device)
        without, *pairs = _pairs(call) or (None,)
        most = _most_pairs(definition.spec, len(slots.anchor))
        padded = [] if without is None else [without, *(_padded(values, most) for values in pairs)]
    return found.loss, found.items, slots.anchor, slots.owner, slots.weight, filled, padded


def _most_pairs(spec: LossSpec, slots: int | torch.SymInt) -> int | torch.SymInt:
    """Q: pairs of slot and keypoint, and at least one, which a flow's parameters get gradients of 0 from."""
    points = spec.keypoint_shape[0] if isinstance(spec, PoseSpec) else 0
    return torch.sym_max(slots * points, 1)


def _step_shapes(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, list[Tensor]]:
    """What :func:`_step` returns, without values."""
    given = Given(*arguments)
    predictions, targets = given.by_name()
    check_present("preds", predictions, ("boxes", "scores"))
    check_present("batch", targets, ("batch_idx", "cls", "bboxes"))
    spec = shape_of(given.definition)
    scores = predictions["scores"]
    slots, dtype = targets["batch_idx"].numel() * torch.sym_min(spec.topk, scores.shape[-1]), working_dtype(scores)
    loss, items = (scores.new_empty(len(spec.terms), dtype=dtype) for _ in range(2))
    anchor, box = (scores.new_empty(slots, dtype=torch.int32) for _ in range(2))
    pairs, most = [], _most_pairs(spec, slots)
    if _has_flow(spec) and "kpts_sigma" in predictions:
        pairs = [
            scores.new_empty(1, dtype=torch.float64),
            scores.new_empty(most, 2, dtype=dtype),
            scores.new_empty(most, dtype=torch.float64),
        ]
    return loss, items, anchor, box, scores.new_empty(slots, dtype=dtype), scores.new_empty(1, dtype=torch.int32), pairs


def _step_gradients(
    to_loss: Tensor, to_pairs: Sequence[Tensor], anchor: Tensor, box: Tensor, weight: Tensor, count: Tensor, *arguments: Any
) -> list[Tensor]:
    """``twinloss::step_gradients``.

    Returns:
        The gradient of each prediction, contiguous, in its dtype; (0,) where it is not wanted.
    """
    given, wanted = Given(*arguments[:-1]), arguments[-1]
    definition, predictions = given.parsed_definition(), given.by_name()[0]
    with autograd_recorded():
        leaves = {key: value.detach().requires_grad_(asked) for (key, value), asked in zip(predictions.items(), wanted, strict=True)}
        call = _call(given, leaves, definition, validate=False)
        found = mixed.evaluate_on_slots(choose_backend(definition.backend, call), call, Slots(anchor, box, weight), count)
        pairs = _pairs(call)
        incoming = [to_loss, *(to[: len(values)] for values, to in zip(pairs, to_pairs, strict=True))]
        asked = [leaf for leaf in leaves.values() if leaf.requires_grad]
        gradients = iter(_gradients([found.loss, *pairs], incoming, asked))
    return [next(gradients).contiguous() if leaf.requires_grad else leaf.new_empty(0) for leaf in leaves.values()]


def _gradients(outputs: Sequence[Tensor], incoming: Sequence[Tensor], inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The gradients of inputs, zeros where outputs do not depend on them."""
    depending = [(output, to) for output, to in zip(outputs, incoming, strict=True) if output.requires_grad]
    if not inputs or not depending:
        return tuple(map(torch.zeros_like, inputs))
    found, to = zip(*depending, strict=True)
    return torch.autograd.grad(found, inputs, to, allow_unused=True, materialize_grads=True)


def _step_gradients_shapes(*arguments: Any) -> list[Tensor]:
    """What :func:`_step_gradients` returns, without values."""
    given, wanted = Given(*arguments[6:-1]), arguments[-1]
    shapes = (leaf.shape if asked else (0,) for leaf, asked in zip(given.predictions, wanted, strict=True))
    return [leaf.new_empty(shape) for leaf, shape in zip(given.predictions, shapes, strict=True)]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
    """Keep what the backward pass reads: the inputs, and the slots."""
    given, (_, items, *slots, _) = Given(*inputs), output
    ctx.mark_non_differentiable(items, *slots)
    numbers = [] if given.numbers is None else [given.numbers]
    ctx.save_for_backward(*slots, *given.predictions, *given.targets, *numbers)
    ctx.counts = len(given.predictions), len(given.targets)
    ctx.unsaved = given.grids, given.names, given.definition


def _backward(ctx: Any, to_loss: Tensor, *others: Any) -> tuple[Any, ...]:
    """The gradients of the predictions; targets and numbers are data."""
    predictions, targets = ctx.counts
    slots, given = ctx.saved_tensors[:4], ctx.saved_tensors[4:]
    numbers = given[predictions + targets :]
    inputs = list(given[:predictions]), list(given[predictions : predictions + targets]), *(numbers or (None,)), *ctx.unsaved
    wanted = list(ctx.needs_input_grad[0])
    found = torch.ops.twinloss.step_gradients(to_loss, others[-1], *slots, *inputs, wanted)
    return [each if asked else None for each, asked in zip(found, wanted, strict=True)], [None] * targets, *(None,) * 4


for _name, _implementation, _shapes in (("step", _step, _step_shapes), ("step_gradients", _step_gradients, _step_gradients_shapes)):
    library.impl(_name, _implementation, "CompositeExplicitAutograd")
    torch.library.register_fake(f"twinloss::{_name}", _shapes, lib=library)
torch.library.register_autograd("twinloss::step", _backward, setup_context=_save, lib=library)
