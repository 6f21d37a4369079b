"""Real boxes, with predictions of a network early, midway and late in training."""

from __future__ import annotations

import functools
import itertools

from oracle.cases.workloads.batches import open_pack, real_batches
from oracle.contract.verdict import Verdict
from properties.differential.plan import RealShare
from properties.differential.recorder import Difference, Recorder


def test_real(real_share: RealShare, recorder: Recorder) -> None:
    share = real_share
    pack = _pack(share.pack)
    batches = real_batches(pack, layout=share.layout, batch=share.batch, count=share.start + share.count, seed=share.seed)
    for case in itertools.islice(batches, share.start, None):
        for setting in share.settings:
            comparison = recorder.compare(case, setting, share.contenders, pack.origin)
            if comparison.verdict is Verdict.DIFFER:
                raise Difference(recorder.save(comparison))


_pack = functools.cache(open_pack)
