"""What cannot be measured or drawn is refused in one line, before the work."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from models.datasets.encoded import encode
from models.datasets.simulator import simulate
from models.datasets.table import read_table
from models.evaluation.__main__ import main as evaluation
from models.evaluation.picture import main as picture
from models.evaluation.reliability_picture import main as reliability_picture
from models.evaluation.report import as_text, report
from models.evaluation.run import write_json
from models.evaluation.windows import main as windows
from tests.app.conftest import SHIPPED
from tests.export.conftest import make_run
from tests.refused import last_words


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A tiny run that nobody measured."""
    return make_run(tmp_path_factory.mktemp("refusals"), "dkt")


def files_of(folder: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in folder.iterdir()}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rounds", "0"], "--rounds: 0: must be at least 1"),
        (["--rounds", "-1"], "--rounds: -1"),
        (["--rounds", "many"], "'many'"),
        (["--users", "0"], "--users: 0"),
        (["--users", "-3"], "--users: -3"),
        (["--threads", "-1"], "--threads: -1"),
        (["--calibration-rows", "0"], "--calibration-rows: 0"),
        (["--folds", "1"], "--folds"),
        (["--model", "dkt"], "--model"),
        (["--table", "page.md"], "--table"),
        (["--of", "runs/a"], "--of"),
        (["--out", "nodir/x.json"], "nodir/x.json: there is no folder nodir"),
        (["--out", "."], "is a folder"),
        (["--data", "nowhere"], "--data nowhere"),
    ],
)
def test_a_measuring_that_cannot_be_meant_is_refused(run, capsys, arguments, said):
    """Nothing is measured, and nothing written."""
    before = files_of(run)

    assert said in last_words(evaluation, [str(run), *arguments], capsys)
    assert files_of(run) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "dkt"], "go together"),
        (["--folds", "9"], "no fold 9"),
        (["--table", "nodir/x.md"], "nodir/x.md"),
        (["--users", "3"], "--users 3"),
        (["--out", "x.json"], "--out x.json"),
        (["--split", "validation"], "--split validation"),
        (["--rounds", "0"], "--rounds: 0"),
    ],
)
def test_a_cell_that_cannot_be_meant_is_refused(tmp_path, capsys, arguments, said):
    """Before a training of hours."""
    cell = ["--results", str(tmp_path / "results"), "--runs", str(tmp_path / "runs")]
    cell += ["--protocol", "statics2011"] if said != "go together" else []
    cell += ["--model", "global_mean", "--table", str(tmp_path / "page.md")]

    assert said in last_words(evaluation, [*cell, *arguments], capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("weights.safetensors", b"\x10\0\0\0"),
        ("run.json", b"{"),
        ("run.json", b'{"network": "dkt"}'),
        ("vocabulary.json", b'{"format": 1}'),
        ("calibration.json", b"[]"),
    ],
)
def test_a_damaged_file_of_a_run_is_named(run, tmp_path, capsys, file, content):
    """By its path."""
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / file).write_bytes(content)

    assert str(copy / file) in last_words(evaluation, [str(copy)], capsys)


def test_weights_of_another_network_are_named(run, tmp_path, capsys):
    """In one line, however much torch has to say."""
    copy = shutil.copytree(run, tmp_path / "run")
    content = json.loads((copy / "run.json").read_text())
    content["config"]["hidden"] = 16
    (copy / "run.json").write_text(json.dumps(content))

    words = last_words(evaluation, [str(copy)], capsys)
    assert f"{copy / 'weights.safetensors'} is damaged or of another network" in words
    assert "size mismatch" in words


def test_a_history_length_of_one_kind_of_answers_has_no_auc_and_no_nan(tmp_path):
    """All others are reported; what is written is JSON to everybody."""
    frame = simulate(users=30, answers=30, questions=5, skills=2, seed=0).frame
    first_right = frame.with_columns(
        pl.when(pl.col("order") == 0).then(1).otherwise("correct").alias("correct")
    )
    log = tmp_path / "log.csv"
    first_right.write_csv(log)
    content = report(*answered(log), rounds=5)

    write_json(tmp_path / "metrics.json", content)
    assert "auc" not in content["by_history_length"]["0"]
    assert {"accuracy", "ece"} <= set(content["by_history_length"]["0"])
    assert "nan" not in as_text(content)


def test_answers_of_one_kind_cannot_be_measured(tmp_path):
    """No AUC can be had of them: not NaN, but an error that says why."""
    frame = simulate(users=5, answers=6, questions=5, skills=2, seed=0).frame
    frame.with_columns(correct=1).write_csv(tmp_path / "log.csv")

    with pytest.raises(ValueError, match="25 answers of 5 users"):
        report(*answered(tmp_path / "log.csv"), rounds=5)


def test_nan_is_not_written(tmp_path):
    with pytest.raises(ValueError, match=r"x\.json is not written"):
        write_json(tmp_path / "x.json", {"auc": float("nan")})
    assert list(tmp_path.iterdir()) == []


def answered(log: Path) -> tuple[list, list]:
    """Return the users of a log, and some probability for each of their answers."""
    data = read_table(log)
    users = encode(data, data.vocabulary())
    rng = np.random.default_rng(0)
    return users, [rng.random(len(user)) for user in users]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--lengths", "0"], "--lengths: 0: must be at least 1"),
        (["--lengths", "5", "-2"], "-2"),
        (["--users", "0"], "--users: 0"),
        (["--history", "-1"], "--history: -1"),
        (["--every", "0"], "--every: 0"),
        (["--rounds", "0"], "--rounds: 0"),
        (["--out", "a.xyz"], "a.xyz: must end in .png or .svg"),
        (["--out", "nodir/a.png"], "nodir"),
        (["--lengths", "5000"], "no test user has 4,999 answers"),
    ],
)
def test_windows_that_cannot_be_are_refused(run, capsys, arguments, said):
    assert said in last_words(windows, [str(run), *arguments], capsys)


@pytest.mark.parametrize("main", [picture, reliability_picture])
@pytest.mark.parametrize(
    ("out", "said"), [("p.xyz", "p.xyz: must end in"), ("nodir/p.png", "no folder nodir")]
)
def test_a_picture_that_cannot_be_drawn_is_refused(main, capsys, out, said):
    assert said in last_words(main, [out, str(SHIPPED["dkt"])], capsys)
