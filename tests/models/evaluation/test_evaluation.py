"""When an evaluation fits a calibration, when it keeps one, and what it says of both."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from models.evaluation.__main__ import main
from models.evaluation.calibration import CALIBRATION
from models.evaluation.run import METRICS, WEIGHTS, open_run
from tests.export.conftest import make_run


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A tiny run, measured once."""
    run = make_run(tmp_path_factory.mktemp("evaluation"), "dkt")
    assert main([str(run), "--rounds", "2"]) == 0
    return run


@pytest.fixture
def run(measured, tmp_path):
    """A copy, to be changed."""
    return shutil.copytree(measured, tmp_path / "run")


def test_the_figures_are_of_calibrated_probabilities(run):
    """What ECE and bins were without it stands beside."""
    content = json.loads((run / METRICS).read_text())
    ece, bins = content["calibration"]["ece"], content["calibration"]["reliability"]

    assert content["calibration"]["fitted_on"]["split"] == "validation"
    assert ece["after"]["all"] == pytest.approx(content["all"]["ece"]["value"], abs=1e-5)
    assert ece["before"]["all"] != ece["after"]["all"]
    assert bins["after"]["all"] == content["reliability"]
    for when in ("before", "after"):
        assert sum(answers for _, _, answers in bins[when]["all"]) == content["all"]["answers"]
        assert bins[when].keys() == {"all", *content["by_history_length"]}


@pytest.mark.parametrize("part", [["--split", "validation"], ["--users", "2"]])
def test_a_part_is_measured_with_the_calibration_that_is_there(run, part, capsys):
    """Nothing is fitted anew, and nothing is written."""
    kept = json.loads((run / CALIBRATION).read_text())
    kept["shifts"] = [5.0] * len(kept["shifts"])
    (run / CALIBRATION).write_text(json.dumps(kept))
    before = {f.name: f.read_bytes() for f in run.iterdir()}

    assert main([str(run), *part, "--rounds", "2"]) == 0
    assert "ECE before and after calibration" in capsys.readouterr().out
    assert {f.name: f.read_bytes() for f in run.iterdir()} == before


def test_a_part_of_an_uncalibrated_run_is_the_network_s_own(run, tmp_path):
    (run / CALIBRATION).unlink()
    out = tmp_path / "out.json"

    assert main([str(run), "--split", "validation", "--rounds", "2", "--out", str(out)]) == 0
    assert "calibration" not in json.loads(out.read_text())
    assert not (run / CALIBRATION).exists()


def test_a_calibration_of_other_weights_is_not_used(run):
    """A run that was trained on since it was measured is another network."""
    assert not open_run(run).calibration.is_identity
    weights = load_file(run / WEIGHTS)
    save_file({name: tensor + 0.01 for name, tensor in weights.items()}, run / WEIGHTS)

    assert open_run(run).calibration.is_identity


def test_a_measured_run_is_calibrated_anew_and_the_same(run):
    """From the network's own probabilities, not from calibrated ones."""
    before = open_run(run).calibration
    assert main([str(run), "--rounds", "2"]) == 0

    np.testing.assert_array_equal(open_run(run).calibration.scales, before.scales)
