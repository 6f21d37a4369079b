"""The examples in the oracle's docstrings."""

from __future__ import annotations

import doctest
import importlib

import pytest

EXAMPLES = ("inference.assignment", "judge.indistinguishable", "tolerance.kinks", "tolerance.margins")


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_in_docstrings_hold(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"oracle.{name}"))
    assert found.attempted
    assert not found.failed
