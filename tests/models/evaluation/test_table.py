"""The table says what was measured, and what was not."""

from __future__ import annotations

import json

import pytest

from models.evaluation.table import BEGIN, END, LINE, PageInvalid, section, write_table


def keep(results, protocol, model, fold, **figures):
    path = results / protocol / model / f"{fold}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    window = {"length": 200, "cut": 1, "side": "right"}
    content = {"fold": fold, "auc": 0.75, "ece": 0.02, "window": window, **figures}
    path.write_text(json.dumps(content))


def row_of(text: str, protocol: str, model: str) -> list[str]:
    part = text.split(f"### {protocol}\n")[1]
    line = next(x for x in part.splitlines() if x.startswith(f"| `{model}` |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_cell_is_the_mean_of_its_folds_beside_what_is_published(tmp_path):
    """DKT was published with 0.7541 on assist2009; two of five folds were run."""
    keep(tmp_path, "assist2009", "dkt", 0, auc=0.7600, ece=0.01)
    keep(tmp_path, "assist2009", "dkt", 3, auc=0.7620, ece=0.03)

    row = row_of(section(tmp_path), "assist2009", "dkt")

    assert row[1:4] == ["2 of 5", "0.7610", "0.0014"]
    assert row[4].startswith("DKT 0.7541 ± 0.0011")
    assert row[5:8] == ["+0.0069", "0.0200", "200"]
    assert row[8] == "`--protocol assist2009 --model dkt --folds 0 3`"


def test_what_was_not_run_says_so(tmp_path):
    """Every model of the line, under every protocol; and one without results says nothing else."""
    text = section(tmp_path)

    assert text.count("| not run |") == 4 * len(LINE)
    assert row_of(text, "statics2011", "bkt")[1:4] == ["not run", "", ""]


def test_a_model_without_a_figure_of_its_own_is_held_against_the_best(tmp_path):
    keep(tmp_path, "assist2017", "saint_plus", 1, auc=0.8, ece=0.02, ece_uncalibrated=0.05)
    keep(tmp_path, "assist2017", "another", 1, of="artifacts/another/1")
    text = section(tmp_path)
    row = row_of(text, "assist2017", "saint_plus")

    assert row[4].startswith("(AKT-R 0.7702")
    assert row[5:7] == ["+0.0298", "0.0200 (before calibration 0.0500)"]
    assert row_of(text, "assist2017", "another")[8].endswith("--folds 1 --of artifacts/another/1`")


def test_a_longer_window_than_the_protocol_s_is_named(tmp_path):
    """assist2009's published figures see 200 places; assist2017's say nothing of it."""
    for protocol in ("assist2009", "assist2017"):
        keep(tmp_path, protocol, "bkt", 1, window={"length": 400, "cut": 200, "side": "right"})
        keep(tmp_path, protocol, "question_mean", 1, window=None)
    text = section(tmp_path)

    assert row_of(text, "assist2009", "bkt")[7] == "400/200, longer than the protocol's"
    assert row_of(text, "assist2009", "question_mean")[7] == "all, longer than the protocol's"
    assert row_of(text, "assist2017", "bkt")[7] == "400/200"


def test_writing_twice_changes_nothing_and_the_rest_of_the_page_stays(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"# Before\n\n{BEGIN}\nstale\n{END}\n\nAfter.\n")

    write_table(page, tmp_path)
    once = page.read_text()
    write_table(page, tmp_path)

    assert page.read_text() == once
    assert once.startswith("# Before\n")
    assert once.endswith("\nAfter.\n")
    assert "stale" not in once


def test_a_page_without_marks_gets_them_and_one_with_half_is_refused(tmp_path):
    new, half = tmp_path / "new.md", tmp_path / "half.md"
    half.write_text(END)

    write_table(new, tmp_path)

    assert new.read_text().count(BEGIN) == new.read_text().count(END) == 1
    with pytest.raises(PageInvalid, match="needs"):
        write_table(half, tmp_path)
    assert half.read_text() == END
