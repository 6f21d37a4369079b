"""Triton kernels run by the interpreter of compiled code: those of the loss, and some with a fault that it must find."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", minversion="3.3", reason="there is no Triton whose kernels could be compiled")

import triton
import triton.language as tl

from oracle.cases.build import build
from oracle.cases.case import Case, Setting
from oracle.cases.workloads.small_dense import small_dense
from oracle.ptx.memory import MemoryFaultError
from oracle.ptx.triton_device import Device, RaceError, running_on
from oracle.tools.programs import run_python
from twinloss import DetectionLoss

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture
def device() -> Iterator[Device]:
    """A device that serves tensors of the host."""
    with running_on(Device()) as device:
        yield device


def _step(case: Case) -> list[Tensor]:
    preds, batch = build(case, Setting("float16"))
    loss, _ = DetectionLoss(case.spec, backend="triton")(preds, batch)
    loss.sum().backward()
    return [loss.detach(), preds["boxes"].grad, preds["scores"].grad]


@pytest.mark.parametrize("definition", [{}, {"topk2": 3}], ids=["one cut", "second cut"])
def test_a_step_has_the_same_bits_whatever_a_device_leaves_open(definition: dict[str, Any], device: Device) -> None:
    case = small_dense(12, seed=7, images=3, kind="random", **definition)
    first = _step(case)
    for seed in (100, 200, 300):
        device.seed = seed
        for ours, theirs in zip(_step(case), first, strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler (cc), which the driver stub needs")
def test_steps_through_tritons_own_launcher() -> None:
    done = run_python("-m", "oracle.ptx.driver_stub", env={"TRITON_INTERPRET": "0"})
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert done.stdout.count("of the tolerance") == 16
    launched = set(done.stdout.splitlines()[-1].partition(" launches of ")[2].split(", "))
    assert launched == {
        "decode",
        "candidates_and_softplus",
        "resolve",
        "second_topk",
        "held_terms",
        "reduce_terms",
        "dense_gradient",
        "held_terms_gradient",
    }


@triton.jit
def _last_wins(x: tl.tensor, y: tl.tensor, TILE: tl.constexpr) -> None:
    lane = tl.arange(0, TILE)
    tl.store(y + lane, tl.load(x + tl.program_id(0) * TILE + lane))


@triton.jit
def _read_back(x: tl.tensor, y: tl.tensor, TILE: tl.constexpr) -> None:
    lane = tl.arange(0, TILE)
    tl.store(y + lane, tl.load(x + lane))
    tl.store(y + TILE + lane, tl.load(y + TILE - 1 - lane))


@triton.jit
def _no_mask(x: tl.tensor, y: tl.tensor, TILE: tl.constexpr) -> None:
    lane = tl.program_id(0) * TILE + tl.arange(0, TILE)
    tl.store(y + lane, tl.load(x + lane) * 2)


@pytest.mark.usefixtures("device")
def test_programs_that_write_one_place_are_found() -> None:
    x, y = torch.arange(512.0), torch.zeros(128)
    _last_wins[(1,)](x, y, 128, enable_fp_fusion=False)
    assert torch.equal(y, x[:128])
    with pytest.raises(RaceError, match=r"^_last_wins: two programs race at 0x"):
        _last_wins[(4,)](x, y, 128, enable_fp_fusion=False)


@pytest.mark.usefixtures("device")
def test_a_program_that_reads_what_other_threads_of_it_wrote_is_found() -> None:
    # The interpreter, which has no threads, sees nothing wrong with it.
    with pytest.raises(RaceError, match=r"^_read_back: two threads of a program race"):
        _read_back[(1,)](torch.arange(128.0), torch.zeros(256), 128, enable_fp_fusion=False)


def test_a_store_beyond_the_end_is_found(device: Device) -> None:
    _no_mask[(2,)](torch.arange(256.0), torch.zeros(256), 128, enable_fp_fusion=False)
    with pytest.raises(MemoryFaultError, match=r"^_no_mask: thread \d+ accesses \d+ bytes at 0x\w+, outside everything"):
        _no_mask[(3,)](torch.arange(384.0), torch.zeros(383), 128, enable_fp_fusion=False)
    assert device.launches == 2


def test_afterwards_launches_are_tritons_own_again() -> None:
    from triton.runtime.jit import JITFunction

    before = JITFunction.run
    with running_on(Device()):
        assert JITFunction.run is not before
    assert JITFunction.run is before
