"""What is drawn is what the evaluation left."""

from __future__ import annotations

import json

from models.evaluation.calibration import as_dict, fit
from models.evaluation.reliability_picture import main
from tests.models.evaluation.test_calibration import honest


def test_every_history_length_is_drawn_before_and_after(tmp_path):
    """The error is written in each panel; a bin of a few answers is left out."""
    content = as_dict(fit(*honest(1000)))
    content["reliability"] = {
        "before": {"all": [[0.3, 0.5, 900], [0.9, 0.1, 3]], "0": [[0.4, 0.5, 50]]},
        "after": {"all": [[0.5, 0.5, 900], [0.9, 0.1, 3]], "0": [[0.5, 0.5, 50]]},
    }
    content["ece"] = {"before": {"all": 0.2, "0": 0.1}, "after": {"all": 0.0125, "0": 0.0}}
    (tmp_path / "metrics.json").write_text(json.dumps({"calibration": content}))
    out = tmp_path / "picture.svg"

    assert main([str(out), str(tmp_path)]) == 0
    text = out.read_text()
    assert "all answers" in text
    assert "ECE 0.200 → 0.013" in text
    assert "ECE 0.100 → 0.000" in text


def test_what_was_not_calibrated_is_refused_by_name(tmp_path, capsys):
    (tmp_path / "metrics.json").write_text("{}")

    assert main([str(tmp_path / "out.svg"), str(tmp_path)]) == 1
    assert f"{tmp_path} was not calibrated" in capsys.readouterr().err
