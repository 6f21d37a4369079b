"""The drop-in's criterion inside of a graph that ``torch.compile`` traces.

What a criterion does beside the loss is decided by values and by objects that a tracer cannot see: it reads its numbers from the model's
own criterion, is verified against that, and counts its calls. All of it is one operator, ``twinloss::follow``, which returns the numbers of
the moment; the loss takes them as a tensor (:mod:`twinloss.operators`), so that a callback that changes a gain, or an end-to-end share that
moves with the epochs, needs no other graph. The operator belongs to this process, as the model does: a graph with it cannot be exported.

>>> preds = {"boxes": torch.zeros(1), "feats": [torch.ones(1), torch.ones(2)]}
>>> layout(preds)
'{"boxes": 0, "feats": [0, 0]}'
>>> [tensor.tolist() for tensor in leaves(preds)], rebuilt(layout(preds), leaves(preds))["feats"][1].tolist()
([[0.0], [1.0], [1.0, 1.0]], [1.0, 1.0])
"""

from __future__ import annotations

import itertools
import json
import weakref
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from twinloss.end_to_end import EndToEndLoss
from twinloss.loss import TaskLoss
from twinloss.trainer.return_format import TARGETS

if TYPE_CHECKING:
    from twinloss.trainer.criterion_swap import Criterion

_criteria: weakref.WeakValueDictionary[int, Criterion] = weakref.WeakValueDictionary()
_handles = itertools.count()

library = torch.library.Library("twinloss", "FRAGMENT")
"""Holds the definition for as long as the module lives."""

# The tag keeps torch from leaving out, joining or repeating what looks like the same call.
library.define(
    "follow(Tensor criterion, Tensor[] predictions, Tensor[] targets, str layout, str keys, str structures, int length, bool training) "
    "-> Tensor",
    tags=(torch.Tag.nondeterministic_seeded,),
)


def enter(criterion: Criterion) -> Tensor:
    """A handle () of a criterion, which does not keep it alive."""
    handle = next(_handles)
    _criteria[handle] = criterion
    return torch.tensor(handle, device="cpu")


def evaluate(criterion: Criterion, preds: Any, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss and the items of a criterion's twin, with the numbers of the moment.

    Args:
        criterion: whose twin has been asked before, outside of a trace.
        preds: as the model's head gives them.
        batch: the batch that came with them.
    """
    loss: TaskLoss | EndToEndLoss = criterion.loss
    keys = [key for key in (*TARGETS, *criterion.targets) if key in batch]
    numbers = torch.ops.twinloss.follow(
        criterion.handle,
        [tensor.detach() for tensor in leaves(preds)],
        [batch[key] for key in keys],
        layout(preds),
        " ".join(keys),
        criterion.structures,
        sum(criterion.counts),
        torch.is_grad_enabled(),
    )
    parts = numbers.split(criterion.counts)
    if isinstance(loss, TaskLoss):
        return loss.traced(preds, batch, parts[0])
    many = loss.one2many.traced(preds["one2many"], batch, parts[0])
    one = loss.one2one.traced(preds["one2one"], batch, parts[1])
    return loss.combine(many, one, parts[2].squeeze(0))


def layout(preds: Any) -> str:
    """The containers of predictions as JSON, with 0 for a tensor and ``null`` for what is neither."""
    if isinstance(preds, Tensor):
        return "0"
    if isinstance(preds, Mapping):
        return "{" + ", ".join([f'"{key}": {layout(part)}' for key, part in preds.items()]) + "}"
    if isinstance(preds, (list, tuple)):
        inside = "[" + ", ".join([layout(part) for part in preds]) + "]"
        return inside if isinstance(preds, list) else '{"()": ' + inside + "}"
    return "null"


def leaves(preds: Any) -> list[Tensor]:
    """The tensors of predictions, in the order of :func:`layout`."""
    if isinstance(preds, Tensor):
        return [preds]
    parts = preds.values() if isinstance(preds, Mapping) else preds if isinstance(preds, (list, tuple)) else ()
    return [tensor for part in parts for tensor in leaves(part)]


def rebuilt(described: str, tensors: Sequence[Tensor]) -> Any:
    """Predictions from their :func:`layout` and :func:`leaves`."""
    return _filled(_read(described), iter(tensors))


@lru_cache(maxsize=64)
def _read(described: str) -> Any:
    return json.loads(described)


def _filled(part: Any, left: Iterator[Tensor]) -> Any:
    if isinstance(part, dict):
        return (
            tuple(_filled(each, left) for each in part["()"]) if "()" in part else {key: _filled(each, left) for key, each in part.items()}
        )
    if isinstance(part, list):
        return [_filled(each, left) for each in part]
    return None if part is None else next(left)


def _follow(
    handle: Tensor,
    predictions: Sequence[Tensor],
    targets: Sequence[Tensor],
    described: str,
    keys: str,
    structures: str,
    _: int,
    training: bool,
) -> Tensor:
    """``twinloss::follow``: what the criterion does beside the loss, and the numbers of its twin, (length,) float64 on the host.

    Raises:
        RuntimeError: the own criterion computes something else than the twin; or its definition has another structure than the one that
            was traced, or is there no longer.
    """
    criterion = _criteria.get(int(handle))
    if criterion is None:
        raise RuntimeError("the criterion that this graph was traced with is no longer there; call torch.compiler.reset() and trace again")
    criterion.prepare(rebuilt(described, predictions), dict(zip(keys.split(), targets, strict=True)), training)
    if criterion.structures != structures:
        raise RuntimeError(
            "the model's own criterion has changed in more than its real numbers since this graph was traced (such as in topk, or whether "
            "there are class weights); call torch.compiler.reset(), and the next call traces it again"
        )
    criterion.settings.heard(criterion, None, training)
    return torch.tensor(criterion.real_numbers(), dtype=torch.float64, device="cpu")


def _follow_shape(*arguments: Any) -> Tensor:
    return torch.empty(arguments[6], dtype=torch.float64, device="cpu")


library.impl("follow", _follow, "CompositeExplicitAutograd")
torch.library.register_fake("twinloss::follow", _follow_shape, lib=library)
