"""Makes torch's OpenMP runtime answer the kernels' calls: two pools of threads would compete for the cores."""

from __future__ import annotations

import contextlib
import ctypes
import os
from importlib import import_module

_CALLS = ("GOMP_parallel", "__kmpc_fork_call")
"""How a compiler begins a parallel region: GCC, and clang."""


class _SymbolInfo(ctypes.Structure):
    _fields_ = (
        ("path", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


def share_with_torch() -> str | None:
    """Open torch's OpenMP runtime to all libraries that are loaded later.

    The runtime is the one that torch's own libraries depend on, whatever it is called there (``libgomp.so.1``, ``libgomp-a34b3233.so.1``,
    ``libomp.dylib``) and whatever others the process has loaded.

    Returns:
        its path, or ``None`` if torch has none; the kernels then cannot be loaded, unless they bring one.
    """
    path = _runtime_of_torch()
    if path is not None:
        with contextlib.suppress(OSError):  # a file that was replaced since torch loaded it would be a second runtime
            ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL | getattr(os, "RTLD_NOLOAD", 0))
    return path


def _runtime_of_torch() -> str | None:
    """Path of the library in which torch finds the beginning of a parallel region."""
    program, torch_s = ctypes.CDLL(None), ctypes.CDLL(import_module("torch._C").__file__)
    info = _SymbolInfo()
    for name in _CALLS:
        with contextlib.suppress(AttributeError):  # neither the library nor those that it depends on have it
            if program.dladdr(ctypes.cast(getattr(torch_s, name), ctypes.c_void_p), ctypes.byref(info)) and info.path:
                return os.fsdecode(info.path)
    return None
