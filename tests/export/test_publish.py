"""An artifact appears only when it has been proved, whole."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from app.engine.artifact import open_artifact
from export import parity, publish
from export.__main__ import main
from models.contract.artifact import Manifest
from models.contract.interaction import UNKNOWN_MS, Query
from models.contract.window import INPUTS, History, collate, window_of
from models.datasets.encoded import encode
from models.evaluation.calibration import apply_to_users
from models.evaluation.predictions import tensors
from models.evaluation.run import open_run
from models.evaluation.subject import open_subject


def drawn(vocabulary, rng, lengths, side):
    """Windows of drawn answers, of these lengths."""
    windows = []
    for n in lengths:
        history = History(
            question=rng.integers(1, vocabulary.n_questions, n),
            skills=np.sort(rng.integers(1, vocabulary.n_skills, (n, 2)), axis=1)[:, ::-1].copy(),
            response=rng.integers(0, 2, n),
            asked_ms=np.cumsum(rng.integers(0, 10**7, n)),
            elapsed_s=rng.uniform(-1, 300, n).astype(np.float32).clip(-1),
        )
        query = Query(int(rng.integers(1, vocabulary.n_questions)), (2, 3), UNKNOWN_MS)
        windows.append(window_of(history, query, length=40))
    return collate(windows, side)


def test_the_artifact_is_what_its_manifest_says(exported):
    """To the byte; and the service opens it."""
    _, folder = exported
    manifest = Manifest.load(folder)
    manifest.check_files(folder)

    assert (manifest.name, manifest.version) == (folder.parent.name, "1")
    assert {f.name for f in folder.iterdir()} - {"manifest.json"} == set(manifest.files)
    assert manifest.metrics["all"]["auc"]["low"] <= manifest.metrics["all"]["auc"]["value"]
    assert open_artifact(folder, "cpu", 1).manifest == manifest


def test_batch_and_sequence_are_dynamic_in_every_graph(exported):
    """In the file itself, not only in what is said of it."""
    _, folder = exported
    manifest = Manifest.load(folder)
    assert ("step" in manifest.graphs) == (manifest.network == "dkt")
    for graph in manifest.graphs.values():
        for node in onnx.load(folder / graph.file).graph.input:
            axes = [d.dim_param for d in node.type.tensor_type.shape.dim]
            port = next(p for p in graph.inputs if p.name == node.name)
            for axis, declared in zip(axes, port.axes, strict=True):
                assert not isinstance(declared, str) or axis == declared


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_graph_says_what_the_network_says(exported, side):
    """To 1e-5, calibrated, on batches it was never shown, at sizes it was not traced with."""
    run, folder = exported
    trained = open_run(run)
    assert not trained.calibration.is_identity
    session = onnxruntime.InferenceSession(folder / "sequence.onnx")
    rng = np.random.default_rng(11)
    for lengths in ([0], [39, 0, 17], [1, 2, 3, 5, 8, 13, 21], [39] * 33):
        batch = drawn(trained.vocabulary, rng, lengths, side)
        with torch.inference_mode():
            p = torch.sigmoid(trained.network(*tensors(batch))).numpy()
        expected = trained.calibration.apply_to_p(p, np.array(lengths))
        names = [i.name for i in session.get_inputs()]
        found = session.run(["p_correct"], {n: batch[n] for n in names})[0]

        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_steps_folded_over_a_history_give_the_sequence(exported):
    """Where a model has a state."""
    run, folder = exported
    if "step" not in Manifest.load(folder).graphs:
        assert not (folder / "step.onnx").exists()
        return
    trained = open_run(run)
    sequence = onnxruntime.InferenceSession(folder / "sequence.onnx")
    step = onnxruntime.InferenceSession(folder / "step.onnx")
    batch = drawn(trained.vocabulary, np.random.default_rng(3), [25, 25], "right")
    state = np.repeat(np.load(folder / "start.npy")[None], 2, axis=0)
    for place in range(25):
        row = {n: batch[n][:, place] for n in INPUTS if n != "mask"}
        row |= {"state": state, "answers": np.full(2, place + 1)}
        state, knowledge = step.run(None, {i.name: row[i.name] for i in step.get_inputs()})

    names = [i.name for i in sequence.get_inputs()]
    expected = sequence.run(["knowledge_state"], {n: batch[n] for n in names})[0]
    np.testing.assert_allclose(knowledge, expected, atol=1e-5)


def test_the_card_is_for_people(exported):
    """It names the data, the figures and their intervals."""
    run, folder = exported
    text = (folder / "card.md").read_text()
    auc = json.loads((run / "metrics.json").read_text())["all"]["auc"]["value"]

    assert text.startswith(f"# {folder.parent.name}")
    assert f"{auc:.4f}" in text or f"{auc:.3f}" in text


def test_a_version_is_never_written_over(exported, capsys):
    """A server may have it open."""
    run, folder = exported
    before = (folder / "manifest.json").read_bytes()

    assert main([str(run), str(folder)]) != 0
    assert "is there already" in capsys.readouterr().err
    assert (folder / "manifest.json").read_bytes() == before


def test_the_manifest_and_the_card_say_what_calibration_changed(exported):
    """The map itself, what it was fitted on, and the error before and after."""
    run, folder = exported
    calibration = Manifest.load(folder).calibration

    assert calibration.knots == open_run(run).calibration.knots
    assert calibration.fitted_on["split"] == "validation"
    assert calibration.ece["after"].keys() == calibration.ece["before"].keys() >= {"all", "0"}
    assert f"{calibration.ece['before']['all']:.4f}" in (folder / "card.md").read_text()


def test_an_artifact_s_probabilities_are_the_run_s_calibrated_ones(exported):
    """What is measured after calibration is what is served: for every answer of the test users."""
    run, folder = map(open_subject, exported)
    users = encode(run.split().test, run.vocabulary)
    calibrated = apply_to_users(run.run.calibration, users, run.predict(users), run.window)

    for served, measured in zip(folder.predict(users), calibrated, strict=True):
        np.testing.assert_allclose(served, measured, atol=1e-5)


def test_an_uncalibrated_run_exports_the_network_s_own_numbers(exported, tmp_path):
    """Also where a graph has an input, `answers`, that it then does not read."""
    if "step" not in Manifest.load(exported[1]).graphs:
        return
    run = shutil.copytree(exported[0], tmp_path / "run")
    (run / "calibration.json").unlink()
    measured = json.loads((run / "metrics.json").read_text())
    measured.pop("calibration")
    (run / "metrics.json").write_text(json.dumps(measured))
    trained = open_run(run)

    manifest = publish.publish(run, tmp_path / "m" / "1", say=lambda _: None)

    session = onnxruntime.InferenceSession(tmp_path / "m" / "1" / "sequence.onnx")
    batch = drawn(trained.vocabulary, np.random.default_rng(5), [9, 0], "right")
    with torch.inference_mode():
        expected = torch.sigmoid(trained.network(*tensors(batch))).numpy()
    found = session.run(["p_correct"], {i.name: batch[i.name] for i in session.get_inputs()})[0]
    assert manifest.calibration.is_identity
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_figures_of_another_calibration_are_refused(exported, tmp_path, capsys):
    """The card would tell of a model that is not in the folder."""
    run = shutil.copytree(exported[0], tmp_path / "run")
    (run / "calibration.json").unlink()

    assert main([str(run), str(tmp_path / "m" / "1")]) != 0
    assert "measured with another calibration" in capsys.readouterr().err
    assert not (tmp_path / "m" / "1").exists()


def test_a_run_that_was_not_measured_is_refused(exported, tmp_path, capsys):
    """With the command that measures it."""
    copy = shutil.copytree(exported[0], tmp_path / "run")
    (copy / "metrics.json").unlink()

    assert main([str(copy), str(tmp_path / "m" / "1")]) != 0
    assert "python -m models.evaluation" in capsys.readouterr().err
    assert not (tmp_path / "m" / "1").exists()


@pytest.mark.parametrize("fault", ["another network's graph", "a frozen axis", "no graph"])
def test_what_fails_its_proof_leaves_nothing_behind(exported, tmp_path, monkeypatch, fault):
    """Not the folder, and not the stage it was made on."""
    run, folder = exported

    def export(_run, name, path):
        if fault == "no graph":
            raise publish.ExportFailed("the exporter gave up")
        graph = onnx.load(folder / path.name)
        if fault == "a frozen axis":
            for node in graph.graph.input:
                if len(node.type.tensor_type.shape.dim) > 1:
                    node.type.tensor_type.shape.dim[1].dim_value = 7
        else:
            last = graph.graph.initializer[-1]
            for tensor in graph.graph.initializer:
                if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2:
                    last = tensor
            values = onnx.numpy_helper.to_array(last) * np.float32(1.5) + np.float32(0.1)
            last.CopyFrom(onnx.numpy_helper.from_array(values, last.name))
        onnx.save(graph, path)

    monkeypatch.setattr(publish, "export_apart", export)
    out = tmp_path / "model" / "1"
    with pytest.raises((parity.ParityFailed, publish.ExportFailed)):
        publish.publish(run, out, say=lambda _: None)

    assert list(out.parent.iterdir()) == []
