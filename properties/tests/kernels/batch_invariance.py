"""What the kernels compute of an image does not depend on the images beside it, nor on their order."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oracle.cases.build import build
from oracle.cases.case import Case, Setting
from properties.tests.impl.image_alone import check
from properties.tests.kernels.generated_batches import small_cases
from properties.tests.kernels.helpers import DTYPES, on_host


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_image_is_assigned_and_taught_as_if_it_were_alone(dtype: str, device: str) -> None:
    @settings(max_examples=4 if on_host() else 100, database=None, suppress_health_check=list(HealthCheck))
    @given(small_cases().filter(lambda case: case.spec.anchor_weights != "sum"), st.lists(st.integers(0, 3), min_size=2, max_size=2))
    def alone(case: Case, drawn: list[int]) -> None:
        images = [image % case.batch_size for image in drawn]
        check(case, build(case, Setting(dtype, device=device)), images, "triton")  # type: ignore[arg-type]

    alone()
