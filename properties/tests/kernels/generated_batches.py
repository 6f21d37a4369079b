"""Generated batches, judged: decisions within the margins, values and gradients within their rounding."""

from __future__ import annotations

import dataclasses
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oracle.cases.case import Case, Setting
from oracle.comparison.compare import compare
from oracle.contract.contender import Contender
from oracle.contract.verdict import Verdict
from properties.strategies import TINY, cases, definitions
from properties.tests.kernels.helpers import DTYPES, on_host
from twinloss import DetectionLoss

KERNELS = Contender("twin-triton", "this checkout", partial(DetectionLoss, backend="triton"), arithmetic="float32")
STAGES = ("assign", "loss_given", "loss")
# What stands in for a device takes a second for what that does at once.
EXAMPLES, MOST_BOXES, MOST_IMAGES, MOST_BINS = (10, 6, 2, 5) if on_host() else (300, 1000, 16, 64)
# Three classes, so that they are often the same; 40 for more than one tile of logits.
DEFINITIONS = definitions(classes=(1, 3, 40))


@st.composite
def small_cases(draw: st.DrawFn) -> Case:
    """Cases of the suite's own strategies, reduced in size on a host, unchanged on a device."""
    case = draw(cases(TINY, definition=DEFINITIONS, tagged=False))
    kept = [box for box in case.boxes if box.image < MOST_IMAGES]
    step = -(-len(kept) // MOST_BOXES) or 1
    bins = min(case.spec.reg_max, MOST_BINS)
    return dataclasses.replace(
        case,
        spec=dataclasses.replace(case.spec, reg_max=bins),
        batch_size=min(case.batch_size, MOST_IMAGES),
        boxes=tuple(kept[::step]),
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_generated_batches_agree_with_the_definition(dtype: str, device: str) -> None:
    @settings(max_examples=EXAMPLES, database=None, suppress_health_check=list(HealthCheck))
    @given(small_cases())
    def agrees(case: Case) -> None:
        comparison = compare(case, Setting(dtype, device=device), [KERNELS], stages=STAGES)  # type: ignore[arg-type]
        assert comparison.verdict is not Verdict.DIFFER, comparison.report()

    agrees()
