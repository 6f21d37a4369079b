"""Decodes what a candidate's process sent: copies of its tensors, and stand-ins of the same type for what the contract forbids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from oracle.contract.answer_form import MalformedError
from oracle.inside.arena import Arena, ArenaError
from oracle.inside.encode import Code
from oracle.inside.messages import Record
from oracle.tools.printable import printable


class CandidateRaised(Exception):  # noqa: N818 - stands for the candidate's exception, under whose name it is raised
    """An exception of a candidate's code in its process."""


def exception_of(record: Record) -> Exception:
    """Returns an exception with the type's name and the text of one that was raised in the candidate's process."""
    name = printable(str(record.get("type", "Exception")), 80)
    # The judge reads from a TypeError whether a factory takes a flow.
    kind: Any = type(name, (CandidateRaised, TypeError) if name == "TypeError" else (CandidateRaised,), {})
    found: Exception = kind(str(record.get("text", "")))
    return found


def decode(code: Code, arena: Arena) -> Any:
    """Returns the value of a code.

    Raises:
        MalformedError: the code is none, or names a place outside of the shared memory.
    """
    try:
        return _decode(code, arena)
    except (ArenaError, KeyError, TypeError, ValueError, AttributeError, RuntimeError, StopIteration) as error:
        raise MalformedError(f"its process sent an answer that cannot be read: {printable(str(error), 200)}") from error


def _decode(code: Code, arena: Arena) -> Any:
    kind = next(kind for kind in _DECODERS if kind in code)
    return _DECODERS[kind](code, arena)


def _tensor(code: Code, arena: Arena) -> Tensor:
    # A copy, so that nothing which the candidate's process does later changes what is judged.
    return arena.view(code["tensor"]).clone().to(code.get("device", "cpu"))


def _dtype(code: Code, _: Arena) -> torch.dtype | None:
    dtype = getattr(torch, code["dtype"])
    return dtype if isinstance(dtype, torch.dtype) else None


_DECODERS: dict[str, Callable[[Code, Arena], Any]] = {
    "tensor": _tensor,
    "tensor of": lambda code, _: _forbidden_tensor(code),
    "tuple": lambda code, arena: tuple(_decode(one, arena) for one in code["tuple"]),
    "mapping": lambda code, arena: {str(name): _decode(one, arena) for name, one in code["mapping"]},
    "dtype": _dtype,
    "value": lambda code, _: code["value"] if isinstance(code["value"], (str, bool)) else None,
    "number": lambda code, _: float(code["number"]),
    "other": lambda code, _: type(printable(str(code["other"]), 80), (), {})(),
}


def _forbidden_tensor(code: Code) -> Tensor:
    """Returns an empty tensor of the type, layout or device that the candidate returned."""
    shape, dtype = [int(size) for size in code["shape"]], getattr(torch, code["dtype"])
    if code["tensor of"] not in ("Tensor", "Parameter"):
        kind: Any = type(printable(str(code["tensor of"]), 80), (Tensor,), {})
        made: Tensor = torch.zeros(()).to(dtype).expand(shape).as_subclass(kind)
        return made
    if code["device"].startswith("meta"):
        return torch.empty(shape, dtype=dtype, device="meta")
    if code["layout"] == "sparse_coo":
        return torch.zeros(shape, dtype=dtype).to_sparse()
    if code["layout"].startswith("sparse"):
        return torch.zeros(shape, dtype=dtype).to_sparse_csr()
    return torch.zeros(shape).as_subclass(type(printable(f"{code['layout']} tensor", 80), (Tensor,), {}))
