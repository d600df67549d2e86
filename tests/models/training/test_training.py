"""The loop: it learns, it repeats itself, it survives a kill, and its folder is enough."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models.datasets import open_split
from models.datasets.encoded import encode
from models.datasets.simulator import simulate
from models.evaluation.metrics import auc
from models.evaluation.predictions import predict
from models.evaluation.run import LOG, PROGRESS, WEIGHTS, RunInvalid, open_run
from models.nets import build
from models.training import checkpoint
from models.training.__main__ import main as training
from models.training.config import ConfigInvalid, TrainingConfig
from models.training.fitters import fit

NETWORKS = {
    "bkt": {"max_guess": 0.4, "max_slip": 0.3},
    "dkt": {"hidden": 16},
    "dkt_asked": {"width": 16, "hidden": 16},
    "last_query": {"width": 16, "hidden": 16},
    "saint": {"width": 16, "hidden": 16, "length": 40, "recency": True},
    "saint_plus": {"width": 16, "hidden": 16, "length": 40},
    "sakt": {"width": 16, "hidden": 16, "length": 40, "inputs": "both"},
}

SLOW = ("last_query", "saint", "saint_plus")
"""To learn takes these some ten seconds each."""


@pytest.fixture(scope="module")
def csv(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "learners.csv"
    simulate(users=250, answers=40, questions=12, skills=3, seed=1).frame.write_csv(path)
    return path


def config_for(csv: Path, network: str, **fit_options) -> TrainingConfig:
    options = {"epochs": 2, "lr": 0.01, "batch_places": 1024, "stretch": 40, "threads": 1}
    return TrainingConfig.of(
        {
            "name": network,
            "network": network,
            "data": {"set": str(csv)},
            "window": {"length": 40, "cut": 20},
            "model": NETWORKS[network],
            "fit": {**options, "windows": 500, "validation_rows": 200, **fit_options},
        }
    )


def run(config: TrainingConfig, folder: Path, stop_after: int | None = None) -> list:
    split = open_split(config.data, seed=config.seed)
    vocabulary = split.train.vocabulary()
    checkpoint.begin(folder, config, vocabulary, split.description)
    torch.manual_seed(config.seed)
    network = build(config.network, checkpoint.network_config(config, vocabulary))
    users = encode(split.train, vocabulary), encode(split.validation, vocabulary)
    records = []
    for record in fit(network, config, folder, *users):
        records.append(record)
        if record.epoch == stop_after:
            break
    return records


@pytest.mark.parametrize(
    "network",
    [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in NETWORKS],
)
def test_a_network_beats_the_mean_on_learners_it_never_saw(network, tmp_path):
    """The mean is over what the network reads of the question: of BKT and DKT, its skills alone."""
    log = tmp_path / "learners.csv"
    simulate(users=200, answers=50, seed=3).frame.write_csv(log)
    config = config_for(log, network, epochs=20, patience=6, windows=3000)
    run(config, tmp_path)
    trained = open_run(tmp_path)
    split = open_split(config.data, seed=config.seed)
    field = "skills_key" if network in ("bkt", "dkt") else "question_key"
    train, test = split.train.interactions, split.test.interactions
    mean = {key: train["response"][train[field] == key].mean() for key in np.unique(train[field])}

    p = np.concatenate(
        predict(trained.network, encode(split.test, trained.vocabulary), trained.window)
    )

    baseline = np.array([mean.get(key, 0.5) for key in test[field]])
    assert auc(test["response"], p) > auc(test["response"], baseline) + 0.01


@pytest.mark.parametrize("network", NETWORKS)
def test_a_run_taken_up_again_ends_as_one_that_was_not_stopped(csv, network, tmp_path):
    config = config_for(csv, network)
    whole = run(config, tmp_path / "whole")

    run(config, tmp_path / "halves", stop_after=1)
    rest = run(config, tmp_path / "halves")

    assert [r.epoch for r in rest] == [2]
    assert rest[-1].validation_auc == whole[-1].validation_auc
    one, other = (load_file(tmp_path / name / WEIGHTS) for name in ("whole", "halves"))
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=0)


def test_a_killed_command_goes_on_where_it_was(csv, tmp_path):
    """The process dies by SIGKILL in its second epoch; the same command ends the run."""
    config = tmp_path / "config.toml"
    config.write_text(
        f'name = "r"\nnetwork = "dkt"\n[data]\nset = "{csv}"\n[window]\nlength = 40\n'
        "[model]\nhidden = 16\n[fit]\nepochs = 4\npatience = 9\nbatch_places = 64\nthreads = 1\n"
    )
    command = [sys.executable, "-m", "models.training", str(config), "--runs", str(tmp_path)]
    log = tmp_path / "r" / LOG
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not (log.parent / PROGRESS).is_file():
            pass
        process.kill()
    before = len(log.read_text().splitlines())

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    epochs = [json.loads(line)["epoch"] for line in log.read_text().splitlines()]
    assert before < 4
    assert "going on" in " ".join(done.stderr.split())
    assert epochs == [1, 2, 3, 4]
    assert open_run(tmp_path / "r").kind == "dkt"


def test_shuffled_answers_teach_nothing(csv, tmp_path):
    """No path leads from an answer to its own prediction: AUC stays at a half."""
    config = config_for(csv, "saint_plus", epochs=3)
    split = open_split(config.data, seed=0)
    vocabulary = split.train.vocabulary()
    rng = np.random.default_rng(0)
    for part in (split.train, split.validation):
        part.interactions["response"] = rng.integers(0, 2, len(part))
    network = build("saint_plus", checkpoint.network_config(config, vocabulary))
    users = encode(split.train, vocabulary), encode(split.validation, vocabulary)

    checkpoint.begin(tmp_path, config, vocabulary, split.description)
    records = list(fit(network, config, tmp_path, *users))

    assert all(abs(r.validation_auc - 0.5) < 0.09 for r in records)


def test_a_folder_of_another_configuration_is_refused(csv, tmp_path):
    config = config_for(csv, "dkt")
    run(config, tmp_path, stop_after=1)

    with pytest.raises(RunInvalid, match="another configuration"):
        run(replace(config, seed=5), tmp_path)
    with pytest.raises(RunInvalid, match="no trained run"):
        open_run(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("network = 'dkt'\n[data]\nset='x.csv'\n[window]\nlength=9", "name is missing"),
        ("name='a'\nnetwork='dkt'\n[data]\nset='x.csv'\nfoo=1\n[window]\nlength=9", "data.foo"),
        ("name='a'\nnetwork='dkt'\n[data]\nset='x'\n[window]\nlength=9\n[fit]\nlr=-1", "above 0"),
        ("name='a'\ndata=3", "must be a table"),
        ("name=", "config.toml"),
    ],
)
def test_a_bad_configuration_is_refused_by_name(tmp_path, content, reason):
    path = tmp_path / "config.toml"
    path.write_text(content)

    with pytest.raises(ConfigInvalid, match=reason):
        TrainingConfig.load(path)


def test_members_are_trained_apart_and_answer_together(csv, tmp_path):
    """By their own files, on its data; killed between two, it goes on with the second."""
    member = config_for(csv, "dkt_asked", epochs=1)
    text = (
        f'name = "{{0}}"\nnetwork = "{{1}}"\n[data]\nset = "{csv}"\n'
        "[window]\nlength = 40\n[fit]\nepochs = 1\nstretch = 40\nthreads = 1\n"
    )
    options = "".join(f"{k} = {v}\n" for k, v in member.model.items())
    (tmp_path / "one.toml").write_text(text.format("one", "dkt_asked") + "[model]\n" + options)
    named = (
        '[[members]]\nconfig = "one.toml"\nseed = 0\n[[members]]\nconfig = "one.toml"\nseed = 1\n'
    )
    (tmp_path / "both.toml").write_text(text.format("both", "ensemble") + named)
    config = TrainingConfig.load(tmp_path / "both.toml")

    run(config, tmp_path / "killed", stop_after=1)
    records = run(config, tmp_path / "killed")
    run(config, tmp_path / "whole")

    assert len(records) == 2  # the second member's, and both together
    assert records[-1].validation_auc > 0.5
    first, second = (open_run(tmp_path / f).network for f in ("killed", "whole"))
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    a, b = first.members
    assert not torch.allclose(a.rise.weight, b.rise.weight)


def test_a_member_that_names_no_file_is_refused(tmp_path):
    (tmp_path / "e.toml").write_text('name = "e"\n[[members]]\nsed = 3\n')
    with pytest.raises(ConfigInvalid, match="must have a config"):
        TrainingConfig.load(tmp_path / "e.toml")


def test_single_options_are_changed_without_a_new_file(tmp_path):
    """As TOML; what is no option, or no TOML, is refused with its name."""
    path = tmp_path / "one.toml"
    path.write_text(
        'name = "one"\nnetwork = "dkt"\n[data]\nset = "log.csv"\n[window]\nlength = 40\n'
    )
    changed = TrainingConfig.load(path, ["fit.lr=0.5", 'name="two"', "model.forgetting=true"])
    word = TrainingConfig.load(path, ["model.lag=continuous"])

    assert (changed.fit.lr, changed.name, changed.model) == (0.5, "two", {"forgetting": True})
    assert word.model == {"lag": "continuous"}
    for change, said in (
        ("fit.lrr=1", "fit.lrr"),
        ("fit.lr", "section.key=value"),
        ("name=x y", "x y"),
        ("name=", "no TOML"),
    ):
        with pytest.raises(ConfigInvalid, match=said):
            TrainingConfig.load(path, [change])


def test_options_changed_one_by_one_are_all_changed(csv, tmp_path):
    """`--set a --set b` is `--set a b`."""
    config = tmp_path / "config.toml"
    config.write_text(
        f'name = "r"\nnetwork = "dkt"\n[data]\nset = "{csv}"\n[window]\nlength = 40\n'
        "[model]\nhidden = 8\n[fit]\nepochs = 1\nthreads = 1\n"
    )
    changes = ["--set", "fit.lr=0.02", "--set", "model.hidden=4", "fit.patience=2"]
    assert training([str(config), "--runs", str(tmp_path), *changes]) == 0

    made = json.loads((tmp_path / "r" / "config.json").read_text())
    assert (made["fit"]["lr"], made["model"]["hidden"], made["fit"]["patience"]) == (0.02, 4, 2)


def test_the_weight_of_first_answers_shapes_the_start_state(csv, tmp_path):
    """The learned start comes nearer to what newcomers do, and moves what a newcomer is told."""
    split = open_split(config_for(csv, "dkt").data, seed=0)
    newcomers = encode(split.train, split.train.vocabulary())
    right = np.array([user.history.response[0] for user in newcomers])
    losses = []
    for start in (0.0, 5.0):
        config = config_for(csv, "dkt", epochs=3, start=start)
        run(config, tmp_path / str(start))
        network = open_run(tmp_path / str(start)).network
        rows = [(u, 0) for u in range(len(newcomers))]
        found = predict(network, newcomers, config.window, rows=rows)
        p = np.array([f[0] for f in found])
        losses.append(-np.log(np.where(right, p, 1 - p)).mean())

    assert losses[1] < losses[0]
