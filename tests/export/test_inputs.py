"""An artifact says what its training split was like, as far as that can still be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from export.republish import main
from models.contract.artifact import Manifest
from models.datasets.split import SplitConfig, open_split


def training(manifest: Manifest):
    source = SplitConfig.of(manifest.training["source"])
    return open_split(source, seed=manifest.training["seed"]).train


def test_the_inputs_are_those_of_the_training_split(exported):
    """Every answer of it once, in each input that the model reads."""
    _, folder = exported
    manifest = Manifest.load(folder)
    inputs, train = manifest.inputs, training(manifest)
    reads_lag = "lag_s" in {port.name for port in manifest.graphs["sequence"].inputs}

    assert inputs.answers == len(train) == manifest.training["splits"]["train"]["answers"]
    assert inputs.right == int(train.interactions["response"].sum())
    assert inputs.lengths[0] == len(train.users)
    assert sum(inputs.lengths) == len(train)
    assert sum(inputs.lags) == (len(train) if reads_lag else 0)
    assert inputs.unseen + sum(answers for _, answers in inputs.skills) == len(train)


def without_inputs(folder: Path, tmp_path: Path, **changes) -> Path:
    """The artifact as it was exported before there were any."""
    before = tmp_path / "before"
    before.mkdir()
    for path in folder.iterdir():
        (before / path.name).write_bytes(path.read_bytes())
    content = json.loads((folder / "manifest.json").read_text())
    del content["inputs"]
    content["training"] |= changes
    (before / "manifest.json").write_text(json.dumps(content))
    return before


def test_an_artifact_of_before_is_counted_without_its_run(exported, tmp_path):
    """It is the same but for its version, and what is said of the split."""
    _, folder = exported
    before = without_inputs(folder, tmp_path)
    out = tmp_path / folder.parent.name / "9"

    assert not Manifest.load(before).inputs.is_known
    assert main([str(before), str(out)]) == 0

    made, expected = Manifest.load(out), Manifest.load(folder)
    made.check_files(out)
    assert made.inputs == expected.inputs
    assert made.version == "9"


@pytest.mark.parametrize("change", ["gone", "grown"])
def test_a_split_that_is_another_now_is_not_counted(exported, tmp_path, capsys, change):
    """And why, is said; the artifact is published without."""
    _, folder = exported
    training = json.loads((folder / "manifest.json").read_text())["training"]
    if change == "gone":
        changes = {"source": {**training["source"], "set": str(tmp_path / "none.csv")}}
    else:
        splits = {**training["splits"], "train": {"users": 1, "answers": 1}}
        changes = {"splits": splits}
    before = without_inputs(folder, tmp_path, **changes)
    out = tmp_path / folder.parent.name / "9"

    assert main([str(before), str(out)]) == 0

    assert "drift will not be told" in capsys.readouterr().err
    assert not Manifest.load(out).inputs.is_known
