"""Nothing is served that was not checked and run."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pytest

from app.engine.artifact import open_artifact
from app.engine.asked import Asked
from app.engine.scorer import OnnxScorer
from app.errors import ArtifactInvalid
from models.contract.artifact import sha256_of
from models.contract.interaction import FIRST, INTERACTION, UNSEEN, Query, key_of
from models.contract.window import collate, window_of
from tests.app.conftest import SHIPPED

MODELS = list(SHIPPED)


@pytest.fixture
def folder(tmp_path):
    """A copy of a good artifact, to be spoilt."""
    return shutil.copytree(SHIPPED["dkt"], tmp_path / "dkt" / SHIPPED["dkt"].name)


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


def golden(change):
    """Return what changes the golden cases by `change`."""

    def spoil(folder):
        with np.load(folder / "golden.npz") as file:
            cases = dict(file)
        change(cases)
        np.savez(folder / "golden.npz", **cases)
        resign(folder)

    return spoil


def damaged_golden(folder):
    """Whole as an archive, broken inside: zlib finds out, not zipfile."""
    path = folder / "golden.npz"
    data = bytearray(path.read_bytes())
    data[200:260] = b"\xff" * 60
    path.write_bytes(data)
    resign(folder)


def array_for_golden(folder):
    with (folder / "golden.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    resign(folder)


def manifest(*keys, value):
    """Return what puts `value` at this place of the manifest."""

    def change(content):
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return lambda folder: edit_manifest(folder, change)


def calibration(**changed):
    """Return what gives the manifest a calibration that is good but for what is changed."""
    good = {"knots": [0, 2], "scales": [1.0, 1.0], "shifts": [0.0, 0.0]}
    return manifest("calibration", value={**good, **changed})


def vocabulary(key, value):
    """Return what puts `value` in the vocabulary."""

    def spoil(folder):
        path = folder / "vocabulary.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
        resign(folder)

    return spoil


def graph(change):
    """Return what edits the sequence graph by `change`."""

    def spoil(folder):
        path = folder / "sequence.onnx"
        model = onnx.load(path)
        change(model.graph)
        onnx.save(model, path)
        resign(folder)

    return spoil


def after_p_correct(*nodes, constants=()):
    """Return an edit that puts nodes, which read `raw`, before the output p_correct."""

    def change(graph):
        for node in graph.node:
            node.output[:] = ["raw" if name == "p_correct" else name for name in node.output]
        graph.initializer.extend(constants)
        graph.node.extend(nodes)

    return change


def depend_on_the_batch(graph):
    """Half of everybody's probability is the batch's mean: no shape betrays it."""
    after_p_correct(
        onnx.helper.make_node("ReduceMean", ["raw"], ["mean"], keepdims=1),
        onnx.helper.make_node("Mean", ["raw", "mean"], ["p_correct"]),
    )(graph)


def freeze_inside(graph):
    """The file declares its axes dynamic and yet takes one length only."""
    seven = onnx.numpy_helper.from_array(np.array([-1, 7], np.int64), "seven")
    none = onnx.numpy_helper.from_array(np.array(0, np.float32), "none")
    after_p_correct(
        onnx.helper.make_node("Cast", ["response"], ["float"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("Reshape", ["float", "seven"], ["rows"]),
        onnx.helper.make_node("ReduceMax", ["rows"], ["most"], keepdims=0),
        onnx.helper.make_node("Mul", ["most", "none"], ["nothing"]),
        onnx.helper.make_node("Add", ["raw", "nothing"], ["p_correct"]),
        constants=[seven, none],
    )(graph)


def freeze_an_output(graph):
    """A constant of two rows: any batch comes out as two by broadcasting."""
    rows = onnx.numpy_helper.from_array(np.zeros(2, np.float32), "rows")
    after_p_correct(onnx.helper.make_node("Add", ["raw", "rows"], ["p_correct"]), constants=[rows])(
        graph
    )


def answer_twice(graph):
    """Twice as many rows as windows; no declaration says so."""
    after_p_correct(onnx.helper.make_node("Concat", ["raw", "raw"], ["p_correct"], axis=0))(graph)


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
        (lambda f: edit_manifest(f, lambda m: m.update(name="other")), "it names other/"),
        (lambda f: edit_manifest(f, lambda m: m.update(n_skills=3)), "manifest says"),
        (lambda f: edit_manifest(f, lambda m: m.update(format=9)), "format 9"),
        (lambda f: edit_manifest(f, lambda m: m["parity"].update(tolerance=1)), "tolerance"),
        (lambda f: edit_manifest(f, lambda m: m["files"].pop("golden.npz")), "no SHA-256"),
        (lambda f: (f / "manifest.json").write_text("[]"), "holds no JSON object"),
        (manifest("name", value=3), "name is of type int, not str"),
        (manifest("parity", value=[]), "parity is of type list"),
        (manifest("calibration", value=[]), "manifest.json: ManifestError"),
        (calibration(knots=[0, 2.5]), "knots (0, 2.5) are not all whole numbers"),
        (calibration(scales=[1.0, "1"]), "scales (1.0, '1') are not all finite numbers"),
        (calibration(scales=[1.0, -0.5]), "are not all above 0"),
        (calibration(shifts=[0.0]), "1 shifts, 2 knots"),
        (manifest("window", "length", value=2.5), "length is of type float, not int"),
        (manifest("window", "cut", value=0), "no windows can be cut"),
        (manifest("graphs", "sequence", "inputs", 1, "name", value=["a"]), "name is of type list"),
        (manifest("graphs", "sequence", "inputs", 1, "dtype", value="int32"), "is none of"),
        (manifest("graphs", "sequence", "outputs", value=[]), "has no output p_correct"),
        (
            lambda f: edit_manifest(f, lambda m: m["graphs"]["sequence"]["outputs"].pop()),
            "sequence.onnx: it has ['knowledge_state', 'p_correct']",
        ),
        (manifest("files", "../1/card.md", value=""), "../1/card.md is named in the manifest"),
        (vocabulary("question_skills", []), "vocabulary.json: ValueError"),
        (vocabulary("skill_sets", [[2, 10**6]]), "vocabulary.json: IndexError"),
        (damaged_golden, "golden.npz: it cannot be read"),
        (array_for_golden, "golden.npz: it cannot be read"),
        (golden(lambda c: c.clear()), "golden.npz: it holds no window"),
        (golden(lambda c: c.pop("0.p_correct")), "golden.npz: case 0 has no p_correct"),
        (golden(lambda c: c.update({k: c[k][:0] for k in c})), "of case 0 is int64 (0, 1, "),
        (golden(lambda c: c.update({"0.p_correct": np.array(["a"])})), "of case 0 is <U1"),
        (golden(lambda c: c.update({"0.p_correct": np.zeros(2, np.float32)})), "has shape (1,)"),
        (golden(lambda c: c["0.p_correct"].fill(np.nan)), "golden case 0"),
        (graph(depend_on_the_batch), "batched and alone"),
        (graph(freeze_inside), "it does not run on windows (1, 1)"),
        (graph(freeze_an_output), "axis batch of p_correct is frozen to 2"),
        (graph(answer_twice), "p_correct has shape (2,) for 1 windows"),
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
    """Alone, among longer ones, in another order, padded on the other side: to 1e-5."""
    artifact = open_artifact(SHIPPED[model], "cpu", 1)
    scorer, entry = artifact.scorer, artifact.manifest.graphs["sequence"]
    rng = np.random.default_rng(0)
    windows = []
    for n in (0, 1, 5, 60, 199, 300):
        rows = np.zeros(n, INTERACTION)
        rows["question_key"] = [key_of(rng.choice(artifact.vocabulary.question_ids)) for _ in rows]
        rows["response"] = rng.integers(0, 2, n)
        windows.append(asked_after(rows[-artifact.manifest.window.length + 1 :]))

    alone = [scorer([w])[0] for w in windows]
    companies = [
        scorer(windows),
        scorer(windows[::-1])[::-1],
        OnnxScorer(scorer.session, entry, "left", artifact.vocabulary)(windows),
        OnnxScorer(scorer.session, entry, "right", artifact.vocabulary)(windows),
    ]

    assert len({round(one.p_correct, 4) for one in alone}) == len(windows)
    for company in companies:
        for one, other in zip(alone, company, strict=True):
            np.testing.assert_allclose(numbers(other), numbers(one), rtol=0, atol=1e-5)


def asked_after(rows) -> Asked:
    """Return an unseen question with a whole history before it."""
    query = Query(UNSEEN, (UNSEEN,))
    return Asked(interactions=rows, first=0, start=0, seen=0, state=b"", query=query)


def numbers(score):
    """Return everything that a score says."""
    knowledge = [] if score.knowledge_state is None else [score.prior, *score.knowledge_state]
    return [score.p_correct, *knowledge]


@pytest.mark.parametrize("model", MODELS)
def test_a_knowledge_state_has_a_number_for_every_known_skill(model):
    """Each a probability; a model without one says so, and gives no prior either."""
    artifact = open_artifact(SHIPPED[model], "cpu", 1)
    empty = artifact.vocabulary.read(np.empty(0, INTERACTION))
    window = window_of(empty, Query(UNSEEN, (UNSEEN,)), length=10)
    [score] = artifact.scorer([asked_after(np.empty(0, INTERACTION))])

    if artifact.has_knowledge_state:
        [row] = artifact.scorer.run(collate([window]))["knowledge_state"]
        assert row.shape == (artifact.manifest.n_skills + FIRST - UNSEEN,)
        assert all(0 < p < 1 for p in row)
        assert numbers(score)[1:] == list(row)
        assert len(score.knowledge_state) == artifact.manifest.n_skills
    else:
        assert (score.knowledge_state, score.prior) == (None, None)
