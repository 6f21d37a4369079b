"""``python -m benches.gpu.dry_run``: the GPU run on the host, with replacements for what needs a GPU.

It shows that the program runs to its end; its times mean nothing. The kernels run in Triton's interpreter, which must be on
(``TRITON_INTERPRET=1``).
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable
from functools import lru_cache

import torch
from torch.profiler import ProfilerActivity

from benches.gpu import __main__ as program
from benches.gpu import correctness, costs, differential, sizes, steps, ties, training_step
from benches.measure import cuda
from benches.plan.contenders import BASELINE
from oracle.cases.case import Case, PredictionKind
from oracle.cases.workloads.small_dense import small_dense, small_dense_masks

# All checks but those that start a process for each of several tests or tools.
DRY_RUN_CHECKS = (
    *("counts", "bits", "graph", "judge", "ties", "speed", "kernels", "launches", "training", "sizes", "crowded", "beyond-32-bits"),
    *("properties", "compiled"),
)


@lru_cache
def small_case(name: str) -> Case:
    """Returns a small batch in place of a workload's, since the interpreter is slow."""
    numbers: dict[str, int] = {
        "coco-end-to-end": {"reg_max": 1, "topk": 3, "topk2": 1},
        "classes-365": {"num_classes": 365, "reg_max": 1},
    }.get(name, {})
    if name.startswith("masks"):
        return small_dense_masks(2, size=(32, 32), images=1, seed=1, mask_aware=name == "masks-26", topk=3, grid=(8, 8))
    several = name == "classes-365"
    kind: PredictionKind = "exact" if several else "near"
    return small_dense(0 if name == "empty" else 2, size=(32, 32), images=4 if several else 1, seed=1, kind=kind, **numbers)


def small_training(_: str) -> Case:
    """Returns a batch for a model: the coarsest level needs more than one value a channel, and the reference boxes in order of images."""
    case = small_dense(2, size=(64, 64), images=2, num_classes=80)
    return dataclasses.replace(case, boxes=tuple(sorted(case.boxes, key=lambda box: box.image)))


class HostReplay:
    """Calls a step in place of replaying a graph."""

    def __init__(self, step: Callable[[], object]) -> None:
        self.run = step


def timed(*parts: Callable[[], object]) -> list[int]:
    """Returns the nanoseconds of each part on the host."""
    taken = []
    for part in parts:
        start = time.perf_counter_ns()
        part()
        taken.append(time.perf_counter_ns() - start)
    return taken


def main(arguments: list[str]) -> int:
    """Run the program with the replacements; returns its exit code."""
    replacements: dict[object, dict[str, object]] = {
        steps: {"device": lambda: "cpu", "case_of": small_case},
        costs: {
            "device": lambda: "cpu",
            "WARM": 1,
            "ROUNDS": 2,
            "CLUSTER": 1,
            "ACTIVITIES": [ProfilerActivity.CPU],
            "PROFILED": ("coco",),
            "HOSTED": ("coco",),
            "copy_bytes_per_second": lambda: steps.copy_bytes_per_second(4096),
        },
        correctness: {
            "device": lambda: "cpu",
            "case_of": small_case,
            "RUNS": 1,
            "MANY_LOGITS": 20_000,
            "JUDGED": (("coco", "float16"),),
            "REPEATED": ("coco", "masks-26"),
            "CAPTURED": ("coco",),
        },
        ties: {"device": lambda: "cpu", "case_of": small_case, "LENGTHS": (100, 1000)},
        training_step: {
            "device": lambda: "cpu",
            "case_of": small_training,
            "WARM": 1,
            "ROUNDS": 1,
            "RUNS": (("yolov8n", False), ("yolo26n", True)),
            "BACKEND": "torch",  # The native kernels refuse rows of no image.
        },
        sizes: {
            "device": lambda: "cpu",
            "WARM": 1,
            "ROUNDS": 1,
            "SIZED": (("coco", "float16"), ("coco", "float32")),
            "BESIDE_COMPILED": ("coco",),
            "COMPILED": BASELINE,
            "copy_bytes_per_second": lambda: steps.copy_bytes_per_second(4096),
        },
        differential: {
            "SELECTED": "float16 and not (bfloat16 or autocast or real or segment or oriented or pose)",
            "SCALE": 0.01,
            "workers_at_once": lambda: 0,
        },
        cuda: {"timed": timed, "launches": lambda _: 0, "synchronisations": lambda _: [], "Replay": HostReplay},
        torch.cuda: {"synchronize": lambda: None, "is_available": lambda: True, "get_device_name": lambda: "a dry run on the host"},
    }
    for module, attributes in replacements.items():
        for name, value in attributes.items():
            setattr(module, name, value)
    return program.main([*DRY_RUN_CHECKS, *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
