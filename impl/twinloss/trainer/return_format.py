"""The format in which a model's own criterion returns, which has changed from release to release, learnt by asking it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

TARGETS = ("batch_idx", "cls", "bboxes")


@dataclass(frozen=True)
class Task:
    """What a criterion reads of a batch, and how much it returns.

    Attributes:
        terms: T, number of its terms.
        targets: keys of the batch beside :data:`TARGETS`.
        of_images: whether ``masks`` has one map an image; else it has one a box.
    """

    terms: int
    targets: tuple[str, ...] = ()
    of_images: bool = True

    def without_boxes(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The batch's first image, without boxes."""
        images = {"sem_masks", "masks"} if self.of_images else {"sem_masks"}
        keys = [*TARGETS, *(key for key in self.targets if key in batch)]
        return {**batch, **{key: batch[key][: int(key in images)] for key in keys}}

    def copied(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The batch with copies of what is read."""
        keys = [*TARGETS, *(key for key in self.targets if key in batch)]
        return {**batch, **{key: batch[key].detach().clone() for key in keys}}


@dataclass(frozen=True)
class ReturnFormat:
    """How loss and logged items are returned.

    Attributes:
        scalar: whether the loss is the sum of the terms, rather than a vector of them.
        names: of the items in a mapping, or ``None`` where they are a vector.
    """

    scalar: bool
    names: tuple[str, ...] | None

    def __call__(self, loss: Tensor, items: Mapping[str, Tensor]) -> tuple[Tensor, Any]:
        """Loss (T,) and items by name, in the criterion's format."""
        values = list(items.values())
        returned = torch.stack(values) if self.names is None else dict(zip(self.names, values, strict=True))
        return (loss.sum() if self.scalar else loss), returned

    def __str__(self) -> str:
        return f"{'scalar' if self.scalar else 'vector'}, items as {'a vector' if self.names is None else 'a dict'}"


def learn_format(criterion: Any, preds: Any, batch: Mapping[str, Any], task: Task) -> ReturnFormat:
    """The format in which a criterion returns, from its answer to the first image without boxes.

    Args:
        criterion: the model's own.
        preds: as the model's head gives them.
        batch: the batch that came with them.
        task: what the criterion reads and returns.

    Raises:
        TypeError: it returns neither a scalar nor a vector of its terms, or other items.
    """
    with undisturbed(preds):
        loss, items = criterion(mapped(preds, lambda tensor: plain(tensor[:1])), task.without_boxes(batch))
    return format_of(loss, items, task.terms)


def format_of(loss: Any, items: Any, count: int) -> ReturnFormat:
    """The format in which these were returned, of a loss of ``count`` terms.

    Raises:
        TypeError: they are no loss and items of so many terms.
    """
    terms, logged = torch.as_tensor(loss).numel(), len(items)
    if terms not in (1, count) or logged != count:
        raise TypeError(
            f"the model's own criterion returns {terms} terms and {logged} logged items, where its task's loss has {count} of each; "
            "train without the twin (twinloss.hook.uninstall)"
        )
    return ReturnFormat(terms == 1, tuple(items) if isinstance(items, Mapping) else None)


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
