"""``python -m oracle.ptx.driver_stub``: runs steps through Triton's own launcher, with a stub of the CUDA driver library.

:mod:`oracle.ptx.triton_device` replaces Triton's launcher. This program keeps the launcher and replaces the driver below it, so that the
launcher's handling of tuples, constants and numbers is tested as well, and the launches that reuse kernels, from the second call on.

Exit codes: 0 every result is within tolerance of the torch backend's, 1 one is not, 2 there is no compiler or no Triton.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from oracle.cases.build import build as build_inputs
from oracle.cases.case import Case, DtypeName, Setting
from oracle.cases.workloads.small_dense import small_dense
from oracle.ptx.interpreter import run
from oracle.ptx.launch import Launch
from oracle.ptx.memory import Memory, Region
from oracle.ptx.parser import Kernel, parse
from oracle.ptx.triton_device import accept_host_tensors
from twinloss import DetectionLoss

SOURCE = Path(__file__).with_suffix(".c")
FIRST_ADDRESS, END_ADDRESS = 1 << 12, 1 << 47  # Address range of a process; :mod:`oracle.ptx.triton_device` checks bounds.
BYTES = {"u8": 1, "u16": 2, "u32": 4, "f32": 4, "b32": 4, "s32": 4, "u64": 8, "b64": 8, "s64": 8, "f64": 8}
CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, *[ctypes.c_uint] * 3, ctypes.POINTER(ctypes.c_void_p))
TOLERANCES: dict[DtypeName, float] = {"float32": 2e-5, "float16": 2e-3}
CASES = {
    "few anchors": small_dense(size=(64, 64), images=2),
    "misaligned": small_dense(size=(56, 72), images=3, seed=1, strides=(8, 16)),
    "second cut": small_dense(seed=6, reg_max=1, topk=7, topk2=1),
    "class weights": small_dense(seed=12, class_weights=(1.0, 0.0, 2.5)),
}


def build(folder: Path) -> Path:
    """Compile the stub library into a folder, under the name that the launcher loads; returns its path.

    Raises:
        RuntimeError: there is no compiler, or the compilation fails.
    """
    import triton

    compiler = shutil.which("cc")
    if compiler is None:
        raise RuntimeError("there is no C compiler (cc), which the driver stub needs; install one")
    headers = Path(triton.__file__).parent / "backends" / "nvidia" / "include"
    library = folder / "libcuda.so.1"
    command = [compiler, "-shared", "-fPIC", f"-I{headers}", "-o", str(library), str(SOURCE), "-Wl,-soname,libcuda.so.1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    (folder / "libcuda.so").symlink_to(library.name)
    return library


@dataclass
class DriverStub:
    """Runs the launches that Triton's launcher makes.

    Attributes:
        functions: kernels by the handle that the library returned for them.
        launched: names of the kernels, in order of launch.
    """

    functions: dict[int, Kernel] = field(default_factory=dict)
    launched: list[str] = field(default_factory=list)

    def launch(self, function: int, programs: int, threads: int, shared_bytes: int, parameters: Any) -> int:
        """Run one launch; returns 1 after printing the traceback of a failure, else 0."""
        try:
            kernel = self.functions[function]
            sizes = [BYTES[kind] for kind in kernel.parameters.values()]
            arguments = [int.from_bytes(ctypes.string_at(parameters[k], size), "little") for k, size in enumerate(sizes)]
            self.launched.append(kernel.name.removesuffix("_kernel"))
            run(Launch(kernel, programs, threads, shared_bytes, arguments, _process_memory(), len(self.launched), range(programs)))
        except Exception:
            traceback.print_exc()
            return 1
        return 0

    def install(self, library: Path, capability: int = 90) -> Any:
        """Make the library the driver of this process; the caller must keep the returned callback alive as long as launches happen."""
        from triton import knobs
        from triton.backends.compiler import GPUTarget
        from triton.backends.nvidia.driver import CudaDriver
        from triton.runtime import driver

        callback = CALLBACK(self.launch)
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL).on_launch(callback)
        gpu = CudaDriver()
        gpu.get_current_device, gpu.get_current_stream = lambda: 0, lambda _: 0
        gpu.get_current_target = lambda: GPUTarget("cuda", capability, 32)

        driver.set_active(gpu)
        knobs.runtime.kernel_load_end_hook.add(self._loaded)
        return callback

    def _loaded(self, _module: int, function: int, _name: str, files: dict[str, str], _hash: str) -> None:
        (code,) = (path for name, path in files.items() if name.endswith(".ptx"))
        self.functions[function] = parse(Path(code).read_text("utf-8"))


@lru_cache(maxsize=1)
def _process_memory() -> Memory:
    return Memory(
        [Region(FIRST_ADDRESS, np.frombuffer((ctypes.c_uint8 * (END_ADDRESS - FIRST_ADDRESS)).from_address(FIRST_ADDRESS), np.uint8))]
    )


def largest_error(case: Case, dtype: DtypeName) -> float:
    """Returns the largest difference of loss and gradients from the torch backend's, relative to the largest element."""
    answers = []
    for backend in ("triton", "torch"):
        preds, batch = build_inputs(case, Setting(dtype))
        loss, _ = DetectionLoss(case.spec, backend=backend)(preds, batch)
        loss.sum().backward()
        answers.append([loss.detach(), preds["boxes"].grad, preds["scores"].grad])
    return max(float((ours - theirs).abs().max() / theirs.abs().max()) for ours, theirs in zip(*answers, strict=True))


def main() -> int:
    """Run two steps on each case: the first compiles kernels, the second reuses them. Returns the exit code."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, accept_host_tensors():
        # A cache beside the library, so that no process with a GPU finds a launcher built against the stub.
        os.environ |= {"TRITON_LIBCUDA_PATH": folder, "TRITON_CACHE_DIR": str(Path(folder, "cache"))}
        try:
            library = build(Path(folder))
        except (ImportError, RuntimeError) as error:
            print(error, file=sys.stderr)
            return 2
        stub = DriverStub()
        kept = stub.install(library)
        errors = {}
        for name, case in CASES.items():
            for dtype, tolerance in TOLERANCES.items():
                for turn in ("first", "second"):
                    errors[name, dtype, turn] = largest_error(case, dtype) / tolerance
        for key, share in errors.items():
            print(f"{' '.join(key)}: {share:.3f} of the tolerance")
        print(f"{len(stub.launched)} launches of {', '.join(dict.fromkeys(stub.launched))}")
        del kept
    return int(max(errors.values()) > 1)


if __name__ == "__main__":
    sys.exit(main())
