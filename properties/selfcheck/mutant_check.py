"""``python -m properties.selfcheck.mutant_check``: compare the twin on the path with the definition; ends with 1 at the first difference.

Every run draws the same batches. A mutant of the twin is compared with the definition alone, without the reference.
"""

from __future__ import annotations

import sys

import torch
from hypothesis import HealthCheck, given, seed, settings

from oracle.cases.case import Case, Setting
from oracle.comparison.compare import compare
from oracle.comparison.registry import shipped
from oracle.contract.verdict import Verdict
from properties.strategies import PROFILES, cases

BATCHES = ((Setting("float64"), 60), (Setting("float32"), 30), (Setting("bfloat16"), 15), (Setting("float16"), 15))


def main() -> int:
    """Compare in every setting and return the exit code."""
    torch.set_num_threads(1)
    for setting, count in BATCHES:
        agree(setting, count)
    return 0


def agree(setting: Setting, count: int) -> None:
    """Compare both tie rules on ``count`` batches; exits with 1 at the first difference."""
    ours = shipped()

    @seed(0)
    @settings(max_examples=count, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(cases(PROFILES["tiny"]))
    def examine(case: Case) -> None:
        comparison = compare(case, setting, [ours["twin-torch"], ours["twin-reference-ties"]])
        if comparison.verdict is Verdict.DIFFER:
            sys.stdout.write(comparison.report())
            sys.exit(1)

    examine()


if __name__ == "__main__":
    sys.exit(main())
