"""An artifact appears only when it has been proved, whole."""

from __future__ import annotations

import functools
import json
import shutil
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.artifact import open_artifact
from export import parity, publish
from export.__main__ import main
from models.contract.artifact import Graph, Manifest, Port
from models.contract.interaction import UNKNOWN_MS, Query
from models.contract.window import INPUTS, History, collate, window_of
from models.datasets.encoded import encode
from models.evaluation.calibration import apply_to_users
from models.evaluation.predictions import tensors
from models.evaluation.run import open_run
from models.evaluation.subject import open_subject

BROADCAST = "last_query_broadcast"
"""Its places change with the query: nothing of them can be kept."""


@functools.cache
def session_of(path):
    return onnxruntime.InferenceSession(path)


def answers(session, batch):
    """All that a graph says of a batch, by name."""
    names = [o.name for o in session.get_outputs()]
    found = session.run(names, {i.name: batch[i.name] for i in session.get_inputs()})
    return dict(zip(names, found, strict=True))


def drawn_windows(vocabulary, rng, lengths):
    """Windows of drawn answers, behind histories of these lengths."""
    windows = []
    for n in lengths:
        question = rng.integers(1, vocabulary.n_questions, n)
        history = History(
            question=question,
            skills=np.sort(rng.integers(1, vocabulary.n_skills, (n, 2)), axis=1)[:, ::-1].copy(),
            response=rng.integers(0, 2, n),
            asked_ms=np.cumsum(rng.integers(0, 10**7, n)),
            elapsed_s=rng.uniform(-1, 300, n).astype(np.float32).clip(-1),
            difficulty=vocabulary.difficulty[question],
        )
        query = Query(int(rng.integers(1, vocabulary.n_questions)), (2, 3), UNKNOWN_MS)
        windows.append(window_of(history, query, length=40))
    return windows


def drawn(vocabulary, rng, lengths, side):
    """The same as a batch."""
    return collate(drawn_windows(vocabulary, rng, lengths), side)


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
    kept: set[str] = set()
    if manifest.network in ("bkt", "dkt", "dkt_asked"):
        kept = {"step", "ask"}
    elif manifest.network in ("saint", "saint_plus", "last_query") and manifest.name != BROADCAST:
        kept = {"remember", "recall"}
        if manifest.network != "last_query":
            kept.add("begin")
    assert set(manifest.graphs) == {"sequence"} | kept
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


LENGTHS = st.lists(st.integers(0, 39), min_size=1, max_size=5)


@settings(max_examples=15, deadline=None)
@given(lengths=LENGTHS, side=st.sampled_from(["right", "left"]), seed=st.integers(0, 99))
def test_padding_company_and_order_change_nothing_in_a_graph(exported, lengths, side, seed):
    """A window alone, unpadded, is told what it is told in any batch padded on either side."""
    run, folder = exported
    session = session_of(folder / "sequence.onnx")
    rng = np.random.default_rng(seed)
    windows = drawn_windows(open_run(run).vocabulary, rng, [*lengths, 0, max(lengths)])
    rng.shuffle(windows)

    together = answers(session, collate(windows, side))

    alone = [answers(session, collate([window])) for window in windows]
    for name, found in together.items():
        expected = np.concatenate([one[name] for one in alone])
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(lengths=LENGTHS, side=st.sampled_from(["right", "left"]))
def test_a_graph_reads_no_padding(exported, lengths, side):
    """Whatever stands there, of any input."""
    run, folder = exported
    session = session_of(folder / "sequence.onnx")
    vocabulary, rng = open_run(run).vocabulary, np.random.default_rng(len(lengths))
    longest = min(39, max(lengths) + 2)
    batch = drawn(vocabulary, rng, [*lengths, longest], side)
    other = drawn(vocabulary, rng, [longest] * (len(lengths) + 1), side)
    before = answers(session, batch)
    for name in set(batch) - {"mask"}:
        batch[name][~batch["mask"]] = other[name][~batch["mask"]]

    for name, found in answers(session, batch).items():
        np.testing.assert_allclose(found, before[name], rtol=0, atol=1e-6)


def test_a_row_that_is_all_padding_harms_no_other_in_a_graph(exported):
    """And what is said of it is a number."""
    run, folder = exported
    session = session_of(folder / "sequence.onnx")
    batch = drawn(open_run(run).vocabulary, np.random.default_rng(5), [7, 0], "right")
    empty = {k: np.concatenate([v, np.zeros_like(v[:1])]) for k, v in batch.items()}

    together = answers(session, empty)

    for name, expected in answers(session, batch).items():
        np.testing.assert_allclose(together[name][:2], expected, rtol=0, atol=1e-5)
        assert np.isfinite(together[name]).all()


def test_a_question_asked_of_folded_steps_is_answered_as_the_sequence_would(exported):
    """Where a model has a state."""
    run, folder = exported
    if "step" not in Manifest.load(folder).graphs:
        assert not (folder / "step.onnx").exists()
        return
    trained = open_run(run)
    sequence, step, ask = (
        onnxruntime.InferenceSession(folder / f"{name}.onnx")
        for name in ("sequence", "step", "ask")
    )
    batch = drawn(trained.vocabulary, np.random.default_rng(3), [25, 25], "right")
    state = np.repeat(np.load(folder / "start.npy")[None], 2, axis=0)
    for place in range(25):
        row = {n: batch[n][:, place] for n in INPUTS if n != "mask"} | {"state": state}
        (state,) = step.run(None, {i.name: row[i.name] for i in step.get_inputs()})
    query = {n: batch[n][:, 25] for n in INPUTS if n != "mask"}
    query |= {"state": state, "answers": np.full(2, 25)}

    found = ask.run(None, {i.name: query[i.name] for i in ask.get_inputs()})

    expected = sequence.run(None, {i.name: batch[i.name] for i in sequence.get_inputs()})
    assert [o.name for o in ask.get_outputs()] == [o.name for o in sequence.get_outputs()]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_question_put_to_what_is_kept_is_answered_as_the_sequence_would(exported):
    """Where a network keeps places: all at once, then one by one, and three questions together."""
    run, folder = exported
    if "remember" not in Manifest.load(folder).graphs:
        assert not (folder / "remember.onnx").exists()
        return
    sequence, remember, recall = (
        onnxruntime.InferenceSession(folder / f"{name}.onnx")
        for name in ("sequence", "remember", "recall")
    )
    batch = drawn(open_run(run).vocabulary, np.random.default_rng(3), [25, 25], "right")
    width = Manifest.load(folder).graphs["remember"].outputs[0].axes[2]
    carry = np.repeat(np.load(folder / "start.npy")[None], 2, axis=0)
    kept = {"memory": np.zeros((2, 0, width), np.float32), "kept": np.zeros(2, int), "carry": carry}
    for part in (slice(0, 20), slice(20, 21), slice(21, 25)):
        inputs = kept | {n: batch[n][:, part] for n in INPUTS if n != "mask"}
        rows, carry = remember.run(None, {i.name: inputs[i.name] for i in remember.get_inputs()})
        memory = np.concatenate([kept["memory"], rows], axis=1)
        kept = {"memory": memory, "kept": np.full(2, part.stop), "carry": carry}
    query = kept | {n: np.repeat(batch[n][:, 25:], 3, axis=1) for n in INPUTS if n != "mask"}

    (found,) = recall.run(None, {i.name: query[i.name] for i in recall.get_inputs()})

    (expected,) = sequence.run(None, {i.name: batch[i.name] for i in sequence.get_inputs()})
    np.testing.assert_allclose(found, expected[:, None].repeat(3, axis=1), atol=1e-5)


def test_a_graph_has_no_input_that_it_does_not_read(exported):
    """A server would have to make it."""
    _, folder = exported
    for graph in Manifest.load(folder).graphs.values():
        model = onnx.load(folder / graph.file).graph
        read = {name for node in model.node for name in node.input}
        assert [port.name for port in graph.inputs] == [v.name for v in model.input]
        assert {v.name for v in model.input} <= read


def test_a_graph_tells_nothing_of_where_it_was_made(exported):
    """The exporter notes of each node the file and line that it came from, on its machine."""
    _, folder = exported
    for graph in Manifest.load(folder).graphs.values():
        model = onnx.load(folder / graph.file, load_external_data=False)
        values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
        for part in (model, model.graph, *model.graph.node, *values, *model.functions):
            assert not part.metadata_props
            assert not part.doc_string
        assert b'.py", line' not in (folder / graph.file).read_bytes()


def test_the_card_is_for_people(exported):
    """It names the data, the figures and their intervals."""
    run, folder = exported
    text = (folder / "card.md").read_text()
    auc = json.loads((run / "metrics.json").read_text())["all"]["auc"]["value"]

    assert text.startswith(f"# {folder.parent.name}")
    assert f"{auc:.4f}" in text or f"{auc:.3f}" in text


def test_the_manifest_says_what_the_graph_reads(exported):
    """An input is not read exactly where the graph has none of its name."""
    manifest = Manifest.load(exported[1])
    read = {port.name for port in manifest.graphs["sequence"].inputs}

    for name, how in manifest.features.items():
        form = how if isinstance(how, str) else how["form"]
        assert (form == "not read") == (name not in read), name


@pytest.mark.parametrize(
    ("config", "read", "said"),
    [
        ({}, {"skills"}, {"question": "not read", "skills": "own, told", "lag_s": "not read"}),
        ({}, {"question", "lag_s"}, {"question": "own, told", "lag_s": "own, told"}),
        ({"question": False}, {"skills"}, {"question": "not read", "skills": "a set: mean"}),
        ({"inputs": "both", "lag": "continuous"}, {"lag_s"}, {"lag_s": "continuous"}),
        ({"lag": "none", "forgetting": True}, {"lag_s"}, {"lag_s": "own, told"}),
        ({"lag": "categorical"}, {"skills"}, {"lag_s": "not read"}),
    ],
)
def test_a_network_that_says_nothing_is_not_said_to_embed(config, read, said):
    """What is read is known of the graph; how, only where a shared option says it."""
    run = SimpleNamespace(network=SimpleNamespace(config=SimpleNamespace(**config)))
    ports = tuple(Port(name=name, dtype="float32", axes=()) for name in read)
    features = publish._features(run, Graph(file="sequence.onnx", inputs=ports, outputs=()))

    for name, words in said.items():
        how = features[name] if isinstance(features[name], str) else features[name]["form"]
        assert all(word in how for word in words.split(", ")), (name, how)


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


@pytest.mark.slow
def test_an_uncalibrated_run_exports_the_network_s_own_numbers(exported, tmp_path):
    """Its ask graph has no use for `answers`, and no such input. One network: exporting is slow."""
    if Manifest.load(exported[1]).network != "dkt":
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

    def export(_run, paths):
        if fault == "no graph":
            raise publish.ExportFailed("the exporter gave up")
        for path in paths.values():
            spoil(path)

    def spoil(path):
        graph = onnx.load(folder / path.name)
        if fault == "a frozen axis":
            for node in graph.graph.input:
                if len(node.type.tensor_type.shape.dim) > 1:
                    node.type.tensor_type.shape.dim[1].dim_value = 7
        else:
            for tensor in graph.graph.initializer:
                values = onnx.numpy_helper.to_array(tensor)
                if values.dtype.kind == "f" and values.size > 1:
                    other = (values * 1.5 + 0.1).astype(values.dtype)
                    tensor.CopyFrom(onnx.numpy_helper.from_array(other, tensor.name))
        onnx.save(graph, path)

    monkeypatch.setattr(publish, "export_apart", export)
    out = tmp_path / "model" / "1"
    with pytest.raises((parity.ParityFailed, publish.ExportFailed)):
        publish.publish(run, out, say=lambda _: None)

    assert list(out.parent.iterdir()) == []
