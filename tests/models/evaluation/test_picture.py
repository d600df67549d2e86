"""What is drawn is what the artifacts say."""

from __future__ import annotations

from models.evaluation.picture import main
from tests.app.conftest import SHIPPED


def test_a_picture_is_drawn_of_every_artifact(tmp_path, capsys):
    """Each model has a line with its name."""
    out = tmp_path / "auc.svg"
    folders = [str(SHIPPED[name]) for name in ("dkt", "last_query")]

    assert main([str(out), *folders]) == 0
    assert out.read_text().count("<path") > 20
    assert main([str(out), str(tmp_path)]) == 1
    assert "no artifact" in capsys.readouterr().err
