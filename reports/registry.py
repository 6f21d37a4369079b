"""The kinds of report there are. To add one: a package beside ``diff`` that offers ``KIND``, and a name in this tuple."""

from __future__ import annotations

from reports import bench, diff, faults, gate, gpu, hook, ladder, train
from reports.kind import Kind

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (diff.KIND, bench.KIND, faults.KIND, gate.KIND, ladder.KIND, train.KIND, hook.KIND, gpu.KIND, gpu.COMPILED, gpu.TRAFFIC)
}
