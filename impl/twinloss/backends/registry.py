"""The backends by name, in the order in which ``backend="auto"`` asks them."""

from __future__ import annotations

from typing import Literal

from twinloss.backends.call import Backend, Call
from twinloss.backends.native.backend import NativeBackend
from twinloss.backends.torch import TorchBackend
from twinloss.backends.triton.backend import TritonBackend

BackendName = Literal["auto", "torch", "native", "triton"]

BACKENDS: dict[str, Backend] = {backend.name: backend for backend in (NativeBackend(), TritonBackend(), TorchBackend())}


def choose_backend(asked: BackendName, call: Call) -> Backend:
    """Return the backend that serves a call.

    Args:
        asked: "auto" for the first that can serve of those meant for the logits' device; any other name for that backend alone.
        call: the call.

    Raises:
        ValueError: the backend that was named cannot serve the call; the message gives the reason and the remedy.
    """
    if asked != "auto":
        if reason := _why_not(BACKENDS[asked], call):
            raise ValueError(f"backend={asked!r} cannot serve this call: {reason}")
        return BACKENDS[asked]
    for backend in BACKENDS.values():
        if backend.is_default_for(call):
            reason = _why_not(backend, call)
            if reason is None:
                return backend
            backend.report(reason)
    raise AssertionError("the torch backend serves every call")


def _why_not(backend: Backend, call: Call) -> str | None:
    """Why a backend cannot serve the call, with the remedy; ``None`` when it can."""
    if call.spec.geometry not in backend.geometries:
        known = " and ".join(backend.geometries)
        return f"its kernels know {known} boxes, and these are {call.spec.geometry}; use backend='torch'"
    return backend.why_not(call)
