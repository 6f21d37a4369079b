"""A candidate in a process of its own as a contender."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from oracle.cases.case import Inputs, Setting
from oracle.contract.contender import Contender, Criterion
from oracle.isolated.candidate_process import CandidateProcess
from oracle.isolated.criterion import Caller, IsolatedCriterion, spec_record
from twinloss import LossSpec


def isolated_contender(
    process: CandidateProcess, name: str, version: str, arithmetic: str, time_limit: float, *, declines: bool
) -> Contender:
    """Returns the candidate of a process as a contender.

    Args:
        process: the process, which has loaded the candidate.
        name, version, arithmetic, time_limit: as for :class:`~oracle.contract.contender.Contender`.
        declines: whether its factory has a function ``declines``.
    """
    caller = Caller(process, time_limit)
    ask = partial(_declines, caller) if declines else None
    return Contender(name, version, partial(_factory, caller), arithmetic, ask, time_limit, isolated=True)


def set_clock(contender: Contender, ahead_s: float) -> None:
    """Puts the clocks of an isolated contender's process ahead of this one's; does nothing to a contender in this process."""
    if contender.isolated:
        _caller(contender).process.ask({"do": "clock", "ahead_s": ahead_s}, contender.time_limit or 60.0)


def _caller(contender: Contender) -> Caller:
    factory = contender.factory
    assert isinstance(factory, partial)
    found: Caller = factory.args[0]
    return found


def _factory(caller: Caller, spec: LossSpec, flow: nn.Module | None = None) -> Criterion:
    return IsolatedCriterion(caller, spec, flow)


def _declines(caller: Caller, spec: LossSpec, inputs: Inputs, setting: Setting) -> Any:
    fields = {"dtype": setting.dtype, "autocast": setting.autocast, "device": setting.device}
    return caller.with_inputs({"do": "declines", **spec_record(spec), "setting": fields}, *inputs)["decoded"]["answer"]
