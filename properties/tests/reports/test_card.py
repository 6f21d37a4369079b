"""The conformance card says what the rows say."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pandas as pd
import pytest

from oracle.cases.case import Box, Case, Prediction, Setting
from oracle.comparison.compare import STAGES, compare
from oracle.comparison.conduct import MODES, STAGE
from oracle.comparison.registry import load_candidate, shipped
from oracle.comparison.rows import Run, rows_of
from reports.card.__main__ import explanations_beside, main
from reports.card.text import BEGIN, END, block, inserted
from reports.rows import RowsError
from twinloss import LossSpec

CROWDED = Case(
    LossSpec(num_classes=2, reg_max=4, strides=(8, 16), topk=4),
    (64, 64),
    1,
    (Box(0, 1, 30, 30, 40, 40), Box(0, 0, 34, 30, 30, 30)),
    Prediction("near", spread=0.25),
    tags=("contested", "nested"),
)
REPLAY = "nox -s diff -- --replay abc --candidate mine:make"
PAGE = Path(__file__).parents[3] / "docs" / "tutorial" / "judge.md"
EMPTY = dataclasses.replace(CROWDED, boxes=(), tags=("no-boxes",))


def cards(folder: Path, *names: str) -> dict[str, dict[str, str]]:
    """Texts of each contender's card by suffix."""
    contenders = [load_candidate(f"properties.selfcheck.sample_candidates:{name}") for name in names]
    compared = [compare(case, Setting(), contenders, shipped()["reference"], (STAGE, *STAGES)) for case in (CROWDED, EMPTY)]
    compared = [
        dataclasses.replace(one, results=[dataclasses.replace(result, replay=REPLAY) for result in one.results]) for one in compared
    ]
    rows = [vars(row) for comparison in compared for row in rows_of(comparison, Run("test", "1"))]
    pd.DataFrame(rows).to_parquet(folder / "rows.parquet")
    assert main(["--rows", str(folder / "rows.parquet"), "--out", str(folder)]) == 0
    stems = {name: f"card-properties-selfcheck-sample_candidates-{name}" for name in names}
    return {name: {kind: (folder / f"{stem}.{kind}").read_text("utf-8") for kind in ("md", "html", "json")} for name, stem in stems.items()}


def test_a_card_for_each_contender(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = cards(tmp_path, "twin", "one_fewer_silent", "leaves_a_key")

    twin = written["twin"]
    assert "**✓ Conforms: 2 batches, no difference**" in twin["md"]
    assert all(f"| {mode} | 2 | 0 |" in twin["md"] for mode in MODES)
    assert json.loads(twin["json"]) == {
        "schemaVersion": 1, "label": "detection loss", "message": "2 batches agree", "color": "brightgreen", "isError": False,
    }  # fmt: skip

    wrong = written["one_fewer_silent"]
    assert "**✗ Differs in 1 of 2 batches: loss**" in wrong["md"]
    assert "| contested | 1 | ✗ 1 | 100 % | 0 % |" in wrong["md"]
    assert "no-boxes" not in wrong["md"].split("## Stages")[0]
    assert json.loads(wrong["json"])["message"] == "1 of 2 batches differ"
    assert REPLAY in wrong["html"]

    assert "**✗ Differs in 2 of 2 batches: mutates inputs**" in written["leaves_a_key"]["md"]
    assert "Conforms: 2 batches" in capsys.readouterr().out


def test_the_card_begins_with_what_explains_the_differences(tmp_path: Path) -> None:
    name = "properties.selfcheck.sample_candidates:one_fewer_silent"
    entry = {"contender": name, "task": "detect", "sentence": "is Ultralytics 8.4.0, but K - 1 instead of K [5.4]: explains 1 of 1 batches"}
    (tmp_path / "explanations.json").write_text(json.dumps([entry]), "utf-8")
    written = cards(tmp_path, "one_fewer_silent", "twin")
    sentence = "Is Ultralytics 8.4.0, but K - 1 instead of K [5.4]: explains 1 of 1 batches. Differs in 1 of 2 batches: loss"
    assert sentence in written["one_fewer_silent"]["md"]
    assert "Conforms" in written["twin"]["md"]
    text = block(pd.read_parquet(tmp_path / "rows.parquet"), explanations_beside(tmp_path / "rows.parquet"))
    assert f"{name}: {sentence}" in text


def test_a_file_of_explanations_that_is_none_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "explanations.json").write_text("[1]", "utf-8")
    with pytest.raises(RowsError, match=r"explanations\.json is not a list of explanations .*; run nox -s diff again"):
        explanations_beside(tmp_path / "rows.parquet")


def test_missing_rows_are_an_error_that_says_what_to_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--rows", str(tmp_path / "none.parquet"), "--out", str(tmp_path)]) == 2
    assert "nox -s diff" in capsys.readouterr().err


def shape(text: str) -> list[list[str]]:
    """Lines of each card without what a run decides: names, counts, verdicts."""
    fence = text.partition("```text\n")[2].partition("```")[0]
    plain = re.sub(r"∞|[\d,]*\d(\.\d+)?(e[+-]\d+)?", "#", fence.strip())
    plain = re.sub(
        r"(Conforms: # batches, no difference|([^\n]* explains [^\n]*\\. )?Differs in # of # batches: [\w ,]+)", "OUTCOME", plain
    )
    plain = re.sub(r"^  stages .*|[✓✗–]( #)?", "…", re.sub(r"properties\.candidates:\w+", "NAME", plain), flags=re.MULTILINE)
    return [card.splitlines() for card in plain.split("\n\n")]


def test_the_cards_in_the_readme_are_as_their_command_writes_them(tmp_path: Path) -> None:
    names = ("reference", "twin", "one_fewer_silent")
    cards(tmp_path, *names)
    target = tmp_path / "README.md"
    target.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", "utf-8")
    assert main(["--rows", str(tmp_path / "rows.parquet"), "--out", str(tmp_path), "--readme", str(target)]) == 0
    written, shown = target.read_text("utf-8"), PAGE.read_text("utf-8")
    assert written.startswith("before\n")
    assert written.endswith("\nafter\n")
    assert "old" not in written
    shown = shown.split(BEGIN)[1].split(END)[0]
    assert shape(shown) == shape(written)
    assert [f"properties.selfcheck.sample_candidates:{name}: " in shown for name in names] == [True] * 3
    assert [line.split(": ")[1].split()[0] for line in shown.splitlines() if line.startswith("properties")] == [
        "Conforms",
        "Conforms",
        "Differs",
    ]


def test_a_readme_without_a_place_for_cards_is_an_error() -> None:
    with pytest.raises(ValueError, match="no place for the cards"):
        inserted("nothing here", pd.DataFrame())
