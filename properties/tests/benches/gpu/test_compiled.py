"""The checks of the GPU run, and the count of memory traffic, on compiled kernels without a GPU."""

from __future__ import annotations

import dataclasses

import pytest

pytest.importorskip("triton", minversion="3.3", reason="there is no Triton whose kernels could be compiled")

from benches.gpu import correctness
from benches.gpu.traffic import traffic
from oracle.cases.case import Case, DtypeName
from oracle.cases.workloads.labelled_images import data_folder
from oracle.cases.workloads.small_dense import small_dense
from oracle.ptx.triton_device import Device, running_on
from twinloss import LossSpec


@pytest.mark.skipif(data_folder() is None, reason="there is no real ground truth beside the checkout: set TWINLOSS_DATA to its folder")
@pytest.mark.parametrize(("workload", "dtype"), correctness.JUDGED)
def test_whole_batches_are_judged_as_on_a_gpu(workload: str, dtype: DtypeName, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correctness, "device", lambda: "cpu")
    monkeypatch.setattr(correctness, "free", lambda: None)
    monkeypatch.setattr(correctness, "JUDGED", [(workload, dtype)])
    with running_on(Device(look_for_races=False)):  # The search for races takes minutes at this size.
        (finding,) = correctness.judged()
    assert finding.verdict == "passed", finding.line


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_step_asks_for_little_more_than_any_implementation_moves(dtype: DtypeName) -> None:
    spec = LossSpec(num_classes=80)
    case = Case(spec, (640, 640), 1, tuple(dataclasses.replace(box, image=0) for box in small_dense(8).boxes), small_dense(8).prediction)
    moved = {each.kernel: each for each in traffic(case, dtype)}
    floor = moved["candidates_and_softplus"].floor_bytes
    assert sum(each.sector_bytes for each in moved.values()) <= 1.25 * floor
    # Each of these is a stream: what lies side by side is read and written together.
    for kernel in ("decode", "dense_gradient"):
        assert moved[kernel].sector_bytes <= 1.13 * moved[kernel].asked_bytes
