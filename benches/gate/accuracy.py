"""The largest error ÷ tolerance of a revision's twin, by stage, on fixed batches.

Run as ``python -m benches.gate.accuracy`` with the revision's ``twinloss`` on the path; prints one line of JSON. The values have no noise.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator

from oracle.cases.case import Case, Setting
from oracle.cases.workloads import real_batches
from oracle.comparison.compare import compare
from oracle.comparison.registry import shipped
from oracle.contract.contender import Contender

SIZE, IMAGES, BATCHES = 96, 2, 3
STAGES = ("loss_given", "loss")
PACKS = ("synthetic-coco", "synthetic-gwhd")
SETTINGS = (Setting("float32"), Setting("bfloat16"), Setting("float16"), Setting("bfloat16", "bfloat16"))


def worst() -> dict[str, dict[str, float]]:
    """Returns for each data set and dtype the largest error ÷ tolerance of each stage, over all quantities and batches."""
    contenders = shipped()
    found: dict[str, dict[str, float]] = {}
    for pack in PACKS:
        for case in real_batches(pack, imgsz=SIZE, batch=IMAGES, count=BATCHES):
            for setting in SETTINGS:
                row = found.setdefault(f"{pack}, {setting.name}", {})
                for stage, ratio in _ratios(case, setting, contenders):
                    row[stage] = max(row.get(stage, 0.0), ratio)
    return found


def _ratios(case: Case, setting: Setting, contenders: dict[str, Contender]) -> Iterator[tuple[str, float]]:
    comparison = compare(case, setting, [contenders["twin"]], contenders["reference"], STAGES)
    for judgement in comparison.results[0].judgements:
        if not math.isnan(judgement.error_over_allowance):
            yield judgement.stage, judgement.error_over_allowance


if __name__ == "__main__":
    sys.stdout.write(json.dumps(worst()) + "\n")
