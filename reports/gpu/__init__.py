"""The Triton kernels: what a run on a GPU found, and what the compiler makes of them where there is none."""

from __future__ import annotations

from reports.gpu import compiled, report, traffic
from reports.kind import Kind

KIND = Kind("gpu", report.SCHEMA, report.build)
COMPILED = Kind("kernels", compiled.SCHEMA, compiled.build)
TRAFFIC = Kind("traffic", traffic.SCHEMA, traffic.build)
