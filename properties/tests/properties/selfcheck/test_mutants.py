"""The sample of mutants is repeatable, and a run on the unchanged library is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from properties.selfcheck import cpp_mutants, python_mutants
from properties.selfcheck.mutants import NOT_MUTATED, ROOT, SUBJECTS, Checkout, Subject, WrongLibraryError, sampled

RAGGED = Subject({"impl/twinloss/assignment/ragged.py": ("detect",)}, [])
SOURCE = """#include <array>
// a < b is no code, nor is 3
float sum(const std::array<float, 4>& values, int count) {
    float total = 0.5f;  /* 1 + 1 */
    for (int n = 0; n < count && n <= 3; ++n) total += min(values[n], 2.f) * 7;
    return total;
}
"""


def test_a_sample_of_mutants_is_the_same_for_a_seed_and_changes_more_than_annotations() -> None:
    found = sampled(RAGGED, 5, seed=1)
    assert found == sampled(RAGGED, 5, seed=1) != sampled(RAGGED, 5, seed=2)
    assert len({mutant.operator for mutant in found}) == 5
    operator = "core/ReplaceBinaryOperator_BitOr_Add"
    assert not list(python_mutants.mutants(ROOT, "properties/divergences/input_edits.py", operator))


@pytest.mark.parametrize(
    ("operator", "changed"),
    {
        "comparison": ["n <= count", "n < 3"],
        "arithmetic": ["total -= min", "2.f) / 7"],
        "logic": ["count || n"],
        "bound": ["max(values"],
        "whole number": ["float, 5>", "int n = 1;", "n <= 4", "* 8"],
        "real number": ["(0.5f * 1.01f)", "(2.f * 1.01f)"],
    }.items(),
)
def test_cpp_mutants_change_code_alone(tmp_path: Path, operator: str, changed: list[str]) -> None:
    (tmp_path / "source.hpp").write_text(SOURCE, "utf-8")
    found = list(cpp_mutants.mutants(tmp_path, "source.hpp", operator))
    assert len(found) == len(changed)
    assert all(text in mutant.code and text not in SOURCE for text, mutant in zip(changed, found, strict=True))


@pytest.mark.parametrize("name", SUBJECTS)
def test_every_subject_has_its_files_and_mutants(name: str) -> None:
    assert all((ROOT / path).is_file() for path in SUBJECTS[name].paths)
    assert len(sampled(SUBJECTS[name], 2, seed=0)) == 2


def test_every_kernel_is_mutated() -> None:
    headers = {path.stem for path in (ROOT / "impl/twinloss/backends/native/source").glob("*.hpp")}
    assert headers - set(NOT_MUTATED) == {Path(path).stem for path in SUBJECTS["native"].paths}
    modules = {path.stem for path in (ROOT / "impl/twinloss/backends/triton").glob("*.py") if "triton.jit" in path.read_text("utf-8")}
    assert modules == {Path(path).stem for path in SUBJECTS["triton"].paths}


def test_a_run_on_another_library_is_noticed(tmp_path: Path) -> None:
    said = tmp_path / "library.txt"
    said.write_text(f"{tmp_path / 'own.so'}\nabc\n", "utf-8")
    assert Checkout._library(said, tmp_path) == "abc"
    said.write_text("/elsewhere/installed.so\nabc\n", "utf-8")
    with pytest.raises(WrongLibraryError, match=r"ran /elsewhere/installed\.so, not one compiled in"):
        Checkout._library(said, tmp_path)
    with pytest.raises(WrongLibraryError, match="no library"):
        Checkout._library(tmp_path / "none.txt", tmp_path)
