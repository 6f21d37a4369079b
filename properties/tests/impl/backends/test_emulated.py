"""The kernels compiled for another kind of processor, and run under an emulator: the same bits as here."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from twinloss.backends.native.compiler import find_compiler
from twinloss.backends.native.instruction_sets import BY_MACHINE, OPTIONS, SOURCE

PROGRAM = Path(__file__).with_name("print_bits.cpp")
MACHINES = {"aarch64": ("aarch64-linux-gnu-g++", "qemu-aarch64"), "x86_64": ("x86_64-linux-gnu-g++", "qemu-x86_64")}
"""A compiler for each kind of machine, and an emulator: Debian's packages ``g++-aarch64-linux-gnu`` and ``qemu-user``."""

OTHERS = [name for name in MACHINES if name != platform.machine()]


def printed(compiler: list[str], options: tuple[str, ...], emulator: list[str], folder: Path) -> list[str]:
    """What the program prints, compiled with a compiler and its options."""
    made = folder / "print-bits"
    fast = [option for option in OPTIONS if option not in {"-O3", "-fPIC"}]
    subprocess.run([*compiler, *fast, "-O1", *options, f"-I{SOURCE}", str(PROGRAM), "-o", str(made)], check=True)
    return subprocess.run([*emulator, str(made)], capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.parametrize("machine", OTHERS)
def test_the_bits_are_those_of_this_machine(machine: str, tmp_path: Path) -> None:
    compiler, emulator = map(shutil.which, MACHINES[machine])
    if compiler is None or emulator is None:
        pytest.skip(f"there is no {' or no '.join(MACHINES[machine])}")
    ours = printed(find_compiler(), (), [], tmp_path)
    assert len(ours) > 50
    for name, instructions in BY_MACHINE[machine].items():
        if instructions.bit == 0:  # the emulator has no wider registers
            assert printed([compiler], (*instructions.options, "-static"), [emulator], tmp_path) == ours, name
