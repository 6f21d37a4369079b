"""A step by boxes, classes, batch and dtype, and beside the compiled reference; contenders run in turns in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch

from benches.gpu.finding import GpuFinding
from benches.gpu.steps import DTYPE, Step, copy_bytes_per_second, floor_bytes, free, reference_step
from benches.gpu.turns import Called, Nanoseconds, at_most, in_turns, interval, or_reason, prepared, times_faster
from benches.measure import cuda
from benches.plan.contenders import BASELINE, REFERENCE, BenchContender
from oracle.cases.case import DtypeName

Makers = dict[str, Callable[[], Called]]

SIZED: tuple[tuple[str, DtypeName], ...] = (
    *((workload, DTYPE) for workload in ("boxes-1", "boxes-10", "boxes-100", "boxes-300", "boxes-1000-16", "xview")),
    *((workload, DTYPE) for workload in ("classes-1", "coco", "classes-365")),
    *((workload, DTYPE) for workload in ("batch-1", "batch-64", "batch-128")),
    ("coco", "bfloat16"),
    ("coco", "float32"),
)
COMPILED = BenchContender(REFERENCE, "compile")
BESIDE_COMPILED = ("coco", "boxes-300")
WARM, ROUNDS = 5, 24
COMPILATION_S = 60  # Longest compilation of one batch's shapes.

STEP, CAPTURED, OF_REFERENCE, OF_COMPILED = "a step", "a captured step", "a step of the reference", "a step of the compiled reference"


def sizes() -> Iterator[GpuFinding]:
    """Time a step of the twin, called and captured, and one of the reference at each size."""
    rate = copy_bytes_per_second()
    for workload, dtype in SIZED:
        yield from or_reason(_sized(workload, dtype, rate), "sizes", workload, dtype)
        free()


def _sized(workload: str, dtype: DtypeName, rate: float) -> Iterator[GpuFinding]:
    step = Step(workload, dtype)
    makers: Makers = {
        STEP: partial(_itself, step),
        CAPTURED: partial(_captured, step),
        OF_REFERENCE: partial(reference_step, step, BASELINE),
    }
    steps, reasons = prepared(makers, WARM)
    taken = in_turns(steps, ROUNDS)
    yield _time("sizes", STEP, taken, reasons, workload, dtype, f"{len(step.case.boxes)} boxes")
    yield _time("sizes", CAPTURED, taken, reasons, workload, dtype, unit="µs")
    if CAPTURED in taken:
        floor = floor_bytes(step.preds) / rate * 1e9
        floors = float(np.median(taken[CAPTURED])) / floor
        found = f"the floor is {floor / 1e3:.1f} µs"
        yield GpuFinding("sizes", f"{CAPTURED}, in byte floors", "measured", floors, None, "floors", workload, dtype, found)
    yield _time("sizes", OF_REFERENCE, taken, reasons, workload, dtype)
    yield from _faster("sizes", STEP, "the reference", taken, OF_REFERENCE, workload, dtype)


def compiled() -> Iterator[GpuFinding]:
    """Time a step of the twin, called and captured, beside one of the reference under ``torch.compile``."""
    for workload in BESIDE_COMPILED:
        yield from or_reason(_beside_compiled(workload), "compiled", workload, DTYPE)
        free()


def _beside_compiled(workload: str) -> Iterator[GpuFinding]:
    torch.compiler.reset()
    step = Step(workload)
    makers: Makers = {STEP: partial(_itself, step), CAPTURED: partial(_captured, step), OF_COMPILED: _compiled_reference(step)}
    steps, reasons = prepared(makers, WARM)
    taken = in_turns(steps, ROUNDS)
    for what, unit in ((STEP, "ms"), (CAPTURED, "µs"), (OF_COMPILED, "ms")):
        yield _time("compiled", what, taken, reasons, workload, DTYPE, unit=unit)
    for what in (STEP, CAPTURED):
        yield from _faster("compiled", what, "the compiled reference", taken, OF_COMPILED, workload, DTYPE)


def _itself(step: Step) -> Called:
    return step


def _captured(step: Step) -> Called:
    return cuda.Replay(step).run


def _compiled_reference(step: Step) -> Callable[[], Called]:
    def make() -> Called:
        call = reference_step(step, COMPILED)
        with at_most(COMPILATION_S):
            call()
        return call

    return make


def _time(
    check: str,
    what: str,
    taken: dict[str, Nanoseconds],
    reasons: dict[str, str],
    workload: str,
    dtype: DtypeName,
    detail: str = "",
    unit: str = "ms",
) -> GpuFinding:
    if what in reasons:
        return GpuFinding(check, what, "not measured", None, None, unit, workload, dtype, reasons[what])
    value = float(np.median(taken[what])) / {"ms": 1e6, "µs": 1e3}[unit]
    return GpuFinding(check, what, "measured", value, None, unit, workload, dtype, detail)


def _faster(
    check: str, what: str, than: str, taken: dict[str, Nanoseconds], slow: str, workload: str, dtype: DtypeName
) -> Iterator[GpuFinding]:
    if what in taken and slow in taken:
        found = times_faster(taken[slow], taken[what])
        of = f"{what}, times faster than {than}"
        yield GpuFinding(check, of, "measured", found.value, None, "times", workload, dtype, interval(found))
