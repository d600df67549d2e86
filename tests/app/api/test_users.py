"""/users/{user_id}: record, list, knowledge state, forget."""

from __future__ import annotations

from urllib.parse import quote
from uuid import uuid4

import pytest

from tests.app.conftest import SHIPPED


def path(user_id: str, tail: str = "/interactions") -> str:
    return f"/users/{quote(user_id, safe='')}{tail}"


def record(client, user_id, *interactions):
    return client.post(path(user_id), json={"interactions": list(interactions)})


FULL = {
    "question_id": "q 1/ü",
    "correct": True,
    "asked_ms": 1_600_000_000_000,
    "elapsed_ms": 21_000,
    "skill_ids": ["b", "a"],
}


def test_what_was_recorded_is_listed(client):
    """In the caller's own ids, with what was named and nothing made up."""
    user_id = uuid4().hex
    done = record(client, user_id, FULL, {"question_id": "2", "correct": False})

    listed = client.get(path(user_id)).json()

    version = listed["history_version"]
    assert done.json() == {
        "recorded": 2,
        "duplicates": 0,
        "history_length": 2,
        "history_version": version,
    }
    assert listed["interactions"] == [
        {"number": 0, **FULL, "skill_ids": ["a", "b"]},
        {
            "number": 1,
            "question_id": "2",
            "skill_ids": None,
            "correct": False,
            "asked_ms": None,
            "elapsed_ms": None,
        },
    ]
    assert (listed["next"], listed["history_length"]) == (None, 2)


def test_a_retry_with_an_event_id_is_harmless(client):
    """It says how many it left out."""
    user_id = uuid4().hex
    record(client, user_id, {**FULL, "event_id": "e1"})

    again = record(client, user_id, {**FULL, "event_id": "e1"}, {**FULL, "event_id": "e2"})

    found = again.json()
    assert (found["recorded"], found["duplicates"], found["history_length"]) == (1, 1, 2)


def test_one_bad_answer_and_none_is_recorded(client):
    """All or none."""
    user_id = uuid4().hex
    answer = record(client, user_id, FULL, {"question_id": "2", "correct": "yes"})

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/interactions/1/correct"
    assert client.get(path(user_id)).json()["history_length"] == 0


@pytest.mark.parametrize("count", [0, 1001])
def test_a_call_takes_1_to_1000(client, count):
    """Anything else is refused."""
    assert record(client, uuid4().hex, *[FULL] * count).status_code == 422


def test_pages_follow_each_other(client):
    """`next` leads from the first to the last."""
    user_id = uuid4().hex
    record(client, user_id, *({"question_id": str(i), "correct": True} for i in range(25)))
    seen, start = [], 0
    while start is not None:
        page = client.get(path(user_id), params={"start": start, "limit": 10}).json()
        seen += [i["question_id"] for i in page["interactions"]]
        start = page["next"]

    assert seen == [str(i) for i in range(25)]


@pytest.mark.parametrize("params", [{"limit": 0}, {"limit": 1001}, {"start": -1}, {"start": "x"}])
def test_a_page_out_of_bounds_is_refused(client, params):
    """By name."""
    answer = client.get(path("u"), params=params)

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["in"] == "query"


def test_the_knowledge_state_tells_every_skill(client):
    """With its name, its chance and how many answers touched it."""
    user_id = uuid4().hex
    record(
        client,
        user_id,
        {"question_id": "1", "correct": True, "skill_ids": ["3"], "asked_ms": 5_000},
        {"question_id": "1", "correct": True, "skill_ids": ["3", "4"], "asked_ms": 9_000},
    )

    state = client.get(path(user_id, "/knowledge-state")).json()

    skills = {s["id"]: s for s in state["skills"]}
    assert (skills["3"]["answers"], skills["4"]["answers"], skills["5"]["answers"]) == (2, 1, 0)
    assert all(0 < s["probability"] < 1 and s["name"] for s in state["skills"])
    assert (state["as_of"], state["history_length"], state["cold_start"]) == (9_000, 2, False)
    assert state["model"] == {"name": "dkt", "version": SHIPPED["dkt"].name}


def test_the_knowledge_state_is_the_one_in_a_prediction(client):
    """One vector, wherever it is read."""
    user_id = uuid4().hex
    record(client, user_id, FULL, {"question_id": "17", "correct": False})

    state = client.get(path(user_id, "/knowledge-state")).json()
    prediction = client.post("/predict", json={"user_id": user_id, "question_id": "3"}).json()

    assert {s["id"]: s["probability"] for s in state["skills"]} == prediction["knowledge_state"]


def test_a_user_never_seen_gets_the_prior(client):
    """The same for every such user, and flagged."""
    one = client.get(path(uuid4().hex, "/knowledge-state")).json()
    two = client.get(path(uuid4().hex, "/knowledge-state")).json()

    assert one == two
    assert (one["cold_start"], one["as_of"], one["history_length"]) == (True, None, 0)


def test_right_answers_raise_a_skill_and_wrong_ones_lower_it(client):
    """The vector means what it says."""

    def after(correct: bool) -> float:
        user_id = uuid4().hex
        record(client, user_id, *[{"question_id": "1", "correct": correct, "skill_ids": ["3"]}] * 8)
        state = client.get(path(user_id, "/knowledge-state")).json()
        return next(s["probability"] for s in state["skills"] if s["id"] == "3")

    assert after(True) > after(False) + 0.1


def test_a_deleted_user_is_a_new_one(client):
    """Everything is gone, and deleting again is no error."""
    user_id = uuid4().hex
    record(client, user_id, FULL)

    assert client.delete(path(user_id, "")).json() == {"deleted": True}
    assert client.delete(path(user_id, "")).json() == {"deleted": False}
    assert client.get(path(user_id, "/knowledge-state")).json()["cold_start"] is True


@pytest.mark.parametrize("user_id", ["a/b", "%2F", "ü", "a b", "?x=1", "{u}", ".hidden", "x" * 256])
def test_any_text_may_be_a_user(client, user_id):
    """Percent-encoded, and apart from every other."""
    mark = f"{uuid4().hex[:8]}{user_id}"[:256]
    record(client, mark, FULL)

    assert client.get(path(mark)).json()["history_length"] == 1
    asked = client.post("/predict", json={"user_id": mark, "question_id": "1"}).json()
    assert asked["history_length"] == 1


@pytest.mark.parametrize("segment", ["%00", "%0A", "%FF", "x" * 257])
def test_what_is_no_id_is_refused(client, segment):
    """Control characters, broken UTF-8 and endless ids."""
    answer = client.get(f"/users/{segment}/interactions")

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["in"] == "path"


def test_only_the_newest_are_kept(serve):
    """The rest is counted, so that windows and numbers stay in place."""
    client = serve(history_max_items=10)
    answers = [{"question_id": str(i), "correct": True} for i in range(30)]
    assert record(client, "u", *answers).json()["history_length"] == 10

    listed = client.get(path("u")).json()
    found = client.post("/predict", json={"user_id": "u", "question_id": "1"}).json()

    assert [i["number"] for i in listed["interactions"]] == list(range(20, 30))
    assert [i["question_id"] for i in listed["interactions"]] == [str(i) for i in range(20, 30)]
    assert (found["history_length"], found["truncated"]) == (10, True)
