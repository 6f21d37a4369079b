"""Whether the native backend can serve a call, and in plain words why not."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from torch import Tensor

from twinloss.backends.native.compiler import NoLibraryError
from twinloss.backends.native.library import MOST_LEVELS, STORAGE, load
from twinloss.inputs.checks import PLAIN
from twinloss.spec import LossSpec

NOTHING: Mapping[str, Tensor] = MappingProxyType({})

_unsaid: dict[str, list[str]] = {}  # why this machine has no kernels; the list is empty when that was said

log = logging.getLogger("twinloss")


def why_not(
    boxes: Tensor,
    scores: Tensor,
    spec: LossSpec,
    ties: str,
    further: Mapping[str, Tensor] = NOTHING,
    any_layout: Mapping[str, Tensor] = NOTHING,
) -> str | None:
    """Why the kernels cannot serve these logits, with the remedy; ``None`` when they can.

    Args:
        boxes: box logits.
        scores: class logits.
        spec: the definition.
        ties: as :class:`twinloss.DetectionLoss` takes it.
        further: other predictions that the kernels read where they lie.
        any_layout: predictions that are copied where they lie otherwise.
    """
    if ties == "reference":
        return "ties='reference' repeats the choice of torch.topk, which the kernels do not make; use backend='torch', or ties='stable'"
    if spec.beyond_kernels:
        return f"{spec.beyond_kernels}; use backend='torch'"
    if len(spec.strides) > MOST_LEVELS:
        return f"the kernels know {MOST_LEVELS} levels, and the definition has {len(spec.strides)}; use backend='torch'"
    for name, logits in ({"boxes": boxes, "scores": scores} | dict(further)).items():
        if reason := _cannot_read(name, logits) or _apart(name, logits):
            return reason
    return next(filter(None, (_cannot_read(name, logits) for name, logits in any_layout.items())), None) or no_library()


def _cannot_read(name: str, logits: Tensor) -> str | None:
    """Why the kernels cannot read logits."""
    if logits.device.type != "cpu":
        return f"{name} is on {logits.device}; use backend='torch', or 'triton' on a GPU"
    if type(logits) not in PLAIN:
        return f"{name} is a {type(logits).__name__}, whose memory cannot be read; use backend='torch'"
    if logits.dtype not in STORAGE:
        return f"the kernels compute in float32, and {name} is {logits.dtype}; use backend='torch'"
    return None


def _apart(name: str, logits: Tensor) -> str | None:
    """Why the kernels cannot read logits where they lie."""
    if logits.shape[-1] > 1 and logits.stride(-1) != 1:
        return f"neighbouring anchors of {name} lie {logits.stride(-1)} elements apart; use backend='torch', or {name}.contiguous()"
    return None


@cache
def no_library() -> str | None:
    """Why there are no kernels on this machine; ``None`` when there are. Compiles them at the first call.

    Whatever fails there is such a reason: a training that torch can serve goes on.
    """
    if os.environ.get("TWINLOSS_NATIVE", "1").lower() in {"0", "false", "off", "no", "n"}:
        return "the environment variable TWINLOSS_NATIVE switches the kernels off; unset it, or use backend='torch'"
    try:
        load()
    except NoLibraryError as error:
        reason = str(error)
    except Exception as error:  # what nobody thought of
        reason = f"the CPU kernels cannot be had: {type(error).__name__}: {error}; use backend='torch'"
    else:
        return None
    _unsaid.setdefault(reason, [reason])
    return reason


def say_once(reason: str) -> None:
    """Log, once, that torch serves because this machine has no kernels; what torch serves because of the call itself is no surprise."""
    with contextlib.suppress(IndexError):
        why = _unsaid.get(reason, []).pop()
        log.warning("twinloss computes with torch's operators, which is the same definition and slower: %s", why)
