"""A training that cannot be done is refused in one line, and leaves nothing behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from models.contract.vocabulary import Vocabulary
from models.datasets.simulator import simulate
from models.training.__main__ import main
from models.training.asked_for import network_for
from models.training.config import TrainingConfig
from tests.refused import last_words

CONFIGS = Path(__file__).parents[3] / "models" / "training" / "configs"
SMALL = """
name = "a"
network = "{network}"
[data]
set = "{log}"
[window]
length = 40
cut = 20
[fit]
epochs = 1
stretch = 40
threads = 1
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a log, a configuration for each of some networks, and an ensemble's."""
    folder = tmp_path_factory.mktemp("refusals")
    log = folder / "log.csv"
    simulate(users=20, answers=6, questions=5, skills=2, seed=0).frame.write_csv(log)
    for network in ("bkt", "dkt", "last_query", "saint_plus", "sakt"):
        (folder / f"{network}.toml").write_text(SMALL.format(network=network, log=log))
    lost = '[[members]]\nconfig = "lost.toml"\n'
    (folder / "ensemble.toml").write_text(SMALL.format(network="ensemble", log=log) + lost)
    return folder


@pytest.mark.parametrize(
    ("network", "change", "said"),
    [
        ("dkt", "nets=1", "nets"),
        ("dkt", "name='..'", "name = '..'"),
        ("dkt", "name='../../x'", "name = '../../x'"),
        ("dkt", "name=''", "name = ''"),
        ("dkt", "network=dtk", "'dtk'"),
        ("dkt", "network=3", "network = 3: must be a text"),
        ("dkt", "seed=x", "seed = 'x': must be a whole number"),
        ("dkt", "seed=-1", "seed = -1"),
        ("dkt", "data=3", "data must be a table"),
        ("dkt", "data.set=3", "data.set = 3"),
        ("dkt", "data.set=nowhere", "'nowhere'"),
        ("dkt", "data.train=3", "data.train = 3: must be a list, each of it a whole number"),
        ("dkt", "data.train=['1']", "data.train = ['1']"),
        ("dkt", "data.folds='folds.csv'", "data.folds = 'folds.csv'"),
        ("dkt", "window.length=9.5", "window.length = 9.5: must be a whole number"),
        ("dkt", "window.length='9'", "window.length = '9'"),
        ("dkt", "window.length=-3", "window.length = -3"),
        ("dkt", "window.cut=0", "window.cut = 0"),
        ("dkt", "window.cut=500", "window.cut = 500: must be from 1 to window.length, 40"),
        ("dkt", "window.side=up", "window.side = 'up'"),
        ("dkt", "fit.epochs=ten", "fit.epochs = 'ten'"),
        ("dkt", "fit.epochs=1.5", "fit.epochs = 1.5"),
        ("dkt", "fit.epochs=true", "fit.epochs = True"),
        ("dkt", "fit.lr=nan", "fit.lr = nan: must be a number"),
        ("dkt", "fit.warmup_steps=-5", "fit.warmup_steps = -5"),
        ("dkt", "fit.batch_places=2.5", "fit.batch_places = 2.5"),
        ("dkt", "fit.start=-1.0", "fit.start = -1.0"),
        ("dkt", "fit.reconstruct=-1", "fit.reconstruct = -1"),
        ("dkt", "fit.unseen=1", "fit.unseen = 1"),
        ("dkt", "fit.threads=-1", "fit.threads = -1"),
        ("dkt", "model.hiden=8", "hiden"),
        ("dkt", "model.hidden=x", "model.hidden = 'x': must be a whole number"),
        ("dkt", "model.hidden=0", "model.hidden = 0"),
        ("dkt", "model.dropout=1.5", "model.dropout = 1.5"),
        ("dkt", "model.lag=sometimes", "model.lag = 'sometimes': must be one of none, categorical"),
        ("dkt", "model.question=1", "model.question = 1: must be true or false"),
        ("dkt", "model.n_skills=5", "model.n_skills"),
        ("last_query", "model.residual=all", "model.residual = 'all': must be one of broadcast"),
        ("last_query", "model.norm=batch", "model.norm = 'batch'"),
        ("last_query", "model.heads=5", "5 heads"),
        ("sakt", "model.inputs=all", "model.inputs = 'all'"),
        ("saint_plus", "model.length=30", "window.length = 40: at most the positions"),
        ("saint_plus", "fit.stretch=300", "fit.stretch = 300: at most the positions"),
        ("bkt", "model.max_guess=2.0", "max_guess 2.0"),
        ("bkt", "model.length=30", "window.length = 40"),
        ("dkt", "warm_start=lost", "lost/weights.safetensors"),
        ("dkt", "members=3", "members = 3"),
        ("ensemble", "fit.epochs=1", "lost.toml cannot be read"),
        ("ensemble", "members=[{config=3}]", "config = 3"),
    ],
)
def test_what_a_configuration_cannot_mean_is_refused(
    place, tmp_path, capsys, network, change, said
):
    """The key, the value, and where it helps what would do; before anything is written."""
    arguments = [str(place / f"{network}.toml"), "--runs", str(tmp_path), "--set", change]

    assert said in last_words(main, arguments, capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--threads", "0"], "0: must be at least 1"),
        (["--threads", "-1"], "-1"),
        (["--threads", "two"], "'two'"),
        (["--name", "../x"], "'../x'"),
        (["--seed", "-1"], "seed = -1"),
        (["--data", "nowhere"], "--data nowhere"),
        (["--train", "1"], "data.folds is needed"),
    ],
)
def test_what_a_command_line_cannot_mean_is_refused(place, tmp_path, capsys, arguments, said):
    """As what stands in a file."""
    command = [str(place / "dkt.toml"), "--runs", str(tmp_path), *arguments]

    assert said in last_words(main, command, capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_configuration_is_named(tmp_path, capsys):
    """Absent, no TOML, no text."""
    (tmp_path / "no.toml").write_text("name=")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")

    for name in ("lost.toml", "no.toml", "bytes.toml"):
        assert name in last_words(main, [str(tmp_path / name)], capsys)


def test_damaged_progress_is_named(place, tmp_path, capsys):
    """With what to do."""
    command = [str(place / "dkt.toml"), "--runs", str(tmp_path)]
    assert main(command) == 0
    (tmp_path / "a" / "progress.pt").write_bytes(b"half of it")
    capsys.readouterr()

    assert "progress.pt is damaged" in last_words(main, command, capsys)


def test_weights_that_do_not_fit_are_not_started_from(place, tmp_path, capsys):
    """Of another width, or cut off."""
    command = [str(place / "dkt.toml"), "--runs", str(tmp_path)]
    assert main([*command, "--name", "one"]) == 0
    shutil.copytree(tmp_path / "one", tmp_path / "cut")
    weights = tmp_path / "cut" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    capsys.readouterr()

    for start, width in (("one", 16), ("cut", 128)):
        words = last_words(
            main, [*command, "--warm-start", start, "--set", f"model.hidden={width}"], capsys
        )
        assert f"{start}/weights.safetensors is damaged or of another network" in words
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    "recipe", sorted(CONFIGS.glob("*/*.toml")), ids=lambda p: f"{p.parent.name}/{p.stem}"
)
def test_every_recipe_that_is_shipped_goes_together(recipe):
    """Its options are known and in bounds, and its network has positions for its windows."""
    config = TrainingConfig.load(recipe)
    vocabulary = Vocabulary(("q",), ("s",), (("s",),), (), {})

    assert network_for(config, vocabulary) is not None
