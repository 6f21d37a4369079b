"""The batches that the gate measures: small, so that many pairs of processes fit into minutes, and each dominated by another stage.

Their names are committed in ``rows.txt`` beside this file, so that a row that a change removes or renames is reported by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from benches.gate.paired_processes import GateRow
from benches.measure.case_files import save
from benches.plan.workloads import Workload

NAMES = Path(__file__).with_name("rows.txt")

_BATCHES: dict[str, tuple[Workload, dict[str, str]]] = {
    "coco": (Workload("coco", "COCO, 4 images at 640 px", batch=4), {}),
    "coco autocast": (Workload("coco", "COCO, 4 images at 640 px", batch=4), {"dtype": "bfloat16", "autocast": "bfloat16"}),
    "one image": (Workload("one", "COCO, one image at 640 px", batch=1), {}),
    "crowded": (Workload("crowded", "2 images of 300 boxes at 640 px", boxes=300, batch=2), {}),
    "no boxes": (Workload("empty", "4 images without a box at 640 px", boxes=0, batch=4), {}),
    "distances": (Workload("distances", "COCO without distributions, 4 images at 640 px", batch=4, reg_max=1), {}),
    "masks": (Workload("masks", "COCO masks, 4 images at 320 px", batch=4, imgsz=320, task="segment"), {}),
    "oriented": (Workload("oriented", "thermal images from the air, 4 at 640 px", boxes="hit-uav", batch=4, task="oriented"), {}),
    "keypoints": (Workload("keypoints", "COCO's people, 4 images at 640 px", batch=4, task="pose"), {}),
}


def names() -> list[str]:
    """Returns the names of this revision's rows."""
    return list(_BATCHES)


def task_of(name: str) -> str:
    """Returns the task of a row."""
    return _BATCHES[name][0].task


def comparable(base: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of the rows that the base has too; it may lack the task of another."""
    return tuple(name for name in names() if name in base)


def rows(folder: Path, chosen: Iterable[str]) -> dict[str, GateRow]:
    """Returns the chosen rows by name, after writing their inputs below ``folder``."""
    return {name: GateRow(name, save(_BATCHES[name][0].case(), folder), **_BATCHES[name][1]) for name in chosen}
