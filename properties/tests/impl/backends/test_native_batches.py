"""Random batches through the native kernels, forward and backward, as in training: results depend on the batch alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracle.cases.build import build
from oracle.cases.case import Case, Inputs, Setting
from properties.strategies import cases
from properties.tests.impl.backends.test_native import answer, same_bits
from twinloss import DetectionLoss


def slices(inputs: Inputs, channels: int) -> Inputs:
    """The same logits as slices of one map."""
    both = [inputs.preds[name].detach() for name in ("boxes", "scores")]
    boxes, scores = torch.cat(both, dim=1).split([both[0].shape[1], channels], dim=1)
    return Inputs({**inputs.preds, "boxes": boxes, "scores": scores}, inputs.batch)


@pytest.mark.parametrize("conflicts", ["overlap", "pickers"])
@given(case=cases(), dtype=st.sampled_from(["float32", "float16", "bfloat16"]))
def test_any_batch_gives_the_same_bits_on_any_threads_and_wherever_it_lies(case: Case, dtype: Any, conflicts: Any) -> None:
    inputs, before = build(case, Setting(dtype)), torch.get_num_threads()
    criterion = DetectionLoss(case.spec, backend="native", conflicts=conflicts)
    try:
        torch.set_num_threads(1)
        one = answer(criterion, inputs)
        torch.set_num_threads(3)
        other = answer(criterion, slices(inputs, case.spec.num_classes))
    finally:
        torch.set_num_threads(before)
    assert same_bits(*(tuple(torch.nan_to_num(part) for part in found) for found in (one, other)))  # type: ignore[arg-type]
    assert [part.isnan().sum() for part in one] == [part.isnan().sum() for part in other]
    assert [part.dtype for part in one[1:]] == [getattr(torch, dtype)] * 2
