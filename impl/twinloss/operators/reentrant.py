"""Autograd inside of an operator's implementation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_KEYS = tuple(
    getattr(torch._C.DispatchKey, name)
    for name in ("ADInplaceOrView", "AutogradFunctionality", "AutogradOther", "AutogradCPU", "AutogradCUDA")
)


@contextmanager
def autograd_recorded() -> Iterator[None]:
    """Operations are recorded for autograd, whatever called the operator.

    Where a dispatch mode did (that of a profiler, a checkpoint's policy, torch's own checks), torch has put recording off for the thread.
    """
    excluded = torch._C._dispatch_tls_local_exclude_set()
    for key in _KEYS:
        excluded = excluded.remove(key)
    with torch._C._ForceDispatchKeyGuard(torch._C._dispatch_tls_local_include_set(), excluded), torch.enable_grad():
        yield
