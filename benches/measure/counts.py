"""Costs without noise: bytes at the peak and between forward and backward, and on a GPU kernel launches and synchronisations."""

from __future__ import annotations

from benches.measure import cuda
from benches.measure.memory import held_bytes
from benches.measure.timing import LoadedContender


def measures(loaded: LoadedContender) -> dict[str, int]:
    """Returns counts by name of a warmed contender: allocations that are made once are not included."""
    device = loaded.setting.device
    loaded.clear()
    forward = held_bytes(loaded.forward, device)  # Its result holds the graph, as between forward and backward.
    loaded.clear()
    counts = {"peak_forward": forward.peak, "retained": forward.end, "peak_step": held_bytes(loaded.step, device).peak}
    if device != "cpu":
        counts["launches"] = cuda.launches(loaded.step)
        counts["synchronisations"] = len(cuda.synchronisations(loaded.step))
    return counts
