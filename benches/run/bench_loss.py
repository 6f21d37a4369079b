"""The loss, forward and backward, of every contender on every workload: run with ``nox -s bench``, or ``python -m benches``."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benches.plan.contenders import BASELINE, TRITON_TWIN, BenchContender
from benches.plan.units import Unit
from benches.run.campaign import WORKER, Campaign
from benches.run.replay_clock import CLOCK
from benches.run.rows import samples


@pytest.mark.benchmark(timer=CLOCK)
def test_loss(benchmark: BenchmarkFixture, campaign: Campaign, unit: Unit, contender: BenchContender, phase: str) -> None:
    """Report one phase of one contender on one batch, from the samples that the workers took."""
    results = campaign.results[unit]
    if failure := results.failures.get(contender.label) or results.failures.get(WORKER):
        (pytest.skip if contender.program == BASELINE.program else pytest.fail)(f"{contender.label} on {unit.name}: {failure}")
    milliseconds, _ = samples(results, contender.label, phase)
    benchmark.group = f"{unit.name}: {phase}"
    benchmark.extra_info |= {"images": unit.workload.batch, "heap": unit.heap, "dtype": unit.setting.name, "contender": contender.label}
    CLOCK.replay(benchmark, milliseconds / 1e3)


def test_the_device_is_never_waited_for(campaign: Campaign) -> None:
    """On a GPU the Triton backend never makes the host wait for the device, forward or backward, on any batch."""
    counted = {
        f"{unit.name} {label}": exact["synchronisations"]
        for unit, results in campaign.results.items()
        for label, exact in results.exact.items()
        if label == TRITON_TWIN.label and "synchronisations" in exact
    }
    if not counted:
        pytest.skip("the Triton backend was not measured on a GPU")
    assert {name: count for name, count in counted.items() if count} == {}
