"""Cases drawn from each profile, for all tests of this folder."""

from __future__ import annotations

import pytest

from oracle.cases.case import Case
from properties.strategies import PROFILES
from properties.tests.properties.strategies.helpers import sample

DRAWS, RUNS = 14, 15  # A run of Hypothesis returns to earlier draws, so that many short runs cover more than a long one.


@pytest.fixture(scope="session", params=sorted(PROFILES))
def drawn(request: pytest.FixtureRequest) -> list[Case]:
    """Cases of one profile."""
    return [case for number in range(RUNS) for case in sample(PROFILES[request.param], DRAWS, number)]
