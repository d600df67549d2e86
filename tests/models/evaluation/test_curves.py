"""The curves of trainings, from what they log."""

from __future__ import annotations

import json

import pytest

from models.evaluation.curves import curves_picture, epochs_of, main
from models.evaluation.run import LOG


def run(folder, aucs):
    """Write the log of a run whose epochs reached these."""
    folder.mkdir(parents=True)
    best = 0.0
    with (folder / LOG).open("w") as file:
        for number, auc in enumerate(aucs, 1):
            line = {"epoch": number, "loss": 1 / number, "validation_auc": auc, "best": auc > best}
            best = max(best, auc)
            file.write(json.dumps(line) + "\n")
    return folder


def test_every_run_is_a_line_and_its_best_epoch_a_point(tmp_path):
    """Folds of one cell share a colour and a name."""
    folders = [run(tmp_path / m / f"fold-{n}", [0.6, 0.7, 0.65]) for m in "ab" for n in (1, 2)]

    losses, aucs = curves_picture({f: epochs_of(f) for f in folders}).axes

    lines = [line for line in aucs.lines if len(line.get_xdata()) > 1]
    points = [line for line in aucs.lines if len(line.get_xdata()) == 1]
    assert [list(line.get_ydata()) for line in lines] == [[0.6, 0.7, 0.65]] * 4
    assert [(p.get_xdata()[0], p.get_ydata()[0]) for p in points] == [(2, 0.7)] * 4
    assert len({line.get_color() for line in lines}) == 2
    assert [text.get_text() for text in aucs.get_legend().get_texts()] == ["a", "b"]
    assert len(losses.lines) == 4


def test_a_picture_comes_out_and_what_is_no_run_is_named(tmp_path, capsys):
    """A log that is not there, empty, or no log."""
    good = run(tmp_path / "good", [0.6])
    assert main([str(tmp_path / "c.png"), str(good)]) == 0
    assert (tmp_path / "c.png").stat().st_size > 1000

    for name, content in (("empty", ""), ("broken", "{")):
        (tmp_path / name).mkdir()
        (tmp_path / name / LOG).write_text(content)
    for name in ("none", "empty", "broken"):
        assert main([str(tmp_path / "d.png"), str(good), str(tmp_path / name)]) == 1
        assert name in capsys.readouterr().err
    assert not (tmp_path / "d.png").exists()
    with pytest.raises(SystemExit):
        main([str(tmp_path / "d.txt"), str(good)])
