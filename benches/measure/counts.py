"""What a contender costs without noise: bytes at the peak, and on a GPU kernel launches and synchronisations."""

from __future__ import annotations

from benches.measure import cuda
from benches.measure.memory import peak_bytes
from benches.measure.timing import Subject


def measures(subject: Subject) -> dict[str, int]:
    """Counts by name; the subject has been warmed, so that what is made once is not in them."""
    device = subject.surroundings.device
    counts = {}
    for name, call in (("peak_forward", subject.forward), ("peak_step", subject.step)):
        subject.clear()
        counts[name] = peak_bytes(call, device)
    if device != "cpu":
        counts["launches"] = cuda.launches(subject.step)
        counts["synchronisations"] = len(cuda.synchronisations(subject.step))
    return counts
