"""The Triton kernels without a GPU: run by Triton's interpreter, compiled ahead of time for two architectures, and run as compiled.

Each part runs in a process of its own, because the interpreter has to be on, or off, before Triton is imported.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from oracle.cases.build import build
from oracle.cases.case import Box, Case, Setting
from oracle.tools.programs import run_python
from twinloss import DetectionLoss, LossSpec
from twinloss.backends.triton import availability

ROOT = Path(__file__).resolve().parents[4]
PARTS = ("arithmetic", "behaviour", "beyond_32_bits", "generated_batches", "oriented", "segmentation", "pose")
COMPILED = [*((90, part) for part in PARTS), (80, "arithmetic"), (80, "behaviour")]
OPTIONS = ("-q", "-p", "no:cacheprovider", "--timeout=0")

_REASON = availability._why_not_installed()
needs_triton = pytest.mark.skipif(_REASON is not None, reason=f"{_REASON}: the kernels were not checked")


def _run(*arguments: str, interpret: bool, **variables: str) -> subprocess.CompletedProcess[str]:
    return run_python("-m", *arguments, env={"TRITON_INTERPRET": str(int(interpret))} | variables)


def _pass(part: str, *options: str, interpret: bool, **variables: str) -> None:
    """All tests of a part of the kernels' properties run, and pass."""
    done = _run("pytest", *OPTIONS, *options, f"properties/tests/kernels/{part}.py", interpret=interpret, **variables)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert re.search(r"\d+ passed", done.stdout)
    assert "skipped" not in done.stdout


@needs_triton
@pytest.mark.parametrize("part", [*PARTS, "operators", "batch_invariance"])
def test_kernels_run_by_the_interpreter(part: str) -> None:
    # Masked lanes divide by zero, of which numpy warns.
    _pass(part, "-W", "ignore::RuntimeWarning", interpret=True)


@needs_triton
def test_kernels_take_their_inputs_as_the_other_backends_do() -> None:
    options = ("-W", "ignore::RuntimeWarning", "-p", "properties.tests.kernels.conftest")
    done = _run("pytest", *OPTIONS, *options, "properties/tests/impl/inputs/test_admission.py", interpret=True)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert re.search(r"\d+ passed", done.stdout)


@needs_triton
@pytest.mark.parametrize(("capability", "part"), COMPILED)
def test_kernels_run_as_compiled(capability: int, part: str) -> None:
    # Ignore Triton's deprecation warning: every launch sets that option explicitly.
    _pass(part, "-W", "default", "-p", "oracle.ptx.plugin", interpret=False, PTX_CAPABILITY=str(capability))


@needs_triton
@pytest.mark.parametrize("capability", [80, 90])
def test_kernels_compiled_ahead_of_time_do_not_spill(capability: int, tmp_path: Path) -> None:
    rows = tmp_path / "rows.parquet"
    done = _run("benches.gpu.compiled_kernels", "--essential", "--capability", str(capability), "--write", str(rows), interpret=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    built = pd.read_parquet(rows)
    kernels = {
        path.stem
        for path in (ROOT / "impl" / "twinloss" / "backends" / "triton").glob("*.py")
        if f"def {path.stem}_kernel(" in path.read_text()
    }
    assert set(built["kernel"]) == kernels
    assert (built["capability"] == capability).all()
    assert built["registers"].between(8, 255).all()
    assert not built["spills"].any()


CASE = Case(LossSpec(num_classes=2, strides=(8, 16)), (32, 32), 1, (Box(0, 1, 16, 16, 20, 20),))
REFUSALS: dict[str, tuple[Any, dict[str, Any], dict[str, Any], str]] = {
    "host": ("float32", {}, {}, "the logits are on cpu; move them to a CUDA device, or use backend='torch'"),
    "float64": ("float64", {}, {}, "float64; use backend='torch'"),
    "ties": ("float32", {"ties": "reference"}, {}, "use backend='torch', or ties='stable'"),
    "no exponent": ("float32", {}, {"beta": 0.0}, "the kernels give it to nobody; use backend='torch'"),
    "old release": ("float32", {}, {"anchor_weights": "sum"}, "use backend='torch' for the releases"),
}


@needs_triton
@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_served_is_refused_with_the_remedy(name: str) -> None:
    dtype, options, numbers, remedy = REFUSALS[name]
    spec = LossSpec(num_classes=2, strides=(8, 16), **numbers)
    preds, batch = build(CASE, Setting(dtype))
    criterion = DetectionLoss(spec, backend="triton", **options)
    for call in (criterion, criterion.assign):
        with pytest.raises(ValueError, match=r"^backend='triton' cannot serve this call: .*" + re.escape(remedy)):
            call(preds, batch)


def test_auto_takes_another_backend_where_the_kernels_cannot_serve() -> None:
    preds, batch = build(CASE)
    expected, _ = DetectionLoss(CASE.spec, backend="torch")(preds, batch)
    found, _ = DetectionLoss(CASE.spec)(preds, batch)
    torch.testing.assert_close(found, expected)


ABSENT: dict[str, tuple[dict[str, Any], str]] = {
    "none": ({"find_spec": lambda _: None}, "the package triton is not installed; install it, or use backend='torch'"),
    "too old": ({"version": lambda _: "3.2.0"}, r"triton 3\.2\.0 is installed, and the kernels want 3\.3 or newer; use backend='torch'"),
}


@needs_triton
@pytest.mark.parametrize("name", ABSENT)
def test_without_a_triton_that_serves_the_refusal_says_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced, message = ABSENT[name]
    for attribute, value in replaced.items():
        monkeypatch.setattr(availability, attribute, value)
    availability._why_not_installed.cache_clear()
    try:
        with pytest.raises(ValueError, match=message):
            DetectionLoss(CASE.spec, backend="triton")(*build(CASE))
    finally:
        availability._why_not_installed.cache_clear()


def test_an_unknown_backend_is_named() -> None:
    with pytest.raises(ValueError, match="backend is 'cuda'; it must be one of 'auto', 'torch', 'native', 'triton'"):
        DetectionLoss(CASE.spec, backend="cuda")  # type: ignore[arg-type]


def test_importing_twinloss_imports_no_triton() -> None:
    kernels = "twinloss.backends.triton.loss"
    code = f"import sys, twinloss, twinloss.backends.triton.availability; sys.exit('triton' in sys.modules and '{kernels}' in sys.modules)"
    assert run_python("-c", code).returncode == 0
