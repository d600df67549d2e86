"""An artifact that cannot be made is refused in one line, and nothing appears."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from export.__main__ import main
from models.contract.artifact import MANIFEST, Manifest, ManifestError
from models.evaluation.__main__ import main as evaluation
from tests.app.conftest import SHIPPED
from tests.export.conftest import make_run
from tests.refused import last_words


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Path:
    """A tiny run, measured."""
    run = make_run(tmp_path_factory.mktemp("refusals"), "dkt")
    assert evaluation([str(run), "--rounds", "2"]) == 0
    return run


@pytest.mark.parametrize("out", ["flat", "./1", "../1", "/1", "dkt/..", "", "."])
def test_an_artifact_has_a_model_and_a_version(measured, tmp_path, monkeypatch, capsys, out):
    """Both from its path: without either, callers could not name it."""
    monkeypatch.chdir(tmp_path)

    assert "must end in <model>/<version>" in last_words(main, [str(measured), out], capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("weights.safetensors", "half of it"),
        ("run.json", "{"),
        ("vocabulary.json", "{}"),
        ("metrics.json", "{"),
        ("metrics.json", '{"all": {"auc": {"low": NaN}}}'),
        ("metrics.json", '{"all": {}}'),
    ],
)
def test_a_damaged_file_of_a_run_is_named(measured, tmp_path, capsys, file, content):
    """Metrics with NaN are damaged: a manifest of them would be no JSON."""
    copy = shutil.copytree(measured, tmp_path / "run")
    (copy / file).write_text(content)
    if content == '{"all": {}}':
        (copy / "calibration.json").unlink()

    assert str(copy / file) in last_words(main, [str(copy), str(tmp_path / "dkt" / "1")], capsys)
    assert not (tmp_path / "dkt").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [({"name": ""}, "must not be empty"), ({"parity": float("nan")}, "NaN stands in it")],
)
def test_an_artifact_without_a_name_or_with_nan_is_not_opened(tmp_path, change, said):
    content = json.loads((SHIPPED["dkt"] / MANIFEST).read_text())
    (tmp_path / MANIFEST).write_text(json.dumps({**content, **change}))

    with pytest.raises(ManifestError, match=said):
        Manifest.load(tmp_path)
