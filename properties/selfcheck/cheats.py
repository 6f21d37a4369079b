"""Runs every cheating candidate in a process of its own through the parts of a differential run, and checks that it is named.

A cheat is a candidate that would get "Conforms" from a judge that it can reach, that asks small batches alone, or that stops early. The
catalogue lists what must be found: a failure mode of conduct, or a stage. ``python -m properties.selfcheck.cheats`` prints a line for each.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from oracle.cases.case import Setting
from oracle.comparison.compare import compare
from oracle.comparison.conduct import STAGE as CONDUCT
from oracle.comparison.registry import load_isolated
from oracle.contract.contender import Contender
from oracle.contract.verdict import Finding
from oracle.inside.process_state import RANDOM, SETTINGS
from oracle.isolated.candidate_process import ENDS
from oracle.ladder.questions import scene
from properties.differential.soak import Soak, real_size

MODULE = "properties.selfcheck.cheating_candidates"


@dataclass(frozen=True)
class Cheat:
    """One cheating candidate.

    Attributes:
        name: its factory.
        gives_away: quantities or stages, one of which the findings must name.
    """

    name: str
    gives_away: tuple[str, ...]


CHEATS = (
    Cheat("patches_the_judge", ("loss",)),
    Cheat("wrong_after_many_calls", ("depends on history",)),
    Cheat("wrong_at_real_sizes", ("loss",)),
    Cheat("wrong_late_in_time", ("depends on history",)),
    Cheat("resets_seeds", (RANDOM,)),
    Cheat("resets_settings", (SETTINGS,)),
    Cheat("remembers_by_identity", ("keeps state", "depends on history", "loss")),
    Cheat("lies_by_a_subclass", ("wrong tensor",)),
    Cheat("reads_the_last_inputs", ("keeps state", "not finite", "raises", "loss")),
    Cheat("returns_a_view_of_its_inputs", ("mutates inputs",)),
    Cheat("mutates_after_return", ("mutates inputs",)),
    Cheat("wrong_when_repeated", ("keeps state",)),
    Cheat("exits_quietly", (ENDS,)),
    Cheat("closes_streams", (ENDS,)),
    Cheat("reads_uninitialised_memory", ("loss", "keeps state")),
)
"""Every cheat, with what gives it away."""


def findings(contender: Contender) -> list[Finding]:
    """Returns what a differential run finds: on small batches, on one of real size, and in the soak, in this order."""
    setting = Setting("float32")
    small = [scene(seed, images=2, boxes=3, sides=(36.0, 90.0), size=(128, 128)) for seed in (1, 2)]
    found: list[Finding] = []
    for case in (*small, real_size()):
        found += compare(case, setting, [contender], None, (CONDUCT, "loss")).results[0].findings
        if found:
            return found
    return [one.finding for one in Soak(contender).judgements() if one.finding is not None]


def named(cheat: Cheat, found: Sequence[Finding]) -> bool:
    """Whether the findings name what gives a cheat away."""
    return any(name in (finding.quantity, finding.stage) for finding in found for name in cheat.gives_away)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the catalogue; returns 1 if a cheat conforms or is not named."""
    parser = argparse.ArgumentParser("python -m properties.selfcheck.cheats", description="Run every cheating candidate.")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cheats whose name contains TEXT")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    missed = 0
    for cheat in (one for one in CHEATS if options.only in one.name):
        found = findings(load_isolated(f"{MODULE}:{cheat.name}"))
        good = named(cheat, found)
        missed += not good
        said = f"{found[0].stage}, {found[0].quantity}: {found[0].what}" if found else "conforms"
        print(f"{'caught' if good else 'MISSED'}  {cheat.name}: {said}", flush=True)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
