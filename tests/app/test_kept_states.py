"""A prediction from a kept state is the one that a replay of the history gives, whatever happened.

An inline history goes through the sequence graph, a stored one through kept states: they must agree
after any appends, across two servers, restarts, lost and spoilt states, and deletions.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from uuid import uuid4

import numpy as np
import pytest
import redis

from app import pasts
from app.settings import Settings
from tests.app.conftest import ARTIFACTS, SHIPPED, serving
from tests.app.store.conftest import redis_socket  # noqa: F401 - a fixture

STORED = ["dkt", "dkt_asked"]
"""Models whose states are stored."""

MODELS = [*STORED, "last_query", "saint_plus"]
"""And those of which a process alone holds something."""


class Learner:
    """A user and, beside the store, all that the user answered."""

    def __init__(self, rng: np.random.Generator, keep: int) -> None:
        self.user_id = uuid4().hex
        self.rng = rng
        self.keep = keep
        self.answers: list[dict] = []
        self.clock_ms = 1_000_000

    def answered(self, count: int) -> list[dict]:
        """Return new answers, noted."""
        new = []
        for _ in range(count):
            self.clock_ms += int(self.rng.integers(0, 5_000_000))
            answer = {
                "question_id": str(self.rng.integers(0, 3300)),
                "correct": bool(self.rng.random() < 0.6),
                "elapsed_ms": int(self.rng.integers(0, 90_000)),
            }
            if self.rng.random() < 0.9:
                answer["asked_ms"] = self.clock_ms
            if self.rng.random() < 0.2:
                answer["skill_ids"] = [f"s{n}" for n in self.rng.integers(0, 4, 2)]
            new.append(answer)
        self.answers += new
        return new

    def ask(self, model: str) -> dict:
        """Return a question for the stored history."""
        return {
            "user_id": self.user_id,
            "question_id": str(self.rng.integers(0, 3300)),
            "asked_ms": self.clock_ms + 60_000,
            "model": model,
        }

    def inline(self, ask: dict) -> dict:
        """Return the same question with the history beside it."""
        return {**ask, "history": self.answers[-self.keep :]}


def agree(found: dict, expected: dict) -> None:
    """Raise unless two predictions are the same."""
    assert found["p_correct"] == pytest.approx(expected["p_correct"], abs=1e-5)
    assert found["knowledge_state"] == pytest.approx(expected["knowledge_state"], abs=1e-5)
    assert found["cold_start"] == expected["cold_start"]
    assert found["history_length"] == expected["history_length"]


def post(client, path: str, body: dict) -> dict:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("keep", [pytest.param(4096, marks=[pytest.mark.slow]), 30])
def test_a_kept_state_answers_as_a_replay_does(redis_socket, keep):  # noqa: F811
    """With random histories of up to some hundred answers, over the first cut of a window."""
    rng = np.random.default_rng(keep)
    settings = Settings(
        artifact_dir=ARTIFACTS, redis_url=f"unix://{redis_socket}", history_max_items=keep
    )
    forgetful = settings.model_copy(update={"memory_max_bytes": 0})
    store = redis.Redis(unix_socket_path=str(redis_socket))
    learners = [Learner(rng, keep) for _ in range(4)]
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(which)) for which in (settings, forgetful)]
        oldest = learners[0]
        body = {"interactions": oldest.answered(380)}
        post(servers[0], f"/users/{oldest.user_id}/interactions", body)
        for turn in range(100):
            learner = learners[int(rng.integers(len(learners)))]
            server = servers[int(rng.integers(2))]
            states = f"kt:s1:{{{learner.user_id}}}"
            what = rng.random()
            if what < 0.05 and learner is not oldest:
                server.delete(f"/users/{learner.user_id}")
                learner.answers.clear()
            elif what < 0.1:
                store.delete(states)
            elif what < 0.15:
                for field in store.hkeys(states):
                    store.hset(states, field, b"KTS1" + rng.bytes(20))
            elif what < 0.2:
                servers[1] = stack.enter_context(serving(forgetful))
            count = int(rng.choice([0, 1, 1, 1, 2, 10, 120]))
            if count:
                body = {"interactions": learner.answered(count)}
                post(server, f"/users/{learner.user_id}/interactions", body)
            ask = learner.ask(MODELS[turn % len(MODELS)])
            agree(post(server, "/predict", ask), post(server, "/predict", learner.inline(ask)))
        assert len(oldest.answers) > 400  # windows were cut
        asks = [learner.ask(MODELS[n % len(MODELS)]) for n in range(8) for learner in learners]
        for server in servers:
            together = post(server, "/predict/batch", {"items": asks})["items"]
            for ask, found in zip(asks, together, strict=True):
                learner = next(one for one in learners if one.user_id == ask["user_id"])
                agree(found, post(servers[0], "/predict", learner.inline(ask)))


def test_only_new_answers_are_folded(serve):
    """Once each, whoever asks how often; the metrics say so."""
    client = serve(artifact_dir=ARTIFACTS)
    learner = Learner(np.random.default_rng(0), 4096)
    path = f"/users/{learner.user_id}/interactions"
    post(client, path, {"interactions": learner.answered(50)})
    for _ in range(3):
        post(client, "/predict", learner.ask("dkt"))
    post(client, path, {"interactions": learner.answered(2)})
    items = [learner.ask("dkt") for _ in range(20)]
    found = post(client, "/predict/batch", {"items": items})["items"]
    post(client, "/predict", learner.ask("dkt"))

    lines = client.get("/metrics").text.splitlines()

    assert all("p_correct" in one for one in found)
    assert 'kt_answers_folded_total{model="dkt"} 52.0' in lines
    assert 'kt_states_found_total{found="absent",model="dkt"} 1.0' in lines
    assert 'kt_states_found_total{found="behind",model="dkt"} 1.0' in lines
    assert 'kt_states_found_total{found="current",model="dkt"} 3.0' in lines
    assert 'kt_states_kept_total{result="written"} 2.0' in lines


def test_a_state_survives_a_restart_and_goes_with_its_user(tmp_path):
    """It lies in the store, beside the history, and DELETE takes both."""
    settings = Settings(artifact_dir=ARTIFACTS, data_dir=tmp_path)
    learner = Learner(np.random.default_rng(1), 4096)
    with serving(settings) as client:
        body = {"interactions": learner.answered(5)}
        post(client, f"/users/{learner.user_id}/interactions", body)
        post(client, "/predict", learner.ask("dkt"))
    with serving(settings) as client:
        post(client, "/predict", learner.ask("dkt"))
        lines = client.get("/metrics").text.splitlines()
        client.delete(f"/users/{learner.user_id}")
        learner.answers.clear()
        ask = learner.ask("dkt")
        found = post(client, "/predict", ask)
        agree(found, post(client, "/predict", learner.inline(ask)))

    assert 'kt_states_found_total{found="current",model="dkt"} 1.0' in lines
    assert found["cold_start"] is True


def test_the_models_that_are_said_to_keep_states_do():
    """Both of the service's duties are among them: predicting by default, and the vector."""
    assert set(MODELS) <= SHIPPED.keys()
    assert all((SHIPPED[model] / "ask.onnx").is_file() for model in STORED)
    assert all((SHIPPED[m] / "recall.onnx").is_file() for m in MODELS if m not in STORED)


def test_a_spoilt_state_is_made_anew_and_costs_no_answer(redis_socket):  # noqa: F811
    """Here one whose numbers are no numbers; it is replaced, too."""
    settings = Settings(artifact_dir=ARTIFACTS, redis_url=f"unix://{redis_socket}")
    learner = Learner(np.random.default_rng(2), 4096)
    store = redis.Redis(unix_socket_path=str(redis_socket))
    states = f"kt:s1:{{{learner.user_id}}}"
    with serving(settings) as client:
        body = {"interactions": learner.answered(5)}
        post(client, f"/users/{learner.user_id}/interactions", body)
        for model in STORED:
            post(client, "/predict", learner.ask(model))
        fields = wait_for(lambda: store.hgetall(states), 2)
        for field, value in fields.items():
            spoilt = value[:24] + np.full((len(value) - 24) // 4, np.nan, np.float32).tobytes()
            store.hset(states, field, spoilt)
    with serving(settings) as client:  # holds nothing of the user yet
        for model in STORED:
            ask = learner.ask(model)
            agree(post(client, "/predict", ask), post(client, "/predict", learner.inline(ask)))
        again = wait_for(lambda: store.hgetall(states), 2, fields)

    assert again == fields


def wait_for(read, size: int, expected=None):
    """Read until there are so many, and the expected ones; writing states takes its own time."""
    until = time.monotonic() + 10
    while len(found := read()) < size or (expected is not None and found != expected):
        assert time.monotonic() < until, found
        time.sleep(0.01)
    return found


def test_skill_sets_that_no_vocabulary_knows_survive_a_full_memory(serve, monkeypatch):
    """However many callers fill it at the same time."""
    monkeypatch.setattr(pasts, "_SETS_BYTES", 2000)
    client = serve(artifact_dir=ARTIFACTS)
    learners = [Learner(np.random.default_rng(n), 4096) for n in range(12)]
    for number, learner in enumerate(learners):
        for answer in learner.answered(6):
            answer["skill_ids"] = [f"own {number}", str(1 + int(learner.rng.integers(50)))]
        body = {"interactions": learner.answers}
        post(client, f"/users/{learner.user_id}/interactions", body)
    asks = [learner.ask(MODELS[n % len(MODELS)]) for n, learner in enumerate(learners)]
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda ask: post(client, "/predict", ask), asks))

    for learner, ask, prediction in zip(learners, asks, found, strict=True):
        agree(prediction, post(client, "/predict", learner.inline(ask)))
        agree(post(client, "/predict", ask), prediction)


def test_nothing_is_held_of_who_is_forgotten(serve):
    """And the metrics say so."""
    client = serve(artifact_dir=ARTIFACTS)
    learner = Learner(np.random.default_rng(1), 4096)
    post(client, f"/users/{learner.user_id}/interactions", {"interactions": learner.answered(9)})
    post(client, "/predict", learner.ask("saint_plus"))
    held = client.get("/metrics").text.splitlines()

    client.delete(f"/users/{learner.user_id}")

    assert "kt_memory_bytes 0.0" not in held
    assert "kt_memory_bytes 0.0" in client.get("/metrics").text.splitlines()
