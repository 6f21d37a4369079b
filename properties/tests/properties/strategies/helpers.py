"""Draws cases outside a test function."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, given, seed, settings

from oracle.cases.case import Case
from properties.strategies import PROFILES, Profile, cases


def sample(profile: Profile, count: int, number: int) -> list[Case]:
    """Returns ``count`` cases of a profile, drawn with the seed ``number``."""
    drawn: list[Case] = []

    @seed(number)
    @settings(max_examples=count, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(cases(profile))
    def collect(case: Case) -> None:
        drawn.append(case)

    collect()
    return drawn


def profile_of(batch: list[Case]) -> Profile:
    """Returns the profile that the cases were drawn from."""
    return PROFILES[batch[0].workload.removeprefix("generated-")]
