"""Chooses the device of the kernels: the host if Triton's interpreter is on, else the GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from properties.tests.kernels.helpers import on_host
from twinloss.backends.triton.availability import interpreting

collect_ignore = ["__init__.py"]


def pytest_sessionstart() -> None:
    """One thread is enough for small tensors, and the interpreter patches the language once, not at every call of a device function."""
    torch.set_num_threads(1)
    if interpreting():
        _patch_once()


def _patch_once() -> None:
    from triton.runtime.interpreter import InterpretedFunction

    patched: set[Any] = set()
    patching = InterpretedFunction.__call__

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.fn in patched:
            return self.rewrite()(*args, **kwargs)
        patched.add(self.fn)
        return patching(self, *args, **kwargs)

    # Patching all of triton.language before each call, although it is patched, takes half of the time.
    InterpretedFunction.__call__ = call


@pytest.fixture(scope="session")
def device() -> str:
    """The device that the kernels run on."""
    if on_host():
        return "cpu"
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU, and Triton's interpreter is off: set TRITON_INTERPRET=1")
    return "cuda"
