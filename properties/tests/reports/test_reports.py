"""Reports are built from rows only, show the expected text, and fetch nothing."""

from __future__ import annotations

import functools
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracle.tools.programs import run, run_python
from reports import markdown, page
from reports.__main__ import main
from reports.diff.report import KIND
from reports.diff.schema import AGREE, AMBIGUOUS, DIFFER, NOT_COMPARED
from reports.document import Report
from reports.rows import RowsError, read, validated
from reports.tables import Column, against

GOLDEN = Path(__file__).parent / "golden"
COMMON: dict[str, Any] = {
    "version": "twinloss 0.1.0",
    "device": "cpu",
    "margin": None,
    "torch": "2.15.0",
    "ultralytics": "8.4.190",
    "twinloss": "0.1.0",
    "python": "3.11.7",
    "profile": "default",
    "seed": "0",
    "tags": "",
}


def rows(*, differing: bool) -> pd.DataFrame:
    """Two batches, one real and one generated, in two dtypes; ``differing`` adds a contender that is wrong in one of them."""
    records: list[dict[str, Any]] = []
    for workload, case, source in (("coco", "aaaaaaaaaaaa", "coco_val2017_boxes.npz"), ("generated", "bbbbbbbbbbbb", "generated, seed 0")):
        for dtype in ("float32", "bfloat16"):
            common = {**COMMON, "contender": "twin", "workload": workload, "case": case, "source": source, "dtype": dtype}
            tipped = dtype == "bfloat16" and workload == "coco"
            decided = {"decisions": 100, "open_decisions": 3 * tipped, "ambiguous_decisions": int(tipped)}
            nothing: dict[str, Any] = {"error": None, "allowance": None, "error_over_allowance": None}
            undecided = {"decisions": 0, "open_decisions": 0, "ambiguous_decisions": 0}
            verdict = AMBIGUOUS if tipped else AGREE
            records.append({**common, **nothing, **decided, "stage": "assign", "quantity": "kth place", "verdict": verdict})
            records.append({**records[-1], "quantity": "holders"})
            near = {"error": 2e-7, "allowance": 1e-6, "error_over_allowance": 0.2}
            records.append({**common, **nothing, **undecided, **near, "stage": "loss", "quantity": "box", "verdict": AGREE})
    if differing:
        wrong = {"contender": "wrong", "verdict": DIFFER, "error": 3e-6, "error_over_allowance": 3.0}
        told = {"detail": "worst element (0,): reference 1.5 | twin 1.2\n<shapes>", "replay": "nox -s diff -- --replay bbbbbbbbbbbb"}
        left_out = {"stage": "assign", "verdict": NOT_COMPARED, "error_over_allowance": None, "reason": "it offers no assignment"}
        records += [{**records[-1], **wrong, **told}, {**records[-1], **wrong, **left_out}]
    return pd.DataFrame(records)


@functools.cache
def report(*, differing: bool) -> Report:
    return KIND.build(validated(rows(differing=differing), KIND.schema, Path("rows.parquet")))


@pytest.mark.parametrize("differing", [False, True], ids=["agreeing", "differing"])
def test_the_summary_is_the_golden_one(differing: bool) -> None:
    golden = GOLDEN / f"diff-{'differing' if differing else 'agreeing'}.md"
    assert markdown.render(report(differing=differing)) == golden.read_text("utf-8")


def test_a_difference_makes_the_report_red_and_is_told_with_its_replay_line() -> None:
    red = report(differing=True)
    assert red.tone == "bad"
    assert red.headline == "1 of 9 comparisons differ"
    text = page.render(red)
    assert "nox -s diff -- --replay bbbbbbbbbbbb" in text
    assert "&lt;shapes&gt;" in text, "what rows hold is text, never markup"
    assert report(differing=False).tone == "good"


def test_what_was_not_run_is_said() -> None:
    text = markdown.render(report(differing=False))
    assert "CUDA was not checked" in text
    assert "Logits in float64, float16 were not checked." in text
    assert "Autocast was not checked." in text
    without = rows(differing=False).query("workload == 'generated'")
    assert "No real boxes were checked" in markdown.render(KIND.build(validated(without, KIND.schema, Path("rows.parquet"))))


def test_numbers_at_kinks_have_a_table_where_there_are_any() -> None:
    found = rows(differing=False).assign(kinks=0, kink_reach=None)
    assert "## Kinks" not in markdown.render(KIND.build(validated(found, KIND.schema, Path("rows.parquet"))))
    at_loss = found["stage"] == "loss"
    found = found.assign(kinks=found["kinks"].where(~at_loss, 3), kink_reach=found["kink_reach"].astype(float).where(~at_loss, 0.5))
    text = markdown.render(KIND.build(validated(found, KIND.schema, Path("rows.parquet"))))
    assert "| float32 | cpu | twin | 2 | 6 | 50 % |" in text.partition("## Kinks")[2]


def test_rows_written_before_kinks_had_columns_are_read() -> None:
    found = rows(differing=False)
    assert not {"kinks", "kink_reach"} & set(found)
    assert "## Kinks" not in markdown.render(KIND.build(validated(found, KIND.schema, Path("rows.parquet"))))


def test_decisions_are_counted_once_and_shares_are_of_them() -> None:
    text = markdown.render(report(differing=False))
    assert "1 of 400 decisions tipped" in text
    assert "| coco | bfloat16 | twin | 1 | 100 | 3 % | ⚠ 1 % | ⚠ 100 % |" in text


class Links(HTMLParser):
    """Every attribute that makes a browser fetch something, and every element that holds a program."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "iframe", "object", "embed"):
            self.fetched.append(tag)
        for name, value in attrs:
            fetches = name in ("src", "srcset", "action", "poster", "data") or (name in ("href", "xlink:href") and tag != "a")
            if fetches and not (value or "").startswith(("#", "data:")):
                self.fetched.append(f"{tag} {name}={value}")


def assert_self_contained(text: str) -> None:
    links = Links()
    links.feed(text)
    assert links.fetched == []
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    identifiers = re.findall(r'\bid="([^"]+)"', text)
    assert len(identifiers) == len(set(identifiers)), "two elements of one page share an identifier"
    assert not re.search(r"#0[1-9]0[1-9]0[1-9]", text), "a colour of a drawing does not follow the page's"


@pytest.mark.parametrize("differing", [False, True], ids=["agreeing", "differing"])
def test_the_page_is_self_contained(differing: bool) -> None:
    assert_self_contained(page.render(report(differing=differing)))


def test_the_page_is_the_same_every_time() -> None:
    assert page.render(report(differing=True)) == page.render(report(differing=True))


def assert_opens_in_a_browser(html: str, folder: Path, height: int) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium is installed")
    (folder / "index.html").write_text(html, "utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'user'}", "--enable-logging=stderr"]
    shot = [f"--screenshot={folder / 'page.png'}", f"--window-size=1200,{height}"]
    shown = run([browser, *options, *shot, (folder / "index.html").as_uri()])
    assert shown.returncode == 0, shown.stderr
    assert "CONSOLE" not in shown.stderr, shown.stderr
    picture = (folder / "page.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 50_000, "an empty page compresses to less"


def test_the_page_opens_in_a_browser(tmp_path: Path) -> None:
    assert_opens_in_a_browser(page.render(report(differing=True)), tmp_path, height=2000)


def test_a_file_that_is_not_there_is_named_with_the_command_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(RowsError, match=r"no rows at .*nothing\.parquet; write them with `nox -s diff`"):
        read(tmp_path / "nothing.parquet", KIND.schema)


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_text("workload,case\n")
    with pytest.raises(RowsError, match="not a readable parquet file"):
        read(tmp_path / "rows.parquet", KIND.schema)


@pytest.mark.parametrize("missing", sorted(KIND.schema.required))
def test_a_missing_column_is_named(tmp_path: Path, missing: str) -> None:
    rows(differing=False).drop(columns=missing).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(RowsError, match=rf"lacks the columns: {missing}; "):
        read(tmp_path / "rows.parquet", KIND.schema)


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("verdict", "FINE", "row 2: verdict is 'FINE'; it must be one of NOT COMPARED, AGREE, AMBIGUOUS, DIFFER"),
        ("error", "much", "row 2: error is 'much'; it must be a number"),
        ("decisions", -1, "row 2: decisions is '-1'; it must be a count"),
        ("decisions", 2.5, "row 2: decisions is '2.5'; it must be a count"),
    ],
)
def test_a_strange_value_is_named_with_its_row(column: str, value: str | float, told: str) -> None:
    frame = rows(differing=False)
    frame[column] = frame[column].astype("object")
    frame.loc[2, column] = value
    with pytest.raises(RowsError, match=re.escape(told)):
        validated(frame, KIND.schema, Path("rows.parquet"))


def test_rows_without_a_row_are_refused(tmp_path: Path) -> None:
    rows(differing=False).head(0).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(RowsError, match="no row"):
        read(tmp_path / "rows.parquet", KIND.schema)


def test_columns_beyond_the_schema_are_ignored() -> None:
    frame = validated(rows(differing=False).assign(mood="good"), KIND.schema, Path("rows.parquet"))
    assert list(frame) == [*KIND.schema.required, *KIND.schema.optional]


@pytest.mark.parametrize(("differing", "code"), [(False, 0), (True, 1)])
def test_the_command_writes_both_files_and_its_exit_code_tells_the_outcome(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], differing: bool, code: int
) -> None:
    rows(differing=differing).to_parquet(tmp_path / "rows.parquet")
    arguments = ["diff", "--rows", str(tmp_path / "rows.parquet"), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--exit-code"]) == code
    assert main(arguments) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["index.html", "summary.md"]
    printed = capsys.readouterr().out
    assert "worst error ÷ allowance" in printed
    assert "index.html" in printed


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "--rows", str(tmp_path / "none.parquet")]) == 2
    assert "there are no rows at" in capsys.readouterr().err
    for arguments, told in ((["weather"], "there is no report 'weather'"), (["--rows", "x"], "exactly one KIND")):
        with pytest.raises(SystemExit, match="2"):
            main(arguments)
        assert told in capsys.readouterr().err


def test_reports_need_no_torch() -> None:
    program = "import reports.__main__, sys; print(sorted({'torch', 'ultralytics', 'twinloss', 'oracle', 'properties'} & set(sys.modules)))"
    assert run_python("-c", program).stdout == "[]\n"


@given(st.floats(min_value=0, max_value=1))
def test_a_share_is_never_written_as_none_or_all_unless_it_is(share: float) -> None:
    text = Column("share", "share", "share").text(share)
    assert (text == "0 %") == (share == 0)
    assert (text == "100 %") == (share == 1)


@given(st.floats(min_value=0, allow_infinity=True))
def test_a_ratio_within_its_allowance_is_never_written_as_beyond_it(ratio: float) -> None:
    column = Column("ratio", "ratio", "ratio", against(1.0))
    assert (column.judged(ratio) == "bad") == (ratio > 1)
    if ratio <= 1:
        assert float(column.text(ratio).replace(",", "")) <= 1


@pytest.mark.parametrize("value", [None, float("nan"), pd.NA])
def test_what_was_not_measured_is_a_dash_without_a_verdict(value: object) -> None:
    column = Column("ratio", "ratio", "ratio", against(1.0))
    assert (column.text(value), column.judged(value)) == ("–", "plain")
