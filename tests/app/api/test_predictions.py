"""POST /predict and /predict/batch, as a caller meets them."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from models.contract.artifact import Manifest
from tests.app.conftest import SHIPPED

MODELS = list(SHIPPED)


def history(n: int, seed: int = 0) -> list[dict]:
    """Answers to questions that the shipped models know."""
    return [
        {
            "question_id": str(1 + (i * 37 + seed) % 200),
            "correct": (i * 7 + seed) % 3 > 0,
            "asked_ms": 1_600_000_000_000 + 30_000 * i,
        }
        for i in range(n)
    ]


def record(client, user_id, interactions):
    answer = client.post(f"/users/{user_id}/interactions", json={"interactions": interactions})
    assert answer.status_code == 200, answer.text
    return answer.json()


def predict(client, **body):
    answer = client.post("/predict", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("model", MODELS)
def test_a_prediction_is_a_probability_and_says_where_it_comes_from(client, model):
    """With the knowledge state of every skill beside it, whichever model predicts."""
    user_id = uuid4().hex
    record(client, user_id, history(12))

    found = predict(client, user_id=user_id, question_id="17", model=model)

    assert 0 < found["p_correct"] < 1
    assert found["model"] == {"name": model, "version": SHIPPED[model].name}
    assert (found["history_length"], found["truncated"], found["cold_start"]) == (12, False, False)
    assert found["unseen"] == []
    assert len(found["knowledge_state"]) > 50
    assert all(0 < p < 1 for p in found["knowledge_state"].values())


@pytest.mark.parametrize("model", MODELS)
def test_a_stored_history_and_the_same_one_inline_give_one_answer(client, model):
    """To the last digit: both take the same way from the tracer on."""
    user_id, answers = uuid4().hex, history(300)
    record(client, user_id, answers)
    ask = {"question_id": "17", "asked_ms": 1_600_009_999_999, "model": model}

    stored = predict(client, user_id=user_id, **ask)
    inline = predict(client, history=answers, **ask)

    assert math.isclose(stored["p_correct"], inline["p_correct"], abs_tol=1e-6)
    places = Manifest.load(SHIPPED[model]).window.length
    assert stored["truncated"] == inline["truncated"] == (places <= 300)
    assert stored["knowledge_state"].keys() == inline["knowledge_state"].keys()


@pytest.mark.parametrize("model", MODELS)
def test_an_answer_moves_the_next_prediction(client, model):
    """Right answers raise the chance above what wrong ones leave."""
    asked = {"question_id": "17", "model": model}
    right = [{"question_id": "17", "correct": True}] * 6
    wrong = [{"question_id": "17", "correct": False}] * 6

    p_right = predict(client, history=right, **asked)["p_correct"]
    p_wrong = predict(client, history=wrong, **asked)["p_correct"]

    assert p_right > p_wrong + 0.1


def test_asking_records_nothing(client):
    """A prediction leaves the user as it was."""
    user_id = uuid4().hex
    predict(client, user_id=user_id, question_id="17")

    assert predict(client, user_id=user_id, question_id="17")["cold_start"] is True
    assert client.get(f"/users/{user_id}/interactions").json()["history_length"] == 0


def test_the_default_model_is_the_one_that_is_said_to_be(client):
    """GET /models tells which model an ask without a name meets."""
    default = [m["name"] for m in client.get("/models").json()["models"] if m["is_default"]]

    assert [predict(client, user_id="nobody", question_id="17")["model"]["name"]] == default


def test_what_is_not_known_is_answered_and_named(client):
    """An unknown question under a known skill stands on the skill; unknown ids are listed."""
    found = predict(
        client,
        history=history(3),
        question_id="never-met",
        skill_ids=["1", "neither"],
        knowledge_state=["1", "nor-this"],
    )

    assert found["unseen"] == [
        {"kind": "question", "id": "never-met"},
        {"kind": "skill", "id": "neither"},
        {"kind": "skill", "id": "nor-this"},
    ]
    assert list(found["knowledge_state"]) == ["1"]
    assert 0 < found["p_correct"] < 1


def test_skills_named_by_the_caller_count(client):
    """The same question under another skill is another ask."""
    one = predict(client, history=history(9), question_id="17", model="dkt", skill_ids=["1"])
    two = predict(client, history=history(9), question_id="17", model="dkt", skill_ids=["2"])

    assert one["p_correct"] != two["p_correct"]


def test_the_vector_can_be_left_out(client):
    """And then it costs nothing."""
    found = predict(client, history=history(3), question_id="17", knowledge_state=False)

    assert found["knowledge_state"] is None


def test_callers_at_the_same_time_get_their_own_answers(client):
    """Whoever shares a run with whom, every prediction is the one asked for alone."""
    asks = [
        {"history": history(n, n), "question_id": str(1 + n), "model": MODELS[n % 3]}
        for n in range(60)
    ]
    alone = [predict(client, **a) for a in asks]
    with ThreadPoolExecutor(20) as pool:
        together = list(pool.map(lambda a: predict(client, **a), asks))

    for one, many in zip(alone, together, strict=True):
        assert math.isclose(one["p_correct"], many["p_correct"], abs_tol=1e-5)
        assert one["model"] == many["model"]


def test_a_batch_keeps_its_order_and_its_errors_in_place(client):
    """Every item is answered as if it had come alone."""
    user_id = uuid4().hex
    record(client, user_id, history(20))
    items = [
        {"user_id": user_id, "question_id": "17"},
        {"user_id": user_id},
        {"user_id": user_id, "question_id": "18", "model": "none"},
        {"history": history(5), "question_id": "19", "model": "dkt", "knowledge_state": False},
        "not an object",
    ]

    found = client.post("/predict/batch", json={"items": items}).json()["items"]

    assert [f.get("status", 200) for f in found] == [200, 422, 404, 200, 422]
    assert found[1]["errors"][0]["pointer"] == "/items/1/question_id"
    alone = predict(client, **items[0])
    assert math.isclose(found[0]["p_correct"], alone["p_correct"], abs_tol=1e-5)
    assert found[3]["model"]["name"] == "dkt"


def test_a_batch_takes_a_thousand(client):
    """And not one more."""
    item = {"user_id": "nobody", "question_id": "17", "model": "dkt", "knowledge_state": False}

    full = client.post("/predict/batch", json={"items": [item] * 1000})
    over = client.post("/predict/batch", json={"items": [item] * 1001})

    assert full.status_code == 200
    assert {i["p_correct"] for i in full.json()["items"]}.__len__() == 1
    assert over.status_code == 422


@pytest.mark.parametrize(
    ("change", "pointer", "said"),
    [
        ({"question_id": 17}, "/question_id", "string"),
        ({"question_id": ""}, "/question_id", "1 character"),
        ({"question_id": "a\nb"}, "/question_id", "control characters"),
        ({"question_id": "x" * 257}, "/question_id", "256"),
        ({"asked_ms": -1}, "/asked_ms", "greater than or equal to 0"),
        ({"asked_ms": 1.5}, "/asked_ms", "integer"),
        ({"skill_ids": []}, "/skill_ids", "at least 1"),
        ({"knowledge_state": "yes"}, "/knowledge_state", "a list of skill ids"),
        ({"history": [{"question_id": "1"}]}, "/history/0/correct", "is needed"),
        ({"history": [{"question_id": "1", "correct": 1}]}, "/history/0/correct", "true or false"),
        ({"models": "dkt"}, "/models", "no field"),
        ({"user_id": None, "history": None}, "", "user_id is needed"),
    ],
)
def test_a_bad_field_is_named_with_what_would_do(client, change, pointer, said):
    """The problem points at the place and quotes what stood there."""
    answer = client.post("/predict", json={"user_id": "u", "question_id": "17", **change})

    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == "request_invalid"
    assert problem["errors"][0]["pointer"] == pointer
    assert said in problem["errors"][0]["detail"]


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", {"content-type": "application/json"}, 400),
        (b"\xff\xfe", {"content-type": "application/json"}, 400),
        (b"", {"content-type": "application/json"}, 400),
        (b"[]", {"content-type": "application/json"}, 422),
        (b"{}", {"content-type": "text/plain"}, 415),
        (b"{}", {}, 415),
        (b" " * 4_000_001, {"content-type": "application/json"}, 413),
        (b"[" * 100_000, {"content-type": "application/json"}, 400),
        (b'{"question_id": "17", "user_id": "\\ud800"}', {"content-type": "application/json"}, 400),
        (
            b'{"question_id":"1","user_id":"u","asked_ms":NaN}',
            {"content-type": "application/json"},
            422,
        ),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(client, body, headers, status):
    """With a problem, never a 500."""
    answer = client.post("/predict", content=body, headers=headers)

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status


def test_an_unknown_model_is_not_found(client):
    """The problem lists those served."""
    answer = client.post("/predict", json={"user_id": "u", "question_id": "1", "model": "gpt"})

    assert answer.status_code == 404
    assert "dkt, dkt_asked, last_query, saint_plus" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/predict", 200),
        ("POST", "/predict?x=1", 200),
        ("POST", "/%70redict", 404),
        ("POST", "/predict/", 404),
        ("GET", "/predict", 405),
        ("OPTIONS", "/predict", 405),
    ],
)
def test_what_is_answered_before_the_router_is_that_route_alone(client, method, path, status):
    """Every answer has passed the edge, whichever way it went."""
    body = {"history": [], "question_id": "17"}
    answer = client.request(method, path, json=body, headers={"x-request-id": "mine"})

    assert answer.status_code == status
    assert answer.headers["x-request-id"] == "mine"
    if status != 200:
        assert answer.json()["request_id"] == "mine"
