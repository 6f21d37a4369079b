"""Compiles the kernels of a call for an architecture instead of launching them; no GPU is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

OnLaunch = Callable[[Any, tuple[int, int, int], tuple[Any, ...]], None]


@contextmanager
def compiling_for(capability: int, on_launch: OnLaunch) -> Iterator[None]:
    """Within the block each launch compiles its kernel for the architecture, and calls ``on_launch`` with kernel, grid and arguments."""
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    from twinloss.backends.triton.launch import kernels_for

    launching = JITFunction.run

    def compile_instead(self: Any, *args: Any, grid: Any, **options: Any) -> Any:
        kernel = launching(self, *args, grid=grid, **options | {"warmup": True})
        constants = (options[name] for name in self.arg_names[len(args) :])
        built = _Compiled(kernel, on_launch)
        built[(*grid, 1, 1)[:3]](*args, *constants)
        return built

    kernels_for.cache_clear()  # drops kernels compiled for another architecture
    driver.set_active(_AbsentDriver(capability))
    JITFunction.run = compile_instead
    try:
        yield
    finally:
        JITFunction.run = launching
        kernels_for.cache_clear()
        with suppress(RuntimeError):  # where there is no GPU, there is no other driver to go back to
            driver.reset_active()


@dataclass(frozen=True)
class _Compiled:
    """A compiled kernel whose launches call ``on_launch``."""

    kernel: Any
    on_launch: OnLaunch

    def __getitem__(self, grid: tuple[int, int, int]) -> Callable[..., None]:
        return lambda *arguments: self.on_launch(self.kernel, grid, arguments)


def check_constants(kernel: Any, arguments: tuple[Any, ...]) -> None:
    """Check that the constants among a launch's arguments are those that the kernel was compiled for.

    Raises:
        RuntimeError: a constant has another value.
    """
    source = kernel.src
    expected = {source.fn.arg_names[at]: value for (at, *within), value in source.constants.items() if not within}
    passed = dict(zip(source.fn.arg_names, arguments, strict=True))
    if wrong := {name: passed[name] for name, value in expected.items() if passed[name] != value}:
        raise RuntimeError(f"{source.fn.__name__} was compiled for {expected}, but is launched with {wrong}")


class _AbsentDriver:
    """Replaces the driver of a GPU; each architecture is one device, so that its kernels have a cache of their own."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_device(self) -> int:
        return self.capability

    def get_current_stream(self, _device: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.capability, 32)  # threads of a warp
