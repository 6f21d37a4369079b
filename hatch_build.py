"""Build hook of hatchling: compiles the CPU kernels into the wheel if TWINLOSS_PLATFORM_WHEEL=1; without it the wheel is pure Python.

One library for each instruction set of the machine that builds, and the one that says what a machine runs. CXX names the compiler.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = Path("twinloss", "backends", "native")


class CompileKernels(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the libraries to the wheel, and names its platform."""

    PLUGIN_NAME = "custom"
    folder: str | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, unless the wheel is to be pure Python or an editable one, which has the source beside it."""
        if os.environ.get("TWINLOSS_PLATFORM_WHEEL") != "1" or version == "editable":
            return
        self.folder = tempfile.mkdtemp(prefix="twinloss-kernels-")
        for path in compile_kernels(Path(self.root, "impl", PACKAGE), Path(self.folder)):
            build_data["force_include"][str(path)] = (PACKAGE / "libraries" / path.name).as_posix()
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was compiled."""
        if self.folder is not None:
            shutil.rmtree(self.folder)


def compile_kernels(package: Path, folder: Path) -> list[Path]:
    """Compile the libraries of this machine into a folder, and return their paths.

    Args:
        package: the source of ``twinloss.backends.native``.
        folder: where objects and libraries are written.

    Raises:
        CalledProcessError: the compiler failed.
        SystemExit: there are no kernels for this kind of machine.
    """
    sets, machine = instruction_sets(package), platform.machine()
    if machine not in sets.BY_MACHINE:
        sys.exit(f"there are no CPU kernels for {machine}: build without TWINLOSS_PLATFORM_WHEEL=1")
    compiler = shlex.split(os.environ.get("CXX") or "c++")
    clang = "clang" in subprocess.run([*compiler, "--version"], capture_output=True, text=True, check=True).stdout
    stripped = () if sys.platform == "darwin" else ("-s",)
    made = []
    for name in (sets.PROCESSOR, *sets.BY_MACHINE[machine]):
        made.append(folder / f"{name}.so")
        for command in sets.commands(compiler, name, machine, made[-1], stripped, "clang" if clang else "gcc"):
            subprocess.run(command, check=True)
    return made


def instruction_sets(package: Path) -> ModuleType:
    """The module ``instruction_sets``, without its package, which needs torch."""
    spec = importlib.util.spec_from_file_location("twinloss_instruction_sets", package / "instruction_sets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
