"""A definition as a string: it comes back to the bit, and what may change from call to call is not in it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from properties.tests.impl.operators.scenes import SPECS
from twinloss import LossSpec, PoseSpec
from twinloss.operators.definition import definition_of, numbers_of, shape_of, spec_of, structure, text_of

OPTIONS = "stable overlap None 1048576 auto"
ODD = replace(SPECS["detect"], gains=(0.1, 1 / 3, 1e-30), assign_eps=1e-9, class_weights=(1e38, 0.0, -0.0), topk2=3)
SIGMAS = PoseSpec(num_classes=1, keypoint_shape=(2, 2), sigmas=(0.1, 0.7))


@pytest.mark.parametrize("spec", [*SPECS.values(), ODD, SIGMAS], ids=str)
def test_a_definition_comes_back_to_the_bit(spec: LossSpec) -> None:
    told = definition_of(f"{OPTIONS}|{text_of(spec)}")
    assert repr(told.spec) == repr(spec)
    assert (told.ties, told.conflicts, told.validate, told.pairs_at_once, told.backend) == ("stable", "overlap", None, 1 << 20, "auto")
    assert repr(spec_of(structure(spec), numbers_of(spec))) == repr(spec)


@pytest.mark.parametrize("spec", [*SPECS.values(), ODD], ids=str)
def test_numbers_replace_those_of_the_structure(spec: LossSpec) -> None:
    other = replace(spec, gains=tuple(2 * gain for gain in spec.gains), alpha=1.5)
    assert structure(other) == structure(spec)
    assert text_of(other) != text_of(spec)
    assert definition_of(f"{OPTIONS}|{structure(spec)}", numbers_of(other)).spec == other


@pytest.mark.parametrize("changed", [{"topk": 3}, {"topk2": 1}, {"class_weights": None}, {"lengthen": "first"}, {"reg_max": 4}], ids=str)
def test_whatever_decides_shapes_or_choices_is_in_the_structure(changed: dict[str, object]) -> None:
    assert structure(replace(ODD, **changed)) != structure(ODD)  # type: ignore[arg-type]


@pytest.mark.parametrize("spec", [*SPECS.values(), ODD], ids=str)
def test_shapes_need_no_number(spec: LossSpec) -> None:
    found = shape_of(f"{OPTIONS}|{structure(spec)}")
    assert (found.terms, found.topk, type(found)) == (spec.terms, spec.topk, type(spec))
