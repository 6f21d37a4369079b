"""The text of the option ``--contract``: the contract, the drawn definitions and batches, and the assumptions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from oracle.contract import contender
from oracle.contract.assumptions import ASSUMPTIONS
from oracle.tools.options import DETECT
from properties.strategies.profiles import BINS, CLASSES, GAINS, LEVELS, POWERS, PROFILES, TOPK, WEIGHTS
from properties.tasks import TASKS


def contract_text() -> str:
    """Returns the complete text."""
    return "\n\n".join([_prose(contender.__doc__ or ""), _drawn(), _tasks(), _assumed()])


def _prose(text: str) -> str:
    """Returns a docstring without the markup of code and roles."""
    return text.strip().replace(":class:`~twinloss.LossSpec`", "LossSpec").replace(":class:`", "").replace("``", "").replace("`", "")


def _drawn() -> str:
    sides = ", ".join(str(side) for profile in PROFILES.values() for side in profile.sides)
    settings = dict.fromkeys(setting.name for task in TASKS.values() for setting in task.settings)
    lines = [
        ("num_classes", _listed(CLASSES), "fewer where a batch would be large"),
        ("reg_max", _listed(BINS), "1 is a head without distribution: its logits are the distances"),
        ("strides", _listed(LEVELS), "one to four levels"),
        ("gains", _listed(GAINS), ""),
        ("topk", _listed(TOPK), "also more than a batch has anchors"),
        ("topk2", "None, 1, 3, topk, topk + 2", "None in one half of the definitions: no second cut"),
        ("alpha, beta", _listed(POWERS), ""),
        ("class_weights", _listed(WEIGHTS), "repeated over the classes"),
        ("image sides", f"{sides} px", "rounded up to the finest stride, so that a coarser one may not divide them"),
        ("images", f"1 to {max(profile.max_images for profile in PROFILES.values())}", "some, or all, without a box"),
        ("boxes", "0 to some hundred", "beyond the image, without area, of a pixel, alike, nested and in crowds"),
        ("logits", _listed(settings), "also large, equal, and exactly right ones"),
    ]
    text = [f"  {name:<14} {values}{f' ({note})' if note else ''}" for name, values, note in lines]
    return "\n".join(["Definitions and batches that are drawn, in addition to batches of real boxes at the default numbers:", *text])


def _tasks() -> str:
    lines = []
    for task in TASKS.values():
        count = sum(count for _, count in task.definition) + sum(count for _, _, count in task.arithmetic)
        lines.append(f"  {task.name:<14} {count:,} generated batches, and real ones of {_listed(real.pack for real in task.real)}")
    return "\n".join([f"Tasks of --task, without which a candidate is asked about {DETECT}:", *lines])


def _listed(values: Iterable[Any]) -> str:
    distinct = dict.fromkeys(values)
    return "; ".join(", ".join(map(str, one)) if isinstance(one, tuple) else str(one) for one in distinct)


def _assumed() -> str:
    lines = [f"  {one.name:<17} {one.what}" for one in ASSUMPTIONS.values()]
    head = "--assume 'NAME[,NAME]' leaves out batches that a candidate is not made for, and reports them as not asked:"
    return "\n".join([head, *lines])
