"""Costs without noise: bytes at the peak, and on a GPU kernel launches and synchronisations."""

from __future__ import annotations

from benches.measure import cuda
from benches.measure.memory import peak_bytes
from benches.measure.timing import LoadedContender


def measures(loaded: LoadedContender) -> dict[str, int]:
    """Returns counts by name of a warmed contender: allocations that are made once are not included."""
    device = loaded.setting.device
    counts = {}
    for name, call in (("peak_forward", loaded.forward), ("peak_step", loaded.step)):
        loaded.clear()
        counts[name] = peak_bytes(call, device)
    if device != "cpu":
        counts["launches"] = cuda.launches(loaded.step)
        counts["synchronisations"] = len(cuda.synchronisations(loaded.step))
    return counts
