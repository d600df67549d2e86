"""A state and the answers after it give what the whole window gives."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from app.engine.artifact import open_artifact
from app.engine.asked import Asked, AskedMany
from app.engine.many import ManyScorer
from app.errors import ArtifactInvalid
from models.contract.interaction import INTERACTION, RIGHT, UNKNOWN_MS, Query, key_of
from models.contract.queries import Queries
from tests.app.conftest import SHIPPED
from tests.app.engine.test_artifact import edit_manifest, resign

KEEPING = ["dkt", "dkt_asked"]


@pytest.fixture(scope="module", params=KEEPING)
def artifact(request):
    return open_artifact(SHIPPED[request.param], "cpu", 1)


def drawn(artifact, rng, answers: int) -> tuple[np.ndarray, Query]:
    """Return a random history of so many answers and a random question."""
    vocabulary = artifact.vocabulary
    rows = np.zeros(answers, INTERACTION)
    ids = [*vocabulary.question_ids, "never seen"]
    rows["question_key"] = [key_of(ids[i]) for i in rng.integers(0, len(ids), answers)]
    rows["response"] = rng.integers(0, RIGHT + 1, answers)
    rows["asked_ms"] = np.cumsum(rng.integers(0, 10_000_000, answers))
    rows["asked_ms"][rng.random(answers) < 0.1] = UNKNOWN_MS
    rows["elapsed_ms"] = rng.integers(-1, 100_000, answers)
    skill_ids = [*vocabulary.skill_ids[:3], "never named"][: rng.integers(0, 4)]
    asked_ms = int(rows["asked_ms"].max(initial=0)) + 5000
    return rows, vocabulary.query(ids[rng.integers(len(ids))], skill_ids or None, asked_ms)


def asked(rows, query, *, seen: int = 0, state: bytes = b"", whole: bool = True) -> Asked:
    """Return the question with what is left once a state has seen the first `seen` of all rows."""
    first = 0 if whole else max(seen - 1, 0)
    return Asked(
        interactions=rows[first:], first=first, start=0, seen=seen, state=state, query=query
    )


def test_states_folded_in_parts_and_in_company_answer_as_whole_windows(artifact):
    """Whatever was folded before, however much is left, whoever is beside."""
    rng = np.random.default_rng(4)
    cases = [drawn(artifact, rng, n) for n in [0, 1, 2, 90, 40, 7, 1, 0, 30]]
    seen = [int(rng.integers(0, len(rows) + 1)) for rows, _ in cases]
    parts = [asked(rows[:n], query) for (rows, query), n in zip(cases, seen, strict=True)]
    states = [score.state.tobytes() for score in artifact.kept(parts)]

    found = artifact.kept(
        [
            asked(rows, query, seen=n, state=state if n else b"", whole=artifact.kept.reads_counts)
            for (rows, query), n, state in zip(cases, seen, states, strict=True)
        ]
    )

    expected = artifact.scorer([asked(rows, query) for rows, query in cases])
    for one, other in zip(found, expected, strict=True):
        assert one.score.p_correct == pytest.approx(other.p_correct, abs=1e-5)
        if other.knowledge_state is not None:
            np.testing.assert_allclose(
                one.score.knowledge_state, other.knowledge_state, rtol=0, atol=1e-5
            )
            assert one.score.prior == pytest.approx(other.prior, abs=1e-5)


def test_many_questions_at_once_are_each_of_them(artifact):
    """Any number a user, whatever is left to be folded, whoever stands beside."""
    rng, kept = np.random.default_rng(7), artifact.kept
    cases = [drawn(artifact, rng, n) for n in [0, 3, 1, 90, 40, 0, 7]]
    seen = [int(rng.integers(0, len(rows) + 1)) for rows, _ in cases]
    parts = [asked(rows[:n], query) for (rows, query), n in zip(cases, seen, strict=True)]
    states = [
        score.state.tobytes() if n else b"" for score, n in zip(kept(parts), seen, strict=True)
    ]
    pasts = [
        asked(rows, query, seen=n, state=state, whole=kept.reads_counts)
        for (rows, query), n, state in zip(cases, seen, states, strict=True)
    ]
    of_user = rng.integers(0, len(cases), 40)
    queries = [drawn(artifact, rng, 0)[1] for _ in of_user]

    found = ManyScorer(kept).scored(
        AskedMany(
            interactions=np.concatenate([p.interactions for p in pasts]).astype(INTERACTION),
            rows=np.array([len(p.interactions) for p in pasts]),
            first=np.array([p.first for p in pasts]),
            start=np.array([p.start for p in pasts]),
            seen=np.array([p.seen for p in pasts]),
            has_state=np.array([bool(p.state) for p in pasts]),
            states=np.frombuffer(b"".join(states), np.uint8).reshape(-1, kept.start.nbytes),
            queries=Queries.of(queries),
            of_user=of_user,
        )
    )

    expected = kept([replace(pasts[u], query=q) for u, q in zip(of_user, queries, strict=True)])
    for n, one in enumerate(expected):
        assert found.p_correct[n] == pytest.approx(one.score.p_correct, abs=1e-6)
        np.testing.assert_allclose(found.state[of_user[n]], one.state, rtol=0, atol=1e-6)
        if one.score.knowledge_state is not None:
            np.testing.assert_allclose(
                found.knowledge_state[n], one.score.knowledge_state, rtol=0, atol=1e-6
            )


def test_a_key_names_the_very_files(artifact, tmp_path):
    """The same name and version with other weights must not read these states."""
    folder = SHIPPED[artifact.manifest.name]
    other = shutil.copytree(folder, tmp_path / folder.parent.name / folder.name)
    (other / "card.md").write_text("another card")
    resign(other)

    assert open_artifact(other, "cpu", 1).state_key != artifact.state_key
    assert artifact.state_key.startswith(f"{artifact.manifest.name}/{artifact.manifest.version}/")


def other_start(folder):
    start = np.load(folder / "start.npy")
    np.save(folder / "start.npy", start + np.float32(0.5))
    resign(folder)


def infinite_start(folder):
    np.save(folder / "start.npy", np.full_like(np.load(folder / "start.npy"), np.inf))
    resign(folder)


def wide_start(folder):
    np.save(folder / "start.npy", np.zeros((2, 1, 7), np.float32))
    resign(folder)


def unsigned_start(folder):
    edit_manifest(folder, lambda m: m["files"].pop("start.npy"))


def swapped(folder):
    shutil.copy(folder / "step.onnx", folder / "ask.onnx")
    resign(folder)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (other_start, "from a kept state"),
        (infinite_start, "start.npy: it is not finite"),
        (wide_start, "state"),
        (unsigned_start, "start.npy"),
        (swapped, "ask.onnx"),
    ],
)
def test_a_spoilt_state_is_not_served(tmp_path, spoil, said):
    """The file and the reason are named."""
    source = SHIPPED["dkt"]
    folder = shutil.copytree(source, tmp_path / "dkt" / source.name)
    spoil(folder)

    with pytest.raises(ArtifactInvalid, match=said):
        open_artifact(folder, "cpu", 1)
