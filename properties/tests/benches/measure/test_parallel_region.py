"""The cost of a parallel region on torch's pool of threads."""

from __future__ import annotations

import ctypes

import pytest

from benches.measure import parallel_region
from benches.measure.parallel_region import compiled, main
from twinloss.backends.native.compiler import NoLibraryError, find_compiler
from twinloss.backends.native.openmp import share_with_torch


@pytest.fixture(autouse=True)
def compiler() -> None:
    try:
        find_compiler()
    except NoLibraryError as error:
        pytest.skip(str(error))


def test_regions_run_on_the_runtime_of_torch() -> None:
    with compiled() as regions:
        regions(2, 10)
        seen = ctypes.CDLL(share_with_torch())
        assert seen.omp_get_max_threads() >= 1


def test_every_kind_of_region_has_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(parallel_region, "REPEATS", 2)
    main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition(": ")[0] for line in lines if "after" in line and "without" in line]
    assert all(float(line.rpartition(": ")[2].removesuffix(" µs")) > 0 for line in lines)
