"""A cell survives a kill, keeps what it measured, and says what it cannot do."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from models.datasets.simulator import simulate
from models.evaluation.__main__ import main
from models.evaluation.lock import alone

RECIPE = """
name = "tiny"
network = "dkt"
[data]
set = "statics2011"
[window]
length = 40
[model]
hidden = 12
[fit]
epochs = 5
patience = 9
lr = 0.01
batch_places = 64
"""


@pytest.fixture(scope="module")
def learners(tmp_path_factory) -> Path:
    """A folder of known sets, one of them, with simulated users in five folds."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "statics2011").mkdir()
    frame = simulate(users=60, answers=30, questions=12, skills=3, seed=1).frame
    frame.write_csv(folder / "statics2011" / "interactions.csv.gz", compression="gzip")
    users = frame["user_id"].unique(maintain_order=True)
    pl.DataFrame({"user_id": users, "fold": [i % 5 + 1 for i in range(60)]}).write_csv(
        folder / "statics2011" / "folds.csv"
    )
    return folder


@pytest.fixture(scope="module")
def recipes(tmp_path_factory) -> Path:
    """A folder with the recipe of one model, `tiny`."""
    return recipes_in(tmp_path_factory.mktemp("recipes"), RECIPE)


@pytest.fixture(scope="module")
def whole(learners, recipes, tmp_path_factory) -> Path:
    """Where a cell was run that nothing disturbed; to be read from alone."""
    place = tmp_path_factory.mktemp("whole")
    assert main(arguments(learners, recipes, place)) == 0
    return place


def recipes_in(folder: Path, tiny: str) -> Path:
    (folder / "statics2011").mkdir(exist_ok=True)
    (folder / "statics2011" / "tiny.toml").write_text(tiny)
    return folder


def arguments(learners: Path, recipes: Path, place: Path, *more: str, model="tiny") -> list[str]:
    """Return the command line of fold 5, everything of which is written under `place`."""
    cell = ["--protocol", "statics2011", "--model", model, "--folds", "5", "--rounds", "5"]
    cell += ["--data", str(learners), "--recipes", str(recipes), "--threads", "1"]
    cell += ["--runs", str(place / "runs"), "--results", str(place / "results")]
    return [*cell, "--table", str(place / "page.md"), *more]


def figures(place: Path, model: str = "tiny") -> dict:
    return json.loads((place / "results" / "statics2011" / model / "5.json").read_text())


def test_a_killed_cell_goes_on_and_ends_with_the_same_figure(learners, recipes, whole, tmp_path):
    """Command and training die by SIGKILL after an epoch; the same command ends the cell."""
    run = tmp_path / "runs" / "statics2011" / "tiny" / "fold-5"
    with subprocess.Popen(
        [sys.executable, "-m", "models.evaluation", *arguments(learners, recipes, tmp_path)],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        while process.poll() is None and not (run / "progress.pt").is_file():
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
    before = len((run / "log.jsonl").read_text().splitlines())
    assert not (tmp_path / "results").exists()

    assert main(arguments(learners, recipes, tmp_path)) == 0

    killed, untouched = figures(tmp_path), figures(whole)
    for name in set(untouched) - {"seconds"}:
        assert killed[name] == untouched[name], name
    assert before < killed["epochs"] == 5
    assert "| `tiny` | 1 of 5 |" in (tmp_path / "page.md").read_text()


def test_the_answers_are_those_of_the_fold_that_is_scored(whole):
    """Twelve users of thirty answers; what is quoted leaves out the first of each."""
    found = figures(whole)

    assert found["users"] == 12
    assert (found["answers"], found["every_answers"]) == (12 * 29, 12 * 30)
    assert found["auc_low"] < found["auc"] < found["auc_high"]


def test_what_was_measured_is_kept_until_the_recipe_is_another(learners, whole, tmp_path, capfd):
    """A change of the recipe is not passed over; --again trains anew."""
    shutil.copytree(whole, tmp_path / "place")
    changed = recipes_in(tmp_path, RECIPE.replace("epochs = 5", "epochs = 1"))
    line = arguments(learners, changed, tmp_path / "place")

    assert main(line) == 1
    assert "another recipe" in " ".join(capfd.readouterr().err.split())
    assert figures(tmp_path / "place") == figures(whole)
    assert main([*line, "--again"]) == 0
    again = figures(tmp_path / "place")
    assert again["epochs"] == 1
    capfd.readouterr()
    assert main(line) == 0
    assert "kept" in capfd.readouterr().err
    assert figures(tmp_path / "place") == again


@pytest.mark.slow
def test_a_recipe_may_start_from_another_of_the_same_fold(learners, tmp_path):
    """The other is trained first, on the same users."""
    one = RECIPE.replace("epochs = 5", "epochs = 1")
    recipes = recipes_in(tmp_path, one)
    (recipes / "statics2011" / "later.toml").write_text('warm_start = "tiny"\n' + one)

    assert main(arguments(learners, recipes, tmp_path, model="later")) == 0

    folder = tmp_path / "runs" / "statics2011"
    first, later = (
        json.loads((folder / model / "fold-5" / "config.json").read_text())
        for model in ("tiny", "later")
    )
    assert first["data"] == later["data"]
    assert (first["warm_start"], later["warm_start"]) == (None, "../tiny/fold-5")


def test_a_run_is_measured_as_a_cell_if_it_is_of_that_fold(
    learners, recipes, whole, tmp_path, capfd
):
    """As the best served model is, which no single recipe trains."""
    shutil.copytree(whole / "runs", tmp_path / "runs")
    run = str(tmp_path / "runs" / "statics2011" / "tiny" / "fold-5")
    line = arguments(learners, recipes, tmp_path, "--of", run, model="ensemble")

    assert main(line) == 0
    assert figures(tmp_path, "ensemble")["auc"] == figures(whole)["auc"]
    assert "--folds 5 --of tiny/fold-5`" in (tmp_path / "page.md").read_text()
    line[line.index("5")] = "1"
    assert main(line) == 1
    assert "has train = [2, 3, 4]" in " ".join(capfd.readouterr().err.split())


def test_what_was_measured_is_named_from_the_working_directory_on(
    learners, recipes, whole, tmp_path, monkeypatch
):
    """The command in the table can be given again, in any checkout."""
    shutil.copytree(whole / "runs", tmp_path / "runs")
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    monkeypatch.chdir(tmp_path)
    run = Path("runs") / "statics2011" / "tiny" / "fold-5"

    assert main(arguments(learners, recipes, tmp_path, "--of", str(run), model="ensemble")) == 0
    assert figures(tmp_path, "ensemble")["of"] == str(run)


@pytest.mark.parametrize("model", ["global_mean", "logistic_counts"])
def test_a_baseline_fills_its_cell_by_the_same_command(learners, recipes, tmp_path, model):
    assert main(arguments(learners, recipes, tmp_path, model=model)) == 0

    found = figures(tmp_path, model)
    assert found["answers"] == found["every_answers"] - found["users"] == 12 * 29
    assert 0.4 < found["auc"] < 0.9


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("--model", "dkt_minus"), "with a recipe: tiny; baselines: global_mean"),
        (("--protocol", "assist2012"), "known: assist2009"),
        (("--folds", "7"), "no fold 7"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(
    learners, recipes, tmp_path, capsys, change, reason
):
    line = arguments(learners, recipes, tmp_path)
    line[line.index(change[0]) + 1] = change[1]

    assert main(line) == 1
    assert reason in capsys.readouterr().err


def test_a_lock_lives_as_long_as_the_child_that_was_given_it(tmp_path):
    """So a training whose command was killed is not joined by a second one."""
    path, out = tmp_path / "fold-1.lock", io.StringIO()
    with alone(path, Console(file=out)) as lock:
        child = subprocess.Popen(["sleep", "1"], pass_fds=(lock,))

    with child, alone(path, Console(file=out)):
        assert child.poll() is not None or child.wait(0.2) == 0

    assert "another process" in out.getvalue()
