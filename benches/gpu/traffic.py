"""``python -m benches.gpu.traffic``: what a step's compiled kernels move through memory, counted on the machine for compiled code.

A GPU hands memory out in sectors of 32 bytes. What a warp asks for in one instruction costs the sectors in which it lies: more than the
bytes where neighbours are not read together. The count knows no cache, so a sector that several warps want counts for each.
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
from oracle.cases.case import Case, DtypeName, Setting
from oracle.ptx.access_log import Accesses
from oracle.ptx.triton_device import Device, running_on
from twinloss import DetectionLoss

COUNTED: tuple[tuple[str, DtypeName], ...] = (
    ("coco", "float16"),
    ("coco", "float32"),
    ("boxes-300", "float16"),
    ("coco-end-to-end", "float16"),
)


@dataclass(frozen=True)
class KernelTraffic:
    """What one kernel of a step moves.

    Attributes:
        kernel: without the suffix.
        asked_bytes: that threads read or wrote.
        sector_bytes: of the sectors in which those lie.
        floor_bytes: of the whole step: what any implementation moves.
    """

    kernel: str
    asked_bytes: int
    sector_bytes: int
    floor_bytes: int


def traffic(case: Case, dtype: DtypeName, capability: int = 90) -> list[KernelTraffic]:
    """What each kernel of one step on the case moves, in the order of the launches."""
    preds, batch = case.build(Setting(dtype))
    floor, found = floor_bytes(preds), []

    def watch(name: str, done: Accesses) -> None:
        found.append(KernelTraffic(name.removesuffix("_kernel"), *done.byte_counts(), floor))

    with running_on(Device(capability, look_for_races=False, watch=watch)):
        DetectionLoss(case.spec, backend="triton", validate=False)(preds, batch)[0].sum().backward()
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Count, print the table, and write it where asked."""
    parser = argparse.ArgumentParser("python -m benches.gpu.traffic", description="Count what a step's compiled kernels move.")
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
        options.write.parent.mkdir(parents=True, exist_ok=True)
        rows.assign(commit=commit(), written=now()).to_parquet(options.write, index=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
