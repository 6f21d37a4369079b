"""Torch's global settings: what a call changed of them, and back to what they were, so that one contender does not spoil the next."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch


def surroundings() -> dict[str, Any]:
    """The settings by name."""
    return {
        "default dtype": torch.get_default_dtype(),
        "gradients enabled": torch.is_grad_enabled(),
        "number of threads": torch.get_num_threads(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
    }


def changes(before: Mapping[str, Any]) -> str:
    """One sentence about the settings that are no longer what they were, or nothing."""
    after = surroundings()
    changed = [f"{name} from {value} to {after[name]}" for name, value in before.items() if after[name] != value]
    return f"the call changed torch's {', '.join(changed)}" if changed else ""


def restore(before: Mapping[str, Any]) -> None:
    """Set what was changed back."""
    if not changes(before):
        return
    torch.set_default_dtype(before["default dtype"])
    torch.set_grad_enabled(before["gradients enabled"])
    torch.set_num_threads(before["number of threads"])
    torch.use_deterministic_algorithms(before["deterministic algorithms"])


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Settings are afterwards what they were before."""
    before = surroundings()
    try:
        yield
    finally:
        restore(before)
