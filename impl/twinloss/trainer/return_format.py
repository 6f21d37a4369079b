"""The way in which a model's own criterion returns, which has changed from release to release, learnt by asking it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

TARGETS = ("batch_idx", "cls", "bboxes")


@dataclass(frozen=True)
class Way:
    """How loss and logged items are returned.

    Attributes:
        scalar: whether the loss is the sum of the three terms, rather than a vector of them.
        names: of the items in a mapping, or ``None`` where they are a vector.
    """

    scalar: bool
    names: tuple[str, ...] | None

    def __call__(self, loss: Tensor, items: Mapping[str, Tensor]) -> tuple[Tensor, Any]:
        """Loss (3,) and items by name, the way that the criterion returns them."""
        values = list(items.values())
        returned = torch.stack(values) if self.names is None else dict(zip(self.names, values, strict=True))
        return (loss.sum() if self.scalar else loss), returned

    def __str__(self) -> str:
        return f"{'scalar' if self.scalar else '(3,)'}, items as {'a (3,) tensor' if self.names is None else 'a dict'}"


def learn(criterion: Any, preds: Any, batch: Mapping[str, Any]) -> Way:
    """The way in which a criterion returns, from its answer to the first image without boxes.

    Args:
        criterion: the model's own.
        preds: as the model's head gives them.
        batch: the batch that came with them.

    Raises:
        TypeError: it returns neither a scalar nor three terms, or not three items.
    """
    nothing = {**batch, **{name: batch[name][:0] for name in TARGETS}}
    with undisturbed(preds):
        return way_of(*criterion(mapped(preds, lambda tensor: plain(tensor[:1])), nothing))


def way_of(loss: Any, items: Any) -> Way:
    """The way in which these were returned.

    Raises:
        TypeError: they are no loss and items of the detection loss.
    """
    terms, logged = torch.as_tensor(loss).numel(), len(items)
    if terms not in (1, 3) or logged != 3:
        raise TypeError(
            f"the model's own criterion returns {terms} terms and {logged} logged items, where the detection loss has 3 of each; "
            "train without the twin (twinloss.hook.uninstall)"
        )
    return Way(terms == 1, tuple(items) if isinstance(items, Mapping) else None)


def mapped(preds: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Predictions in the same layout, each tensor changed."""
    if isinstance(preds, Tensor):
        return change(preds)
    if isinstance(preds, Mapping):
        return {name: mapped(part, change) for name, part in preds.items()}
    return type(preds)(mapped(part, change) for part in preds) if isinstance(preds, (list, tuple)) else preds


def plain(tensor: Tensor) -> Tensor:
    """A copy without history; of half precision, in float32."""
    half = tensor.dtype in (torch.float16, torch.bfloat16)
    return tensor.detach().to(torch.float32) if half else tensor.detach().clone()


def first_of(preds: Any) -> Tensor:
    """The first tensor of predictions in any layout: its device is that of all, its length the number of images."""
    while not isinstance(preds, Tensor):
        preds = next(iter(preds.values() if isinstance(preds, Mapping) else preds))
    return preds


@contextmanager
def undisturbed(preds: Any) -> Iterator[None]:
    """Surroundings in which a criterion can be asked and nothing is left of it: no gradients, the random state kept, full precision."""
    device = first_of(preds).device
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.no_grad(), torch.autocast(device.type, enabled=False), _full_precision():
        yield


@contextmanager
def _full_precision() -> Iterator[None]:
    """Matrix products, such as that of decoding, in float32."""
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:  # a person has set it per device, in torch's newer way, which has no one answer
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
