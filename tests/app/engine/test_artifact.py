"""Nothing is served that was not checked and run."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pytest

from app.engine.artifact import open_artifact
from app.engine.engine import newest_versions, open_engine
from app.errors import ArtifactInvalid
from app.settings import Settings
from models.contract.artifact import sha256_of
from models.contract.interaction import Query
from models.contract.vocabulary import UNSEEN
from models.contract.window import window_of
from tests.app.conftest import ARTIFACTS

MODELS = ["dkt", "last_query", "saint_plus"]


@pytest.fixture
def folder(tmp_path):
    """A copy of a good artifact, to be spoilt."""
    return shutil.copytree(ARTIFACTS / "dkt" / "1", tmp_path / "dkt" / "1")


def edit_manifest(folder, change):
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def resign(folder):
    """Write the right hash of every file: what is wrong now is wrong in earnest."""
    edit_manifest(folder, lambda m: m.update(files={f: sha256_of(folder / f) for f in m["files"]}))


def truncate(folder):
    path = folder / "sequence.onnx"
    path.write_bytes(path.read_bytes()[:1000])


def flip(folder):
    path = folder / "sequence.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def unreadable(folder):
    truncate(folder)
    resign(folder)


def freeze(folder):
    path = folder / "sequence.onnx"
    graph = onnx.load(path)
    graph.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 16
    onnx.save(graph, path)
    resign(folder)


def other_vocabulary(folder):
    path = folder / "vocabulary.json"
    content = json.loads(path.read_text())
    content["question_ids"][0], content["question_ids"][1] = content["question_ids"][1::-1]
    path.write_text(json.dumps(content))
    resign(folder)


def other_golden(folder):
    with np.load(folder / "golden.npz") as file:
        cases = dict(file)
    cases["0.p_correct"] = cases["0.p_correct"] + np.float32(0.001)
    np.savez(folder / "golden.npz", **cases)
    resign(folder)


def other_weights(folder):
    path = folder / "sequence.onnx"
    graph = onnx.load(path)
    for tensor in graph.graph.initializer:
        if "read_out" in tensor.name and "bias" in tensor.name:
            values = onnx.numpy_helper.to_array(tensor) + np.float32("nan")
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(graph, path)
    resign(folder)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (truncate, "sequence.onnx has SHA-256"),
        (flip, "sequence.onnx has SHA-256"),
        (unreadable, "sequence.onnx: ONNX Runtime cannot open it"),
        (freeze, "frozen to 16"),
        (other_vocabulary, "vocabulary.json: its fingerprint"),
        (other_golden, "golden case 0"),
        (other_weights, "not finite"),
        (lambda f: (f / "golden.npz").unlink(), "golden.npz is named in the manifest"),
        (lambda f: (f / "manifest.json").unlink(), "no artifact"),
        (lambda f: (f / "manifest.json").write_text("{"), "is not JSON"),
        (lambda f: edit_manifest(f, lambda m: m.update(name="other")), "it names other/1"),
        (lambda f: edit_manifest(f, lambda m: m.update(n_skills=3)), "manifest says"),
        (lambda f: edit_manifest(f, lambda m: m.update(format=9)), "format 9"),
        (lambda f: edit_manifest(f, lambda m: m["parity"].update(tolerance=1)), "tolerance"),
        (lambda f: edit_manifest(f, lambda m: m["files"].pop("golden.npz")), "no SHA-256"),
    ],
)
def test_a_spoilt_artifact_is_refused_with_file_and_reason(folder, spoil, said):
    """Before it has answered anybody."""
    spoil(folder)
    with pytest.raises(ArtifactInvalid) as caught:
        open_artifact(folder, "cpu", 1)

    assert said in str(caught.value)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("model", MODELS)
def test_a_window_gets_one_answer_in_any_company(model):
    """Alone, among longer ones, among others: to 1e-5."""
    artifact = open_artifact(ARTIFACTS / model / "1", "cpu", 1)
    rng = np.random.default_rng(0)
    rule, vocabulary = artifact.manifest.window, artifact.vocabulary
    windows = []
    for n in (0, 1, 5, 60, 199, 300):
        rows = np.zeros(n, vocabulary_rows())
        rows["question_key"] = rng.integers(1, 2**63, n)
        rows["response"] = rng.integers(0, 2, n)
        history = vocabulary.read(rows)
        windows.append(window_of(history, Query(UNSEEN, (UNSEEN,)), length=rule.length))

    together = artifact.scorer(windows)
    backwards = artifact.scorer(windows[::-1])[::-1]
    alone = [artifact.scorer([w])[0] for w in windows]

    for one, two, three in zip(together, backwards, alone, strict=True):
        assert abs(one.p_correct - three.p_correct) < 1e-5
        assert abs(two.p_correct - three.p_correct) < 1e-5


def vocabulary_rows():
    from models.contract.interaction import INTERACTION

    return INTERACTION


def test_ten_is_newer_than_nine(tmp_path):
    """And half-written folders are no versions."""
    for version in ("9", "10", "2"):
        (tmp_path / "dkt" / version).mkdir(parents=True)
        (tmp_path / "dkt" / version / "manifest.json").touch()
    (tmp_path / "dkt" / "11").mkdir()
    (tmp_path / "dkt" / ".12-x").mkdir()

    assert newest_versions(tmp_path) == [tmp_path / "dkt" / "10"]


@pytest.mark.parametrize("what", ["no folder", "empty folder"])
def test_no_model_is_refused(tmp_path, what):
    """With the command that makes one."""
    with pytest.raises(ArtifactInvalid):
        newest_versions(tmp_path / "none" if what == "no folder" else tmp_path)


@pytest.mark.anyio
async def test_one_spoilt_model_keeps_the_engine_from_opening(tmp_path, folder):
    """Nobody finds out by asking."""
    shutil.copytree(ARTIFACTS / "saint_plus", tmp_path / "saint_plus")
    truncate(folder)
    with pytest.raises(ArtifactInvalid, match="dkt"):
        async with open_engine(Settings(artifact_dir=tmp_path)):
            pass


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
