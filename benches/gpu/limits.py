"""Limits on the costs of the Triton backend on a GPU; without a GPU they are listed as not measured."""

from __future__ import annotations

from benches.gpu.finding import MeasuredLimit

_OF_MASKS = ("masks", "masks-26")
_COUNTED = ("coco", "coco-end-to-end", "boxes-300", "empty", *_OF_MASKS)

# With masks 40 kernels and operations of torch, two of which sort, by several launches each.
LAUNCHES = {
    name: MeasuredLimit("counts", "kernel launches of a step", 80 if name in _OF_MASKS else 12, "launches", name) for name in _COUNTED
}
WAITS = {name: MeasuredLimit("counts", "synchronisations of a step", 0, "times", name) for name in _COUNTED}
PEAK = {
    name: MeasuredLimit("counts", "peak memory above the inputs, in gradients", 1.25 if name == "coco" else None, "times", name)
    for name in _COUNTED
}
FASTER = {
    name: MeasuredLimit("speed", "a step, times faster than the reference", least, "times", name, upper=False)
    for name, least in (("coco", 30), ("boxes-300", 60))
}
FLOORS = {
    name: MeasuredLimit("speed", "a captured step, in byte floors", most, "floors", name)
    for name, most in (("coco", 2.5), ("boxes-300", None))
}
CROWDED_PEAK = MeasuredLimit("crowded", "peak memory above the inputs", 1.0, "GB", "xview-128")
CROWDED_STEP = MeasuredLimit("crowded", "a step", 20, "ms", "xview-128")

LIMITS = (*LAUNCHES.values(), *WAITS.values(), *PEAK.values(), *FASTER.values(), *FLOORS.values(), CROWDED_PEAK, CROWDED_STEP)
