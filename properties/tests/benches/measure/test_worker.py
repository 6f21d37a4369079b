"""A real worker: its heap, its samples, its exact measures; and workers that fail."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benches.measure.case_files import save
from benches.measure.memory import held_bytes
from benches.measure.worker_client import Worker, WorkerError
from benches.plan.contenders import BASELINE, TORCH_TWIN
from benches.plan.malloc_settings import environment, minor_faults
from benches.plan.workloads import Workload

LABELS = [BASELINE.label, TORCH_TWIN.label]
SMALL = Workload("small", "two small images", boxes=5, batch=2, imgsz=96, num_classes=3)


@pytest.fixture(scope="module")
def case_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(SMALL.case(), tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def started_worker() -> Iterator[Worker]:
    with Worker("steady", 1) as started:
        assert started.ask("start", threads=1)["threads"] == "1"
        yield started


@pytest.fixture
def worker(started_worker: Worker, case_folder: Path) -> Worker:
    assert not open_small(started_worker, case_folder, LABELS)["failures"]
    return started_worker


def open_small(worker: Worker, case_folder: Path, labels: list[str], dtype: str = "float32", autocast: str | None = None) -> dict[str, Any]:
    setting = {"device": "cpu", "autocast": autocast}
    answer: dict[str, Any] = worker.ask("open", contenders=labels, case_folder=str(case_folder), dtype=dtype, setting=setting, seed=0)
    return answer


def test_rounds_hold_one_sample_of_every_contender(worker: Worker) -> None:
    rounds = worker.ask("rounds", seconds=0.0, min_rounds=4, max_rounds=9)
    assert len(rounds) == 4
    for one in rounds:
        assert set(one) == set(LABELS)
        for sample in one.values():
            assert sample["forward_ns"] > 0
            assert sample["backward_ns"] > 0
            assert sample["cpu_ns"] > 0
            assert sample["minor_faults"] >= 0


def test_a_turn_takes_the_requested_number_of_calls(worker: Worker) -> None:
    answer = worker.ask("turn", calls={TORCH_TWIN.label: 3, BASELINE.label: 1})
    assert {label: len(samples) for label, samples in answer.items()} == {TORCH_TWIN.label: 3, BASELINE.label: 1}


def test_exact_measures_are_the_same_every_time(worker: Worker) -> None:
    first, second = worker.ask("exact"), worker.ask("exact")
    assert first == second
    gradients = 4 * 2 * (64 + 3) * (12 * 12 + 6 * 6 + 3 * 3)
    for label in LABELS:
        assert first[label]["peak_step"] >= gradients, "a step leaves its gradients behind"
    assert first[BASELINE.label]["peak_step"] > first[TORCH_TWIN.label]["peak_step"]


def test_stages_are_timed_for_both(worker: Worker) -> None:
    answer = worker.ask("stages", seconds=0.0)
    for label in LABELS:
        stages = answer[label][0]
        assert {"ground truth", "assignment", "terms", "gradients"} <= set(stages)
        assert all(isinstance(value, int) for value in stages.values())
    assert "decoding" in answer[BASELINE.label][0]


def test_half_precision_and_autocast_reach_the_worker(worker: Worker, case_folder: Path) -> None:
    opened = open_small(worker, case_folder, LABELS, "bfloat16", "bfloat16")
    assert not opened["failures"]
    assert worker.ask("rounds", seconds=0.0, min_rounds=1, max_rounds=1)


def test_a_contender_that_cannot_be_made_is_named_and_the_others_go_on(worker: Worker, case_folder: Path) -> None:
    opened = open_small(worker, case_folder, [*LABELS, "no.such.module:factory/own"])
    assert set(opened["warm"]) == set(LABELS)
    assert "no.such" in opened["failures"]["no.such.module:factory/own"]
    assert set(worker.ask("rounds", seconds=0.0, min_rounds=1, max_rounds=1)[0]) == set(LABELS)


def test_an_error_is_passed_on_and_the_worker_continues(worker: Worker) -> None:
    with pytest.raises(WorkerError, match="nowhere"):
        open_small(worker, Path("nowhere"), LABELS)
    assert worker.ask("floor")["copy_bytes_per_s"] > 0


def scripted(text: str) -> Worker:
    return Worker("default", 1, command=(sys.executable, "-c", text))


def test_a_worker_that_dies_is_reported_with_its_last_output() -> None:
    with (
        pytest.raises(WorkerError, match=r"ended with 7 in the request 'start'(.|\n)*out of cheese"),
        scripted("import sys; sys.stdin.readline(); print('out of cheese', file=sys.stderr); sys.exit(7)") as worker,
    ):
        worker.ask("start", threads=1)


def test_a_worker_that_is_silent_is_ended() -> None:
    hangs = r"hangs in the request 'start': it used no processor time for 0\.2 s"
    with pytest.raises(WorkerError, match=hangs), scripted("import time; time.sleep(600)") as worker:
        worker.ask("start", patience=0.2, threads=1)


def test_heaps_differ_by_the_allocators_variables_alone() -> None:
    base = {"PATH": "/bin", "MALLOC_ARENA_MAX": "1", "GLIBC_TUNABLES": "x", "LD_PRELOAD": "jemalloc.so"}
    assert environment("default", base) == {"PATH": "/bin"}
    steady = environment("steady", base)
    assert steady["MALLOC_TRIM_THRESHOLD_"] == "-1"
    assert int(steady["MALLOC_MMAP_THRESHOLD_"]) > 1 << 32
    assert set(steady) - {"PATH"} == {name for name in steady if name.startswith("MALLOC_")}
    assert "PATH" in environment("default")
    assert os.environ.get("PATH") == environment("default")["PATH"]


FAULTS = """
import json, sys
from benches.plan.malloc_settings import minor_faults
for line in sys.stdin:
    for _ in range(3):
        bytearray(64 << 20)
    before = minor_faults()
    bytearray(64 << 20)
    print(json.dumps({"answer": minor_faults() - before}), flush=True)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the allocator is glibc's")
def test_a_steady_heap_keeps_its_pages_and_the_default_one_does_not() -> None:
    pages = (64 << 20) // os.sysconf("SC_PAGE_SIZE")
    with Worker("steady", 1, command=(sys.executable, "-c", FAULTS)) as steady, scripted(FAULTS) as default:
        kept, lost = steady.ask("count"), default.ask("count")
    assert kept < pages / 100
    # Where the kernel hands out huge pages, a fault covers up to 512 small ones.
    assert lost >= pages / 600
    assert lost > 3 * kept
    assert minor_faults() > 0


def test_held_bytes_counts_what_is_held_at_a_time() -> None:
    def one_after_the_other() -> None:
        for _ in range(3):
            torch.empty(1 << 18)

    def at_a_time() -> None:
        held = [torch.empty(1 << 18) for _ in range(3)]
        held.clear()
        torch.empty(1 << 18)

    assert held_bytes(one_after_the_other) == (4 << 18, 0)
    assert held_bytes(at_a_time).peak == 3 * (4 << 18)
    assert held_bytes(lambda: None) == (0, 0)
    assert held_bytes(lambda: torch.empty(1 << 18)) == (4 << 18, 4 << 18), "the result is alive"
