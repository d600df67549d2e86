"""What is recalled from a memory is what the whole window gives."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from app.engine import recalling
from app.engine.artifact import open_artifact
from app.errors import ArtifactInvalid
from tests.app.conftest import SHIPPED
from tests.app.engine.test_artifact import edit_manifest, resign
from tests.app.engine.test_kept import asked, drawn

REMEMBERING = ["last_query", "saint_plus"]
SIZES = [0, 1, 2, 90, 40, 7, 1, 0, 30]


@pytest.fixture(scope="module", params=REMEMBERING)
def artifact(request):
    return open_artifact(SHIPPED[request.param], "cpu", 1)


def p_of(scores) -> list[float]:
    return [score.p_correct for score in scores]


def with_memory(rows, query, score):
    """Return the question again, of one whose memory is that of an earlier score."""
    seen = score.memory.seen
    return replace(asked(rows, query, seen=seen, whole=False), memory=score.memory)


@pytest.mark.parametrize("stacked", [1, 300_000, 10**9], ids=["one by one", "a few", "all"])
def test_what_was_remembered_in_parts_answers_as_whole_windows(artifact, monkeypatch, stacked):
    """Whatever was remembered before, however much is new, whoever shares the run."""
    monkeypatch.setattr(recalling, "_STACKED_BYTES", stacked)
    rng = np.random.default_rng(4)
    cases = [drawn(artifact, rng, n) for n in SIZES]
    seen = [int(rng.integers(0, len(rows) + 1)) for rows, _ in cases]
    before = artifact.kept([asked(r[:n], q) for (r, q), n in zip(cases, seen, strict=True)])

    found = artifact.kept([with_memory(*case, s) for case, s in zip(cases, before, strict=True)])

    expected = artifact.scorer([asked(*case) for case in cases])
    np.testing.assert_allclose(p_of(s.score for s in found), p_of(expected), atol=1e-5)
    assert [s.memory.seen for s in found] == SIZES
    assert [len(s.memory.rows) for s in found] == SIZES


def test_questions_put_to_one_user_at_a_time_stand_on_one_memory(artifact):
    """Beside others, in any order; nothing is remembered twice."""
    rng = np.random.default_rng(5)
    (rows, query), (other_rows, other_query) = (drawn(artifact, rng, n) for n in (30, 12))
    first = artifact.kept([asked(rows[:29], query), asked(other_rows, other_query)])
    queries = [drawn(artifact, rng, 0)[1] for _ in range(5)]
    asks = [with_memory(rows, q, first[0]) for q in queries]
    asks.insert(2, with_memory(other_rows, other_query, first[1]))

    found = artifact.kept(asks)

    whole = [asked(rows, q) for q in queries]
    whole.insert(2, asked(other_rows, other_query))
    expected = artifact.scorer(whole)
    np.testing.assert_allclose(p_of(s.score for s in found), p_of(expected), atol=1e-5)
    assert len({id(s.memory) for s in found}) == 2


def test_two_who_read_the_store_at_different_times_do_not_share(artifact):
    """They hold the same memory, but one has seen an answer more come in."""
    rng = np.random.default_rng(6)
    rows, query = drawn(artifact, rng, 20)
    (first,) = artifact.kept([asked(rows[:18], query)])

    found = artifact.kept([with_memory(rows[:19], query, first), with_memory(rows, query, first)])

    expected = artifact.scorer([asked(rows[:19], query), asked(rows, query)])
    np.testing.assert_allclose(p_of(s.score for s in found), p_of(expected), atol=1e-5)
    assert [s.memory.seen for s in found] == [19, 20]


def test_rows_that_are_no_numbers_harm_no_neighbour(artifact):
    """Padding is nothing, whatever stood there in memory before."""
    rng = np.random.default_rng(7)
    cases = [drawn(artifact, rng, n) for n in (60, 5)]
    scores = artifact.kept([asked(*case) for case in cases])
    rows = [s.memory.rows for s in scores]

    stacked = recalling._stacked([r.array for r in rows])

    assert stacked.shape[:2] == (2, 60)
    assert not stacked[1, 5:].any()


@pytest.mark.parametrize("file", ["remember.onnx", "recall.onnx", "start.npy", "weights.bin"])
def test_another_model_s_file_is_refused(tmp_path, file):
    """The name of the file is in the message, or that of the graph that reads it."""
    folder = tmp_path / "saint_plus" / SHIPPED["saint_plus"].name
    shutil.copytree(SHIPPED["saint_plus"], folder)
    shutil.copy(SHIPPED["last_query"] / file, folder / file)
    resign(folder)

    with pytest.raises(ArtifactInvalid, match="saint_plus"):
        open_artifact(folder, "cpu", 1)


def test_without_its_pair_a_recall_graph_is_not_used(tmp_path):
    """The model serves whole windows then."""
    folder = tmp_path / "saint_plus" / SHIPPED["saint_plus"].name
    shutil.copytree(SHIPPED["saint_plus"], folder)

    def without(manifest):
        del manifest["graphs"]["remember"]

    edit_manifest(folder, without)

    assert open_artifact(folder, "cpu", 1).kept is None
