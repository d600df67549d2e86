"""/models/{name}/quality: every prediction served is set beside the answer that came."""

from __future__ import annotations

import json
import shutil
from functools import partial

import numpy as np
import pytest
from redis import Redis
from sklearn.metrics import log_loss, roc_auc_score

from app.settings import Settings
from app.store.keys import FORECASTS, user_key
from models.contract.inputs import Inputs
from tests.app.api.test_operations import samples
from tests.app.api.test_overload import until
from tests.app.conftest import ARTIFACTS, SHIPPED, serving
from tests.app.store.conftest import redis_socket  # noqa: F401 - a fixture
from tests.app.test_rollout import NAME, OTHER, put_version

MINUTE_MS = 60_000


def post(client, path: str, body: dict) -> dict:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def item(user_id: str, number: int, **more) -> dict:
    """A question that is asked of a user in minute `number`."""
    question = {"question_id": str(1 + number % 50), "asked_ms": (1 + number) * MINUTE_MS}
    return {"user_id": user_id, **question, "knowledge_state": False, **more}


def record(client, asked: dict, correct: bool) -> None:
    answer = {k: asked[k] for k in ("question_id", "asked_ms")} | {"correct": correct}
    post(client, f"/users/{asked['user_id']}/interactions", {"interactions": [answer]})


def quality(client, model: str) -> dict:
    answer = client.get(f"/models/{model}/quality")
    assert answer.status_code == 200, answer.text
    return answer.json()


def learn(client, users: int, answers: int, model: str = NAME) -> list[tuple[float, bool]]:
    """Ask alone and in batches, answer, and return what was said and what was right."""
    rng, pairs = np.random.default_rng(users), []
    for number in range(answers):
        items = [item(f"u{user}", number, model=model) for user in range(users)]
        if number % 2:
            said = [post(client, "/predict", one) for one in items]
        else:
            said = post(client, "/predict/batch", {"items": items})["items"]
        for one, prediction in zip(items, said, strict=True):
            correct = bool(rng.random() < 0.7)
            record(client, one, correct)
            pairs.append((prediction["p_correct"], correct))
    return pairs


def agrees(told: dict, pairs: list[tuple[float, bool]]) -> None:
    p, right = np.array([p for p, _ in pairs]), np.array([right for _, right in pairs])
    assert told["answers"] == told["total"] == len(pairs)
    assert told["auc"] == pytest.approx(roc_auc_score(right, p), abs=1e-6)
    assert told["log_loss"] == pytest.approx(log_loss(right, p), abs=1e-6)
    assert told["correct_ratio"] == pytest.approx(right.mean())
    assert told["predicted_mean"] == pytest.approx(p.mean(), abs=1e-6)


def test_figures_are_those_of_what_was_served_and_answered(serve):
    """Asked alone or in a batch; in the metrics as well, and there still after a restart."""
    client = serve()
    pairs = learn(client, users=4, answers=10)
    post(client, "/predict", {"question_id": "7", "history": [], "knowledge_state": False})

    told = quality(client, NAME)
    shown = samples(client)
    labels = (("model", NAME), ("version", SHIPPED[NAME].name))

    agrees(told["current"], pairs)
    assert told["candidate"] is None
    assert (told["share"], told["within_s"], told["max_answers"]) == (1.0, 3600, 10_000)
    assert shown["kt_quality_auc"][labels] == pytest.approx(told["current"]["auc"])
    assert shown["kt_quality_answers"][labels] == len(pairs)
    expected = json.loads((SHIPPED[NAME] / "manifest.json").read_text())["metrics"]["all"]
    assert told["current"]["expected"]["auc"] == expected["auc"]["value"]
    assert shown["kt_outcomes_total"] == {
        (("result", "joined"),): len(pairs),
        (("result", "missed"),): 0,
    }


def test_what_was_said_before_a_stop_is_compared_after_it(tmp_path):
    """The next server records the answer; nothing had been waited for."""
    settings = Settings(artifact_dir=ARTIFACTS, data_dir=tmp_path)
    asked = item("u", 1, model=NAME)
    with serving(settings) as client:
        said = post(client, "/predict", asked)
    with serving(settings) as client:
        record(client, asked, correct=True)
        told = quality(client, NAME)["current"]

    assert (told["answers"], told["auc"]) == (1, None)
    assert told["predicted_mean"] == pytest.approx(said["p_correct"], abs=1e-6)


def test_one_server_predicts_and_another_records(serve, redis_socket):  # noqa: F811
    """They share the store, and tell the same."""
    redis = Redis(unix_socket_path=str(redis_socket))
    one, other = (
        serve(artifact_dir=ARTIFACTS, redis_url=f"unix://{redis_socket}") for _ in range(2)
    )
    before = quality(one, "last_query")["current"]["answers"]
    asked = item("of two servers", 1, model="last_query")
    post(one, "/predict", asked)
    until(lambda: redis.exists(user_key(FORECASTS, asked["user_id"])))

    record(other, asked, correct=False)

    found = quality(one, "last_query")
    assert found == quality(other, "last_query")
    assert found["current"]["answers"] == before + 1


def test_without_a_share_nothing_is_kept(redis_socket):  # noqa: F811
    """And with half of one, of about half the users."""
    redis = Redis(unix_socket_path=str(redis_socket))
    for share, names in ((0.0, "none"), (0.5, "half")):
        url = f"unix://{redis_socket}"
        with serving(
            Settings(artifact_dir=ARTIFACTS, redis_url=url, quality_share=share)
        ) as client:
            post(client, "/predict/batch", {"items": [item(f"{names}{n}", n) for n in range(60)]})
            post(client, "/predict", item(f"{names}0", 99))

    assert redis.keys("kt:p1:{none*") == []
    assert 10 < len(redis.keys("kt:p1:{half*")) < 50


def test_what_waits_of_a_user_is_given_out_and_deleted(client):
    """A user's own data, as long as it is there."""
    asked = item("somebody", 1)
    record(client, asked, correct=True)
    said = post(client, "/predict", {**asked, "asked_ms": asked["asked_ms"] + 5000})
    export = lambda: client.get("/users/somebody/export").json()  # noqa: E731
    until(lambda: export()["forecasts"])

    [forecast] = export()["forecasts"]
    client.delete("/users/somebody").raise_for_status()

    assert forecast["question_id"] == asked["question_id"]
    assert forecast["p_correct"] == pytest.approx(said["p_correct"], abs=1e-6)
    assert (forecast["lag"], forecast["history"]) == (1, 1)  # five seconds; one answer
    assert export()["forecasts"] == []


def waiting(client, user_id: str) -> list[tuple]:
    """What waits of a user, without the time."""
    found = client.get(f"/users/{user_id}/export").json()["forecasts"]
    names = ("question_key", "model_key", "skill", "lag", "history")
    return [(*(one[n] for n in names), round(one["p_correct"], 5)) for one in found]


def test_a_batch_notes_what_questions_asked_alone_do(client):
    """With times and without, of unknown questions, of skills that are named, of a new user."""
    asked = [{"asked_ms": 95_000}, {}, {"question_id": "nobody's"}, {"skill_ids": ["1", "2"]}]
    questions = [{"question_id": str(n), **one, "model": NAME} for n, one in enumerate(asked, 1)]
    for user_id in ("alone", "together"):
        for number in range(2):
            record(client, item(user_id, number), correct=True)
    for user_id, other in (("alone", "together"), ("alone and new", "together and new")):
        items = [{"user_id": other, "knowledge_state": False, **q} for q in questions]
        for one in items:
            post(client, "/predict", {**one, "user_id": user_id})
        post(client, "/predict/batch", {"items": items})
        until(lambda: len(waiting(client, user_id)) == len(waiting(client, other)) == 4)  # noqa: B023

        assert waiting(client, user_id) == waiting(client, other)
    assert {one[4] for one in waiting(client, "alone")} == {1}
    assert len({one[3] for one in waiting(client, "alone")}) == 2


@pytest.fixture
def artifacts(tmp_path):
    """Two versions of a model, the first with what its training split was like."""
    folder = tmp_path / "artifacts"
    folder.mkdir()
    shutil.copytree(SHIPPED["dkt"], folder / "dkt" / SHIPPED["dkt"].name)
    put_version(folder, "2", of=OTHER)
    manifest = put_version(folder, "1") / "manifest.json"
    content = json.loads(manifest.read_text())
    rng = np.random.default_rng(0)
    drawn = rng.integers(2, 40, 500), rng.exponential(60, 500), rng.integers(0, 9, 500)
    inputs = Inputs.counted(*drawn, rng.random(500) < 0.7, reads_lag=True)
    content["inputs"] = {f: getattr(inputs, f) for f in inputs.__dataclass_fields__}
    manifest.write_text(json.dumps(content))
    of_before = folder / NAME / "2" / "manifest.json"
    content = json.loads(of_before.read_text())
    del content["inputs"]
    of_before.write_text(json.dumps(content))
    return folder


def is_compared(client, times: int) -> bool:
    """A candidate has been asked so often beside the version served."""
    asked = samples(client).get("kt_candidate_asked_total", {})
    return asked.get((("model", NAME), ("result", "compared"))) == times


def test_each_version_has_figures_of_its_own(serve, artifacts):
    """A candidate that is compared too; and whose version answers no more is told no more."""
    client = serve(artifact_dir=artifacts, model_versions={NAME: "1"}, deadline_ms=2000)
    client.put(f"/models/{NAME}/candidate", json={"version": "2", "compare": True})
    for number in range(3):
        asked = item("u", number)
        post(client, "/predict", asked)
        until(partial(is_compared, client, number + 1))
        record(client, asked, correct=number > 0)

    told = quality(client, NAME)
    drift = samples(client)["kt_input_drift"]
    client.put(f"/models/{NAME}/current", json={"version": "2"}).raise_for_status()
    versions = {dict(labels)["version"] for labels in samples(client)["kt_quality_auc"]}

    assert (told["current"]["version"], told["candidate"]["version"]) == ("1", "2")
    assert (told["current"]["answers"], told["candidate"]["answers"]) == (3, 3)
    assert told["current"]["predicted_mean"] != told["candidate"]["predicted_mean"]
    assert set(told["current"]["drift"]) == {"skill", "lag", "history", "correct"}
    assert told["candidate"]["drift"] is None
    assert {dict(labels)["version"] for labels in drift} == {"1"}
    assert "1" not in versions
    assert quality(client, NAME)["current"]["answers"] == 3


def test_a_correction_changes_no_figure(client):
    """What was said is measured by what was answered first."""
    asked = item("corrected", 1, model="saint_plus")
    post(client, "/predict", asked)
    record(client, asked, correct=True)
    before = quality(client, "saint_plus")["current"]

    changed = client.patch("/users/corrected/interactions/0", json={"correct": False})

    assert changed.status_code == 200
    assert quality(client, "saint_plus")["current"] == before
    assert before["answers"] > 0


def test_of_a_model_that_is_not_there_nothing_is_told(client):
    """As everywhere."""
    assert client.get("/models/nobody/quality").status_code == 404
