"""``python -m benches.gpu.traffic``: bytes that a step's compiled kernels move, counted by :mod:`oracle.ptx`.

A GPU accesses memory in sectors of 32 bytes. An instruction of a warp costs the sectors that contain its bytes, so accesses that are not
adjacent cost more than their bytes. Caches are not modelled: a sector that several warps access counts for each of them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch

from benches.gpu.steps import case_of, floor_bytes
from benches.measure.environment import commit, now
from oracle.cases.build import build
from oracle.cases.case import Case, DtypeName, Setting
from oracle.ptx.access_log import Accesses
from oracle.ptx.triton_device import Device, running_on
from oracle.tools.atomic_files import write_frame
from twinloss.loss import LOSSES

COUNTED: tuple[tuple[str, DtypeName], ...] = (
    ("coco", "float16"),
    ("coco", "float32"),
    ("boxes-300", "float16"),
    ("coco-end-to-end", "float16"),
)


@dataclass(frozen=True)
class KernelTraffic:
    """Memory traffic of one kernel of a step.

    Attributes:
        kernel: name of the kernel, without the suffix.
        asked_bytes: bytes that threads read or write.
        sector_bytes: bytes of the sectors that contain them.
        floor_bytes: bytes that every implementation of the whole step moves.
    """

    kernel: str
    asked_bytes: int
    sector_bytes: int
    floor_bytes: int


def traffic(case: Case, dtype: DtypeName, capability: int = 90) -> list[KernelTraffic]:
    """Returns the traffic of each kernel of one step on the case, in the order of the launches."""
    preds, batch = build(case, Setting(dtype))
    floor, found = floor_bytes(preds), []

    def watch(name: str, accesses: Accesses) -> None:
        found.append(KernelTraffic(name.removesuffix("_kernel"), *accesses.byte_counts(), floor))

    with running_on(Device(capability, look_for_races=False, watch=watch)):
        LOSSES[case.spec.task](case.spec, backend="triton", validate=False)(preds, batch)[0].sum().backward()
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Count, print the table, and write it if ``--write`` is given; returns the exit code."""
    parser = argparse.ArgumentParser("python -m benches.gpu.traffic", description="Count the bytes that a step's compiled kernels move.")
    parser.add_argument("--capability", type=int, default=90, help="architecture to compile for, such as 80")
    parser.add_argument("--write", type=Path, help="a parquet file for the rows")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = pd.DataFrame(
        [
            {"workload": workload, "dtype": dtype, "capability": options.capability} | asdict(moved)
            for workload, dtype in COUNTED
            for moved in traffic(case_of(workload), dtype, options.capability)
        ]
    )
    print(rows.to_string(index=False))
    if options.write:
        write_frame(rows.assign(commit=commit(), written=now()), options.write)
    return 0


if __name__ == "__main__":
    sys.exit(main())
