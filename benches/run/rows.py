"""The rows of a bench run: one for each workload, setting, heap, contender and phase."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benches.measure.environment import commit, machine, now
from benches.measure.machine_rates import class_logits, moved_bytes
from benches.plan.contenders import BASELINE, BenchContender
from benches.plan.sweeps import PAIRS, Point, candidate_pairs
from benches.plan.units import Unit
from benches.run.campaign import WORKER, Campaign, Results
from benches.run.estimates import Floats, growth, ratio

Row = dict[str, Any]
Sample = dict[str, int]

NS_PER_MS = 1e6
PHASES: dict[str, Callable[[Sample], int]] = {
    "forward": lambda sample: sample["forward_ns"],
    "backward": lambda sample: sample["backward_ns"],
    "step": lambda sample: sample["forward_ns"] + sample["backward_ns"],
}
PEAKS = {"forward": "peak_forward", "step": "peak_step"}
STEP = "step"


def samples(results: Results, label: str, phase: str) -> tuple[Floats, list[int]]:
    """Returns the milliseconds of a contender's calls, and the number of the process of each."""
    taken = [(PHASES[phase](one[label]) / NS_PER_MS, at) for at, rounds in enumerate(results.rounds) for one in rounds if label in one]
    return np.array([value for value, _ in taken]), [at for _, at in taken]


def rows(campaign: Campaign) -> Iterator[Row]:
    """Yields all rows of a run; each has the same columns."""
    made = campaign.versions | machine() | {"commit": commit(), "written": now()} | campaign.rates
    for unit, results in campaign.results.items():
        common = _described(campaign, unit) | made
        for contender in unit.contenders:
            for row in _contender_rows(unit, results, contender):
                yield _EMPTY | common | _identity(contender) | row
    for row in (*_training_rows(campaign), *_growth_rows(campaign)):
        yield _EMPTY | made | row


_EMPTY: Row = dict.fromkeys(
    (
        *("workload", "contender", "backend", "device", "dtype", "phase", "ms_median", "ratio_to_reference", "ratio_lo95", "ratio_hi95"),
        *("peak_bytes", "images_per_s", "heap", "minor_faults", "ms_q1", "ms_q3", "cpu_ms_median", "rounds", "processes", "share"),
        *("gradient_bytes", "floor_bytes_ms", "floor_exp_ms", "launches", "synchronisations", "warm_ms", "what", "origin", "images"),
        *("image_size", "anchors", "classes", "reg_max", "boxes", "candidate_pairs", "sweep", "size", "exponent", "exponent_lo95"),
        *("exponent_hi95", "note", "task", "retained_bytes"),
    )
)


def _described(campaign: Campaign, unit: Unit) -> Row:
    """Returns the columns that describe a unit, and the lower bounds on its time."""
    case, case_folder = unit.workload.case(), campaign.case_folder(unit)
    itemsize = {"float64": 8, "float32": 4}.get(unit.setting.dtype, 2)
    moved = moved_bytes(case_folder, itemsize)
    on_processor = unit.setting.device == "cpu"
    return {
        "task": unit.workload.task,
        "workload": unit.workload.name,
        "what": unit.workload.what,
        "origin": unit.workload.origin,
        "device": unit.setting.device,
        "dtype": unit.setting.name,
        "heap": unit.heap,
        "images": case.batch_size,
        "image_size": f"{case.image_size[0]}x{case.image_size[1]}",
        "anchors": case.num_anchors,
        "classes": case.spec.num_classes,
        "reg_max": case.spec.reg_max,
        "boxes": len(case.boxes),
        "candidate_pairs": None if "angle" in case.extras else candidate_pairs(case),
        "sweep": unit.point.sweep if unit.point else None,
        "size": _size(unit.point) if unit.point else None,
        "gradient_bytes": moved // 2,
        "floor_bytes_ms": 1e3 * moved / campaign.rates["copy_bytes_per_s"] if on_processor else None,
        "floor_exp_ms": 1e3 * class_logits(case_folder) / campaign.rates["exp_per_s"] if on_processor else None,
    }


def _size(point: Point) -> int:
    return candidate_pairs(point.workload.case()) if point.sweep == PAIRS else point.size


def _identity(contender: BenchContender) -> Row:
    return {"contender": contender.program, "backend": contender.backend}


def _contender_rows(unit: Unit, results: Results, contender: BenchContender) -> Iterator[Row]:
    failure = results.failures.get(contender.label) or results.failures.get(WORKER)
    if failure:
        yield {"phase": STEP, "note": failure.splitlines()[0]}
        return
    for phase in PHASES:
        yield _timed_row(unit, results, contender.label, phase)
    yield from _stage_rows(results, contender.label)


def _timed_row(unit: Unit, results: Results, label: str, phase: str) -> Row:
    milliseconds, clusters = samples(results, label, phase)
    low, middle, high = np.quantile(milliseconds, [0.25, 0.5, 0.75])
    taken = [one[label] for rounds in results.rounds for one in rounds if label in one]
    exact = results.exact.get(label, {})
    row: Row = {
        "phase": phase,
        "ms_median": middle,
        "ms_q1": low,
        "ms_q3": high,
        "rounds": len(milliseconds),
        "processes": len(set(clusters)),
        "peak_bytes": exact.get(PEAKS.get(phase, "")),
        "retained_bytes": exact.get("retained") if phase == STEP else None,
    }
    if phase == STEP:
        warm = [reports[label]["first_ms"] for reports in results.warm if label in reports]
        row |= {
            "images_per_s": 1e3 * unit.workload.batch / middle,
            "cpu_ms_median": float(np.median([sample["cpu_ns"] for sample in taken])) / NS_PER_MS,
            "minor_faults": int(np.median([sample["minor_faults"] for sample in taken])),
            "launches": exact.get("launches"),
            "synchronisations": exact.get("synchronisations"),
            "warm_ms": float(np.median(warm)),
        }
    return row | _ratio_columns(results, label, phase)


def _ratio_columns(results: Results, label: str, phase: str) -> Row:
    """Returns how many times faster than the reference a contender is, from the rounds that hold both; empty where a time is 0."""
    pairs = [
        (PHASES[phase](one[BASELINE.label]), PHASES[phase](one[label]), at)
        for at, rounds in enumerate(results.rounds)
        for one in rounds
        if label in one and BASELINE.label in one
    ]
    if not pairs or not all(reference > 0 and own > 0 for reference, own, _ in pairs):
        return {}
    reference, own, clusters = zip(*pairs, strict=True)
    estimate = ratio(reference, own, clusters)
    return {"ratio_to_reference": estimate.value, "ratio_lo95": estimate.lo95, "ratio_hi95": estimate.hi95}


def _stage_rows(results: Results, label: str) -> Iterator[Row]:
    rounds = results.stages.get(label, [])
    total = float(np.median([sum(one.values()) for one in rounds])) if rounds else 0.0
    for stage in rounds[0] if rounds else ():
        middle = float(np.median([one[stage] for one in rounds]))
        yield {"phase": f"stage: {stage}", "ms_median": middle / NS_PER_MS, "share": middle / total, "rounds": len(rounds), "processes": 1}


def _training_rows(campaign: Campaign) -> Iterator[Row]:
    """Yields rows of the loss within a whole training step; the time of the model is the same for every contender."""
    from benches.run.campaign import TRAINING_MODEL, TRAINING_WORKLOAD

    steps = campaign.training
    if not steps:
        return
    unit = next(unit for unit in campaign.units if unit.workload.name == TRAINING_WORKLOAD and unit.heap == "steady")
    model = np.array([sum(step["model"].values()) for step in steps])
    for label in steps[0].keys() - {"model"}:
        loss = np.array([sum(step[label].values()) for step in steps])
        contender = BenchContender.parse(label)
        whole = float(np.median(loss + model)) / NS_PER_MS
        described = _described(campaign, unit) | _identity(contender)
        middle = float(np.median(loss)) / NS_PER_MS
        share = float(np.median(loss / (loss + model)))
        counts = {"rounds": len(steps), "processes": 1, "note": f"{TRAINING_MODEL}, step of {whole:.0f} ms"}
        yield described | {"phase": "training step", "ms_median": whole, "share": share, **counts}
        yield described | {"phase": "loss in training step", "ms_median": middle, "share": share, **counts}


def _growth_rows(campaign: Campaign) -> Iterator[Row]:
    """Yields the growth of a step's time along each sweep, for each contender."""
    sweeps: dict[str, list[tuple[int, Unit, Results]]] = {}
    for unit, results in campaign.results.items():
        if unit.point and not results.failures:
            sweeps.setdefault(unit.point.sweep, []).append((_size(unit.point), unit, results))
    for sweep, along in sweeps.items():
        if len({size for size, _, _ in along}) >= 3:
            yield from (_growth_row(sweep, along, contender) for contender in along[0][1].contenders)


def _growth_row(sweep: str, along: list[tuple[int, Unit, Results]], contender: BenchContender) -> Row:
    taken = [(size, *one) for size, _, results in along for one in zip(*samples(results, contender.label, STEP), strict=True)]
    sizes, milliseconds, clusters = (np.array(column) for column in zip(*taken, strict=True))
    fit, unit = growth(sizes, milliseconds, clusters), along[0][1]
    described = {
        "task": unit.workload.task,
        "workload": f"scaling: {sweep}",
        "sweep": sweep,
        "device": unit.setting.device,
        "heap": "steady",
    }
    exponents = {"exponent": fit.exponent.value, "exponent_lo95": fit.exponent.lo95, "exponent_hi95": fit.exponent.hi95}
    counts = {"dtype": unit.setting.name, "rounds": fit.exponent.samples, "processes": fit.exponent.clusters}
    return described | _identity(contender) | exponents | counts | {"phase": "growth of step", "ms_median": fit.floor}
