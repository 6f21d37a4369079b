"""Encodes what a candidate returned as JSON, and its plain tensors as places in the arena; nothing is judged here.

========================= ======================================================================================
value                     code
========================= ======================================================================================
plain tensor on the CPU   ``{"tensor": place, "grad": whether it requires a gradient}``
another tensor            ``{"tensor of": type, "layout": …, "device": …, "dtype": …, "shape": …}``
tuple                     ``{"tuple": [code, …]}``
mapping                   ``{"mapping": [[name, code], …]}``
text, truth value, none   ``{"value": …}``
number                    ``{"number": …}``
dtype                     ``{"dtype": name}``
anything else             ``{"other": name of its type}``
========================= ======================================================================================
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .arena import Arena

Code = dict[str, Any]
LONGEST_TEXT = 20_000
MOST_MEMBERS = 1000


class Encoder:
    """Encodes values into an arena.

    Args:
        arena: where plain tensors go.
        start: first free offset.
    """

    def __init__(self, arena: Arena, start: int) -> None:
        self.arena, self.end = arena, start

    def __call__(self, value: Any) -> Code:
        """Returns the code of a value."""
        kind = type(value)
        if issubclass(kind, Tensor):
            return self._tensor(value)
        if issubclass(kind, tuple):
            return {"tuple": [self(one) for one in tuple.__iter__(value)][:MOST_MEMBERS]}
        if isinstance(value, Mapping):
            return {"mapping": [[_text(name), self(one)] for name, one in list(value.items())[:MOST_MEMBERS]]}
        return _plain_value(value)

    def _tensor(self, value: Tensor) -> Code:
        plain = type(value) in (Tensor, torch.nn.Parameter)
        if plain and value.layout == torch.strided and not value.is_quantized and not value.is_meta:
            place, self.end = self.arena.put(value.cpu(), self.end)
            return {"tensor": place, "grad": value.requires_grad, "device": str(value.device)}
        names = ("layout", "device", "dtype")
        described = {name: str(getattr(value, name)).removeprefix("torch.") for name in names}
        return {"tensor of": _text(type(value).__name__), **described, "shape": list(value.shape)}


def _plain_value(value: Any) -> Code:
    """Returns the code of a value without members."""
    kind = type(value)
    if kind is torch.dtype:
        return {"dtype": str(value).removeprefix("torch.")}
    if value is None or kind is bool:
        return {"value": value}
    if issubclass(kind, str):
        return {"value": _text(value)}
    with contextlib.suppress(Exception):
        return {"number": float(value)}
    return {"other": _text(kind.__name__)}


def _text(value: Any) -> str:
    """Returns a text that JSON and UTF-8 can hold."""
    text = value if isinstance(value, str) else str(value)
    return str.encode(str.__getitem__(text, slice(LONGEST_TEXT)), "utf-8", "backslashreplace").decode()
