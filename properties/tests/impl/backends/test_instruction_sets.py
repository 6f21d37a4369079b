"""The libraries of all instruction sets that this machine runs: the same bits from each, on any number of threads, and nothing shared."""

from __future__ import annotations

import dataclasses
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import twinloss
from oracle.cases.build import build as build_inputs
from oracle.cases.case import Case, Setting
from oracle.contract.run import run_loss
from properties.strategies import TINY
from properties.tasks import TASKS
from properties.tests.impl.backends.test_native import CASE, SPEC, native
from twinloss import DetectionLoss
from twinloss.backends.native import availability, dispatch, library
from twinloss.backends.native.compiler import NoLibraryError
from twinloss.backends.native.dispatch import CpuKernels
from twinloss.backends.native.instruction_sets import BY_MACHINE, PROCESSOR
from twinloss.backends.native.openmp import share_with_torch
from twinloss.loss import LOSSES

RUNNABLE = dispatch.runnable()
CPUINFO, TASKS_OF_SYSTEM = Path("/proc/cpuinfo"), Path("/proc/self/task")
DTYPES = ("float32", "float16", "bfloat16")
OF_TORCH = {"rle_loss"}
"""Terms that torch computes beside the kernels, in its own variants."""


def forget() -> None:
    """No library was looked for yet."""
    for cached in (library.load, availability.no_library):
        cached.cache_clear()


@contextmanager
def kernels_of(name: str, threads: int) -> Iterator[None]:
    """Within the block the kernels of an instruction set serve, on a number of threads."""
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TWINLOSS_ISA", name)
        forget()
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)
            forget()


def bits(numbers: Tensor) -> Tensor:
    """The bits of a tensor, where NaN is one number: whether it carries a sign is the processor's choice."""
    whole = torch.where(numbers.isnan(), torch.full_like(numbers, float("nan")), numbers)
    return whole.view(torch.int16 if whole.element_size() == 2 else torch.int32)


def answers(case: Case, dtype: Any, **options: Any) -> dict[str, Tensor]:
    """Bits of the loss and of all gradients, by name."""
    criterion, setting = LOSSES[case.spec.task](case.spec, backend="native", **options), Setting(dtype)
    outcome = run_loss(criterion, build_inputs(case, setting), setting, terms=case.spec.term_names)
    return {name: bits(found) for name, found in {"loss": outcome.loss.float(), **outcome.gradients}.items()}


def check(case: Case, dtype: Any, **options: Any) -> None:
    with kernels_of(RUNNABLE[0], threads=1):
        wanted = answers(case, dtype, **options)
        assert library.cpu_kernels().instruction_set == RUNNABLE[0]
    for name in RUNNABLE:
        for threads in (1, 2):
            with kernels_of(name, threads):
                found = answers(case, dtype, **options)
            assert found.keys() == wanted.keys()
            for key in wanted:
                assert torch.equal(found[key], wanted[key]), (name, threads, key, int((found[key] != wanted[key]).sum()))


@pytest.mark.parametrize("task", TASKS)
@settings(max_examples=settings().max_examples // 4 + 1)
@given(data=st.data())
def test_every_instruction_set_gives_the_same_bits(task: str, data: st.DataObject) -> None:
    case = data.draw(TASKS[task].cases(TINY).filter(lambda case: not OF_TORCH & set(case.spec.term_names)))
    conflicts = data.draw(st.sampled_from(["overlap", "pickers"]) if task == "detect" else st.just("overlap"))
    check(case, data.draw(st.sampled_from(DTYPES)), conflicts=conflicts)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_batch_of_thousands_of_anchors_too(dtype: str) -> None:
    check(dataclasses.replace(CASE, image_size=(416, 608)), dtype)


# Which serves


def test_the_best_serves_unless_another_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TWINLOSS_ISA", raising=False)
    assert dispatch.choose(RUNNABLE) == RUNNABLE[0]
    for name in RUNNABLE:
        monkeypatch.setenv("TWINLOSS_ISA", f" {name.upper()} ")
        assert dispatch.choose(RUNNABLE) == name


def test_an_unknown_instruction_set_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINLOSS_ISA", "sse9")
    with pytest.raises(NoLibraryError, match=r"TWINLOSS_ISA is 'sse9', .* has .*; name one of them, unset it, or use backend='torch'"):
        dispatch.choose(RUNNABLE)


@pytest.mark.skipif(len(BY_MACHINE[platform.machine()]) < 2, reason="this kind of machine has one instruction set")
def test_one_that_the_machine_does_not_run_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    best, *others = BY_MACHINE[platform.machine()]
    monkeypatch.setenv("TWINLOSS_ISA", best)
    with pytest.raises(NoLibraryError, match=f"'{best}', which this machine does not run; name one of {', '.join(others)}, unset it"):
        dispatch.choose(others)


def test_a_refusal_leaves_the_loss_to_torch_and_names_the_remedy(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("TWINLOSS_ISA", "mmx")
    forget()
    availability._unsaid.clear()
    try:
        with pytest.raises(ValueError, match=r"backend='native' cannot serve this call: TWINLOSS_ISA is 'mmx'"):
            native()(*build_inputs(CASE))
        assert DetectionLoss(SPEC)(*build_inputs(CASE))[0].isfinite().all()
        assert sum("TWINLOSS_ISA is 'mmx'" in record.getMessage() for record in caplog.records) == 1
    finally:
        forget()
        availability._unsaid.clear()


@pytest.mark.skipif(
    platform.machine() != "x86_64" or not CPUINFO.exists(), reason="Linux lists the instruction sets of an x86-64 processor"
)
def test_what_runs_is_what_the_system_lists() -> None:
    listed = set(CPUINFO.read_text().split())
    needed = {"avx512": {"avx2", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl"}, "avx2": {"avx2", "f16c"}, "baseline": set()}
    assert [name for name in needed if needed[name] <= listed] == RUNNABLE


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A folder of libraries as in a wheel, on a machine without compiler."""
    for name, found in {PROCESSOR: dispatch.processor(), **{name: kernels_path(name) for name in RUNNABLE}}.items():
        shutil.copy(found, tmp_path / f"{name}.so")
    monkeypatch.setattr(dispatch, "LIBRARIES", tmp_path)
    monkeypatch.setenv("TWINLOSS_BUILD", "0")
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv("TWINLOSS_ISA", raising=False)
    forget()
    yield tmp_path
    forget()


def kernels_path(name: str) -> Path:
    with kernels_of(name, threads=1):
        return library.cpu_kernels().path


def test_installed_libraries_serve_without_a_compiler(installed: Path) -> None:
    step()
    assert library.cpu_kernels() == CpuKernels(RUNNABLE[0], installed / f"{RUNNABLE[0]}.so", "installed")
    assert twinloss.cpu_kernels() == library.cpu_kernels()


def test_an_installed_library_that_cannot_be_loaded_is_named(installed: Path) -> None:
    (installed / f"{RUNNABLE[0]}.so").write_text("no library")
    assert "that were installed cannot be loaded" in str(availability.no_library())
    assert "install twinloss again, or use backend='torch'" in str(availability.no_library())


# What the libraries hold


@pytest.fixture(scope="module", params=RUNNABLE)
def kernels(request: pytest.FixtureRequest) -> CpuKernels:
    with kernels_of(request.param, threads=1):
        return library.cpu_kernels()


def symbols(path: Path, *options: str) -> list[str]:
    """Lines of ``nm``: address, kind, name."""
    if not shutil.which("nm"):
        pytest.skip("there is no nm")
    return subprocess.run(["nm", *options, str(path)], capture_output=True, text=True, check=True).stdout.splitlines()


def test_a_library_shares_no_function_with_another(kernels: CpuKernels) -> None:
    exported = [line.split()[-2:] for line in symbols(kernels.path, "-D", "--defined-only")]
    assert exported
    assert {kind for kind, _ in exported} == {"T"}  # no weak (W, V) and no unique (u) symbol
    assert all(name.startswith("twinloss_") for _, name in exported)


def test_every_function_of_a_library_is_in_its_own_namespace(kernels: CpuKernels) -> None:
    if kernels.origin == "installed":
        pytest.skip("the library of a wheel has been stripped of the names of its own functions; it exports none of them")
    own = [line.split()[-1] for line in symbols(kernels.path, "--defined-only") if "_ZN" in line]
    assert own
    assert all(f"twinloss_{kernels.instruction_set}" in symbol for symbol in own)


def test_a_library_calls_the_system_for_memory_and_exact_functions_alone(kernels: CpuKernels) -> None:
    called = {line.split()[-1].partition("@")[0] for line in symbols(kernels.path, "-D", "--undefined-only")}
    allowed = {
        "memcpy",
        "memset",
        "memmove",
        "memchr",
        "fmaxf",
        "fminf",
        "fmax",
        "fmin",
        "floorf",
        "ceilf",
        "floor",
        "ceil",
        "sqrt",
        "sqrtf",
    }
    added = {"__cxa_finalize", "__gmon_start__", "_ITM_deregisterTMCloneTable", "_ITM_registerTMCloneTable", "__stack_chk_fail"}
    others = {symbol for symbol in called - allowed - added if not symbol.startswith(("GOMP_", "omp_"))}
    assert not others, f"{others}: what such a function returns may depend on the system"


def test_a_library_brings_no_runtime(kernels: CpuKernels) -> None:
    needed = subprocess.run(["readelf", "-d", str(kernels.path)], capture_output=True, text=True, check=True).stdout
    names = set(re.findall(r"\(NEEDED\).*\[(.*)\]", needed))
    assert names <= {"libc.so.6", "libm.so.6"}, names


# Threads


def test_one_openmp_runtime_is_loaded() -> None:
    import threadpoolctl

    step()
    runtimes = [pool["filepath"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "openmp"]
    assert len(runtimes) == 1, runtimes
    assert Path(str(share_with_torch())).samefile(runtimes[0])


@pytest.mark.skipif(not TASKS_OF_SYSTEM.exists(), reason="Linux lists the threads of a process")
def test_the_kernels_run_on_torch_s_threads() -> None:
    with kernels_of(RUNNABLE[0], threads=3):
        (torch.rand(1 << 20) * 2).exp_()
        before = set(TASKS_OF_SYSTEM.iterdir())
        assert len(before) >= 3
        step()
        assert set(TASKS_OF_SYSTEM.iterdir()) <= before


def step() -> None:
    native()(*build_inputs(CASE))[0].sum().backward()
