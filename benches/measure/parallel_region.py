"""``python -m benches.measure.parallel_region``: what a parallel region of the native kernels costs on torch's pool of threads.

A pool of the kernels' own could save no more than that. The region is empty. Its library leaves the calls of OpenMP open, as the kernels'
do, and torch's runtime answers them.
"""

from __future__ import annotations

import ctypes
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from twinloss.backends.native.compiler import find_compiler
from twinloss.backends.native.openmp import share_with_torch

SOURCE = """
static volatile int seen;
extern "C" void regions(int threads, int count) {
  for (int i = 0; i < count; ++i) {
    #pragma omp parallel num_threads(threads)
    seen = i;
  }
}
"""
REPEATS, AT_ONCE = 200, 1000
PAUSES_S = (1e-4, 1e-3, 1e-2)


def main() -> None:
    """Print the microseconds of a region: one after another, and after pauses in which the threads may go to sleep."""
    threads = torch.get_num_threads()
    torch.ones(1 << 20).exp()  # starts the pool
    with compiled() as regions:
        for count in dict.fromkeys((1, threads)):
            each = microseconds(partial(regions, count, AT_ONCE)) / AT_ONCE
            sys.stdout.write(f"{count} threads, one after another: {each:.2f} µs\n")
        for pause in PAUSES_S:
            sys.stdout.write(
                f"{threads} threads, after {1e3 * pause:g} ms without one: {microseconds(partial(regions, threads, 1), pause):.2f} µs\n"
            )


@contextmanager
def compiled() -> Iterator[Callable[[int, int], None]]:
    """Yields the function that runs regions, from a library whose calls torch's runtime answers."""
    share_with_torch()
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder, "regions.cpp"), Path(folder, "regions.so")
        source.write_text(SOURCE, "utf-8")
        options = ("-O2", "-fPIC", "-fopenmp")
        subprocess.run([*find_compiler(), *options, "-c", source, "-o", source.with_suffix(".o")], check=True)
        subprocess.run([*find_compiler(), "-shared", source.with_suffix(".o"), "-o", made], check=True)
        yield ctypes.CDLL(str(made)).regions


def microseconds(call: Callable[[], object], pause: float = 0.0) -> float:
    """Returns the median microseconds of a call, each after a pause in which this thread works."""
    taken = []
    for _ in range(REPEATS):
        end = time.perf_counter() + pause
        while time.perf_counter() < end:
            pass
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return 1e6 * statistics.median(taken)


if __name__ == "__main__":
    main()
