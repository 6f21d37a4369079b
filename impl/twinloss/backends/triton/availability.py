"""Whether the Triton backend can serve a call, and in plain words why not. Imports no Triton."""

from __future__ import annotations

import os
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import torch
from torch import Tensor

from twinloss.spec import LossSpec
from twinloss.task_specs import SegmentationSpec
from twinloss.terms.registry import DETECTION_TERMS

OLDEST_CAPABILITY = (8, 0)
OLDEST_TRITON = (3, 3)  # the first whose kernels take tuples


def why_not(logits: Tensor, spec: LossSpec, ties: str) -> str | None:
    """Why the kernels cannot serve these logits, with the remedy; ``None`` when they can."""
    if reason := _why_not_installed():
        return reason
    if ties == "reference":
        return "ties='reference' repeats the choice of torch.topk, which the kernels do not make; use backend='torch', or ties='stable'"
    if spec.beyond_kernels:
        return f"{spec.beyond_kernels}; use backend='torch'"
    if spec.anchor_weights != "own":
        return "the kernels weigh each anchor with its own soft target; use backend='torch' for the releases that weighed with the sum"
    if logits.dtype == torch.float64:
        return "the kernels compute in float32, and these logits are float64; use backend='torch'"
    return None if interpreting() else _why_not_device(logits.device)


def computed_terms(spec: LossSpec) -> tuple[str, ...]:
    """Keys of the terms that the kernels compute: of older segmentation, which crops otherwise or has no semantic term, detection's."""
    older = isinstance(spec, SegmentationSpec) and (spec.crop != "exact" or not spec.semantic_term)
    return DETECTION_TERMS if older else spec.terms


def interpreting() -> bool:
    """Whether Triton's interpreter is on: it runs the kernels on the host, slowly, to test them."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in {"1", "true", "on", "yes", "y"}


@cache
def _why_not_installed() -> str | None:
    if find_spec("triton") is None:
        return "the package triton is not installed; install it, or use backend='torch'"
    try:
        found = version("triton")
    except PackageNotFoundError:  # a build under another name, such as torch's nightly ones
        return None
    if tuple(map(int, found.split(".")[:2])) < OLDEST_TRITON:
        return f"triton {found} is installed, and the kernels want {'.'.join(map(str, OLDEST_TRITON))} or newer; use backend='torch'"
    return None


@cache
def _why_not_device(device: torch.device) -> str | None:
    if device.type != "cuda":
        return f"the logits are on {device}; move them to a CUDA device, or use backend='torch'"
    if torch.version.cuda is None:
        return "the kernels are for NVIDIA devices alone; use backend='torch'"
    capability = torch.cuda.get_device_capability(device)
    if capability < OLDEST_CAPABILITY:
        found, oldest = (".".join(map(str, c)) for c in (capability, OLDEST_CAPABILITY))
        return f"the device has compute capability {found}, and the kernels want {oldest} or newer; use backend='torch'"
    return None
