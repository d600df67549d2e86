"""After a correction predictions are those of a user whose history was right from the beginning."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest

from app.settings import Settings
from tests.app.conftest import ARTIFACTS, serving
from tests.app.store.conftest import redis_socket  # noqa: F401 - a fixture
from tests.app.test_kept_states import MODELS, Learner, agree, post


def test_a_correction_reaches_every_server_and_all_that_was_made(redis_socket):  # noqa: F811
    """States in the store and memories in two processes were warm, of every model."""
    rng = np.random.default_rng(5)
    settings = Settings(artifact_dir=ARTIFACTS, redis_url=f"unix://{redis_socket}")
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(settings)) for _ in range(2)]
        for count in (3, 40, 260):
            learner = Learner(rng, 4096)
            path = f"/users/{learner.user_id}/interactions"
            post(servers[0], path, {"interactions": learner.answered(count)})
            for turn in range(3):
                warm(servers, learner)
                number = int(rng.integers(max(0, count - 90), count))
                correct(servers[turn % 2], learner, number)
                for server in servers[turn % 2 - 1], servers[turn % 2]:
                    for model in MODELS:
                        check(server, learner, model)
                post(servers[1], path, {"interactions": learner.answered(1)})
                check(servers[0], learner, MODELS[turn])


def warm(servers, learner) -> None:
    """Let every server hold what every model makes of the user."""
    for server in servers:
        for model in MODELS:
            check(server, learner, model)


def correct(server, learner, number: int) -> None:
    """Correct an answer in the store and in what the test knows."""
    answer = learner.answers[number]
    answer["correct"] = not answer["correct"]
    answer["asked_ms"] = answer.get("asked_ms", 500_000) + 77_000_000
    change = {"correct": answer["correct"], "asked_ms": answer["asked_ms"]}
    done = server.patch(f"/users/{learner.user_id}/interactions/{number}", json=change)
    assert done.status_code == 200, done.text


def check(server, learner, model: str) -> None:
    """Compare a prediction from the store with one from the history itself."""
    ask = learner.ask(model)
    agree(post(server, "/predict", ask), post(server, "/predict", learner.inline(ask)))


@pytest.mark.parametrize("model", MODELS)
def test_a_correction_changes_a_prediction(client, model):
    """Or the test above would hold for a service that corrects nothing."""
    learner = Learner(np.random.default_rng(1), 4096)
    path = f"/users/{learner.user_id}/interactions"
    post(client, path, {"interactions": learner.answered(6)})
    ask = learner.ask(model)
    before = post(client, "/predict", ask)["p_correct"]
    correct(client, learner, 5)

    assert abs(post(client, "/predict", ask)["p_correct"] - before) > 1e-4


def test_an_inserted_answer_reaches_all_that_was_made(serve):
    """As a correction does."""
    client, learner = (
        serve(artifact_dir=ARTIFACTS, late_answers="insert"),
        Learner(np.random.default_rng(2), 4096),
    )
    path = f"/users/{learner.user_id}/interactions"
    given = [{**one, "asked_ms": 1_000_000 * n} for n, one in enumerate(learner.answered(30))]
    late = given.pop(12)
    post(client, path, {"interactions": given})
    learner.answers = given
    warm([client], learner)

    post(client, path, {"interactions": [late]})

    learner.answers = [*given[:12], late, *given[12:]]
    for model in MODELS:
        check(client, learner, model)
