"""``python -m benches [OPTIONS]``: run the benchmarks, with the options of pytest, of pytest-benchmark and of :mod:`benches.run.plugin`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TABLE = ("--benchmark-columns=median,iqr,rounds", "--benchmark-sort=name", "--benchmark-group-by=group")


def main(arguments: list[str]) -> int:
    """Run the benchmarks; returns pytest's exit code."""
    fixed = ["-p", "benches.run.plugin", "-p", "no:cacheprovider", "--timeout=0", "--benchmark-enable", "--quiet", *TABLE]
    return int(pytest.main([*fixed, str(HERE / "run" / "bench_loss.py"), *arguments]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
