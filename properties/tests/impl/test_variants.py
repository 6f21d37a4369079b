"""What the torch backend claims to the bit, under every variant of torch's vectorised functions that a processor may choose."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("variant", ["default", "avx2", "avx512"])
def test_claims_of_bits_hold_in_every_variant(variant: str) -> None:
    paths = os.pathsep.join([str(ROOT / "impl"), str(ROOT)])
    env = os.environ | {"ATEN_CPU_CAPABILITY": variant, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    env.pop("PYTEST_ADDOPTS", None)
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "properties/tests/impl/variants/bits.py"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert re.search(r"\d+ passed", done.stdout)
    if lacking := re.search(r"this processor has .*", done.stdout):
        pytest.skip(lacking.group())
