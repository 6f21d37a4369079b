"""What the native kernels compute of an image does not depend on the images beside it, nor on their order.

The Triton kernels' property is in ``properties/tests/kernels/batch_invariance.py``. The torch backend promises it to rounding: where a
number is in a tensor may show in its last bit (``properties/tests/impl/variants/bits.py``).
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle.cases.build import build
from oracle.cases.case import Case, Inputs, Setting
from properties.strategies import TINY
from properties.tasks import TASKS
from properties.tests.impl.backends.test_native import CASE
from properties.tests.impl.image_alone import check, gathered
from twinloss import DetectionLoss


def of_image(case: Case) -> bool:
    """Whether an image's gradients are its own: not where an anchor weighs as all together (Ultralytics 8.0.100), nor through a flow."""
    return case.spec.anchor_weights != "sum" and "rle_loss" not in case.spec.term_names


def orders(case: Case) -> st.SearchStrategy[list[int]]:
    """Images of a case in any order, some of them several times."""
    image = st.integers(0, case.batch_size - 1)
    return st.lists(image, min_size=2, max_size=2) | st.lists(image, min_size=4, max_size=4)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("task", TASKS)
@settings(max_examples=settings().max_examples // 4 + 1)
@given(data=st.data())
def test_an_image_is_assigned_and_taught_as_if_it_were_alone(task: str, dtype: Any, data: st.DataObject) -> None:
    case = data.draw(TASKS[task].cases(TINY).filter(of_image))
    check(case, build(case, Setting(dtype)), data.draw(orders(case)), "native")


def test_an_image_s_terms_are_the_same_beside_empty_images() -> None:
    inputs = build(CASE)
    silent = Inputs(dict(inputs.preds), inputs.batch)
    silent.preds["scores"] = inputs.preds["scores"].detach().clone()
    silent.preds["scores"][1:] = -torch.inf  # costs nothing, and is assigned nothing
    alone = gathered(CASE, silent, [0])
    without = {name: value[inputs.batch["batch_idx"] == 0] for name, value in inputs.batch.items()}
    criterion = DetectionLoss(CASE.spec, backend="native")
    one, three = (criterion(*batch)[1] for batch in (alone, (silent.preds, without)))
    assert {name: float(term) for name, term in one.items()} == {name: float(term) for name, term in three.items()}
