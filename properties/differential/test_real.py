"""Real boxes, with predictions of a network early, midway and late in training."""

from __future__ import annotations

import functools
import itertools

import pytest

from oracle.cases.workloads import LabelledImages
from oracle.contract.verdict import Verdict
from properties.differential.plan import RealShare
from properties.differential.recorder import Recorder
from properties.tasks import TASKS
from reports.escape import plain


def test_real(real_share: RealShare, recorder: Recorder) -> None:
    share = real_share
    images = _opened(share.task, share.pack)
    numbers = {"batch": share.batch, "count": share.start + share.count, "seed": share.seed}
    batches = TASKS[share.task].batches(images, layout=share.layout, **numbers, **share.variant.arguments)
    compared = [
        recorder.compare(case, setting, share.contenders, images.origin)
        for case in itertools.islice(batches, share.start, None)
        for setting in share.settings
    ]
    if failed := [comparison for comparison in compared if comparison.verdict is Verdict.DIFFER]:
        pytest.fail(plain(recorder.conclude(failed, len(compared), images.origin)), pytrace=False)
    if left_out := recorder.all_left_out(share.contenders):
        pytest.fail(f"not compared any further: {left_out}", pytrace=False)


@functools.cache
def _opened(task: str, pack: str) -> LabelledImages:
    return TASKS[task].images(pack)
