"""The soak of each candidate, and a batch of a training's size: the last tests of a run."""

from __future__ import annotations

import pytest

from oracle.contract.verdict import Verdict
from properties.differential.plan import SoakShare
from properties.differential.recorder import Recorder
from properties.differential.soak import SETTING, real_size
from reports.escape import plain


def test_soak(soak_share: SoakShare, recorder: Recorder) -> None:
    name = soak_share.contender
    if left_out := recorder.all_left_out([name]):
        pytest.fail(f"not compared any further: {left_out}", pytrace=False)
    compared = [recorder.compare(real_size(), SETTING, [name]), recorder.soak(name)]
    if failed := [comparison for comparison in compared if comparison.verdict is Verdict.DIFFER]:
        pytest.fail(plain("\n".join(comparison.report() for comparison in failed)), pytrace=False)
