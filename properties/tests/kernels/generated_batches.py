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
from properties.strategies.segment import segment_cases
from properties.tests.kernels.helpers import DTYPES, on_host
from twinloss import DetectionLoss, SegmentationLoss

KERNELS = Contender("twin-triton", "this checkout", partial(DetectionLoss, backend="triton"), arithmetic="float32")
OF_MASKS = Contender("twin-triton", "this checkout", partial(SegmentationLoss, backend="triton"), arithmetic="float32")
STAGES = ("assign", "loss_given", "loss")
# What stands in for a device takes a second for what that does at once.
EXAMPLES, MOST_BOXES, MOST_IMAGES, MOST_BINS = (10, 6, 2, 5) if on_host() else (300, 1000, 16, 64)
EXAMPLES_OF_MASKS, MOST_ROWS = (4, 12) if on_host() else (300, 1000)
# Three classes, so that they are often the same; 40 for more than one tile of logits.
DEFINITIONS = definitions(classes=(1, 3, 40))


@st.composite
def small_cases(draw: st.DrawFn) -> Case:
    """Cases of the suite's own strategies, reduced in size on a host, unchanged on a device."""
    return _small(draw(cases(TINY, definition=DEFINITIONS, tagged=False)))


@st.composite
def small_segment_cases(draw: st.DrawFn) -> Case:
    """The same of segmentation, with small grids on a host."""
    case = _small(draw(segment_cases(TINY)))
    sides = {name: min(value, MOST_ROWS) if name.endswith(("height", "width")) else value for name, value in case.options.items()}
    return dataclasses.replace(case, options=sides, tags=())


def _small(case: Case) -> Case:
    kept = [index for index, box in enumerate(case.boxes) if box.image < MOST_IMAGES]
    kept = kept[:: -(-len(kept) // MOST_BOXES) or 1]
    bins = min(case.spec.reg_max, MOST_BINS)
    return dataclasses.replace(
        case,
        spec=dataclasses.replace(case.spec, reg_max=bins),
        batch_size=min(case.batch_size, MOST_IMAGES),
        boxes=tuple(case.boxes[index] for index in kept),
        extras={name: tuple(values[index] for index in kept) for name, values in case.extras.items()} if kept else {},
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_generated_batches_agree_with_the_definition(dtype: str, device: str) -> None:
    @settings(max_examples=EXAMPLES, database=None, suppress_health_check=list(HealthCheck))
    @given(small_cases())
    def agrees(case: Case) -> None:
        comparison = compare(case, Setting(dtype, device=device), [KERNELS], stages=STAGES)  # type: ignore[arg-type]
        assert comparison.verdict is not Verdict.DIFFER, comparison.report()

    agrees()


@pytest.mark.parametrize("dtype", DTYPES)
def test_generated_batches_of_masks_agree_with_the_definition(dtype: str, device: str) -> None:
    @settings(max_examples=EXAMPLES_OF_MASKS, database=None, suppress_health_check=list(HealthCheck))
    @given(small_segment_cases())
    def agrees(case: Case) -> None:
        comparison = compare(case, Setting(dtype, device=device), [OF_MASKS], stages=STAGES)  # type: ignore[arg-type]
        assert comparison.verdict is not Verdict.DIFFER, comparison.report()

    agrees()
