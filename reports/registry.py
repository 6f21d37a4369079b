"""The registry of kinds of report. To add a kind, write a package beside ``diff`` whose report defines ``KIND``, and list it here."""

from __future__ import annotations

from reports.bench import report as bench
from reports.diff import report as diff
from reports.document import Kind
from reports.faults import report as faults
from reports.gate import report as gate
from reports.gpu import compiled, traffic
from reports.gpu import report as gpu
from reports.hook import report as hook
from reports.ladder import report as ladder
from reports.matrix import report as matrix
from reports.train import report as train

_REPORTS = (diff, bench, faults, gate, ladder, matrix, train, hook, gpu, compiled, traffic)
KINDS: dict[str, Kind] = {report.KIND.name: report.KIND for report in _REPORTS}
