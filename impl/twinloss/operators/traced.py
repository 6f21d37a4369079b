"""What a loss does while ``torch.compile`` or ``torch.export`` traces it: collect an operator's arguments, and call it.

Nothing here reads a value, or decides by one. Shapes are not looked at either, so that they stay free.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from twinloss.backends.call import Flow
from twinloss.inputs.admission import TARGETS, from_old_layout
from twinloss.inputs.tasks import FURTHER_KEYS
from twinloss.operators import step as _operators  # noqa: F401 - defines them
from twinloss.terms.keypoints import with_flow

if TYPE_CHECKING:
    from twinloss.loss import TaskLoss


def evaluate(loss: TaskLoss, preds: Any, batch: Mapping[str, Tensor], numbers: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The loss (T,) and the logged items (T,).

    Args:
        loss: the loss, whose definition and options are constants of the graph.
        preds: as the loss takes them.
        batch: as the loss takes it.
        numbers: the definition's real numbers where they are no constants, float64 on the host, in the order of
            :func:`twinloss.operators.definition.numbers_of`.
    """
    spec = loss.spec
    layout = preds if isinstance(preds, Mapping) else from_old_layout(preds, spec)
    prediction_keys, target_keys = FURTHER_KEYS[spec.task]
    predictions = _present({**layout, **_prototypes(layout)}, ("boxes", "scores", *prediction_keys))
    targets = _present(batch, (*TARGETS, *target_keys))
    grids = [(level.shape[-2], level.shape[-1]) for level in layout["feats"]]
    options = f"{loss.ties} {loss.conflicts} {loss.validate} {loss.pairs_at_once} {loss.backend}"
    found, items, *_, pairs = torch.ops.twinloss.step(
        list(predictions.values()),
        list(targets.values()),
        numbers,
        [size for grid in grids for size in grid],
        " ".join([*predictions, *targets]),
        f"{options}|{loss.text if numbers is None else loss.structure}",
    )
    if loss.flow is None or not pairs:
        return found, items
    last = len(spec.gains) - 1
    gain = spec.gains[last] if numbers is None else numbers[last].to(found.dtype)
    term = _likelihood(loss.flow, pairs, found.dtype) * gain
    images = len(predictions["boxes"])
    return torch.cat([found[:-1], (term * images).unsqueeze(0)]), torch.cat([items[:-1], term.detach().unsqueeze(0)])


def _likelihood(flow: Flow, pairs: list[Tensor], dtype: torch.dtype) -> Tensor:
    """The term of a flow, which is the user's code and traced with the rest, on as many points as there can be."""
    without, latents, shares = pairs
    with torch.autocast(latents.device.type, enabled=False):
        return with_flow(without.squeeze(0), latents, shares, flow, dtype).to(dtype)


def _present(given: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Tensor]:
    return {key: given[key] for key in keys if given.get(key) is not None}


def _prototypes(layout: Mapping[str, Any]) -> dict[str, Tensor]:
    """Prototypes and semantic logits, which come in a tuple."""
    proto = layout.get("proto")
    return {"proto": proto[0], "semantic": proto[1]} if isinstance(proto, tuple) and len(proto) == 2 else {}
