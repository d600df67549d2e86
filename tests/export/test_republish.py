"""An artifact of before is published anew: no notes in it, and not another bit in its answers."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from app.engine.artifact import open_artifact
from export import republish
from models.contract.artifact import Manifest, sha256_of
from tests.refused import last_words

NOTE = 'File "/somebody/s/machine/saint.py", line 261, in forward'


@pytest.fixture
def noted(exported, tmp_path) -> Path:
    """An artifact with notes in its graphs, each of which has its weights inside."""
    folder = tmp_path / exported[1].parent.name / "1"
    shutil.copytree(exported[1], folder)
    manifest = Manifest.load(folder)
    for graph in manifest.graphs.values():
        model = onnx.load(folder / graph.file)
        for part in (model, model.graph, *model.graph.node, *model.graph.input):
            part.metadata_props.add(key="stack_trace", value=NOTE)
            part.doc_string = NOTE
        onnx.save(model, folder / graph.file)
    (folder / "weights.bin").unlink()
    files = {name: sha256_of(folder / name) for name in manifest.files if name != "weights.bin"}
    dataclasses.replace(manifest, files=files).save(folder)
    return folder


def test_notes_are_left_out_and_all_else_is_kept(noted):
    """The next version answers as the one before, to the bit; its weights stand in it once."""
    out = noted.parent / "2"
    assert republish.main([str(noted), str(out)]) == 0

    before, after = Manifest.load(noted), Manifest.load(out)
    assert not any(NOTE.encode() in path.read_bytes() for path in out.iterdir())
    assert "weights.bin" in after.files
    assert dataclasses.replace(after, version="1", files=before.files) == before
    assert (out / "card.md").read_text().startswith(f"# {after.name}, version 2")
    assert open_artifact(out, "cpu", 1).manifest == after
    one, other = (onnxruntime.InferenceSession(f / "sequence.onnx") for f in (noted, out))
    with np.load(out / "golden.npz") as golden:
        inputs = {port.name: golden[f"0.{port.name}"] for port in one.get_inputs()}
    for expected, found in zip(one.run(None, inputs), other.run(None, inputs), strict=True):
        np.testing.assert_array_equal(expected, found)


def test_what_would_answer_otherwise_is_not_published(noted, monkeypatch, capsys):
    """Not by a bit; nothing is left behind."""

    def spoil(model):
        for tensor in model.graph.initializer:
            values = onnx.numpy_helper.to_array(tensor)
            if values.dtype == np.float32 and values.size > 1:
                other = np.nextafter(values, np.float32(np.inf))
                tensor.CopyFrom(onnx.numpy_helper.from_array(other, tensor.name))

    monkeypatch.setattr(republish, "drop_notes", spoil)
    said = last_words(republish.main, [str(noted), str(noted.parent / "2")], capsys)

    assert "does not answer as that of" in said
    assert [f.name for f in noted.parent.iterdir()] == ["1"]


def test_what_cannot_be_republished_is_refused_in_one_line(noted, capsys):
    """A version that is there, and an artifact that is not what its manifest says."""
    assert "is there already" in last_words(republish.main, [str(noted), str(noted)], capsys)

    (noted / "vocabulary.json").write_text("{}")
    said = last_words(republish.main, [str(noted), str(noted.parent / "2")], capsys)
    assert "SHA-256" in said
    assert [f.name for f in noted.parent.iterdir()] == ["1"]
