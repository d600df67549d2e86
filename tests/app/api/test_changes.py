"""Histories are changed on terms: ETag, If-Match, Idempotency-Key, PATCH; and given out whole."""

from __future__ import annotations

import base64
import re
import time
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from app.api.terms import PATTERN, versions_of
from app.errors import RequestInvalid
from tests.app.api.test_users import FULL, path, record


def post(client, user_id, *interactions, **headers):
    return client.post(
        path(user_id),
        json={"interactions": list(interactions)},
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


def counted(client, name: str, **labels: str) -> float:
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return 0.0


def test_every_answer_about_a_history_has_its_version(client):
    """In the body and, in quotes, as its tag."""
    user_id = uuid4().hex
    tails = ("/interactions", "/knowledge-state")
    before = [client.get(path(user_id, tail)) for tail in tails]
    done = record(client, user_id, FULL)
    after = [client.get(path(user_id, tail)) for tail in tails]
    client.delete(path(user_id, ""))
    gone = [client.get(path(user_id, tail)) for tail in tails]

    version = done.json()["history_version"]
    assert version.endswith("-1")
    for answer in (*before, *gone):
        assert answer.json()["history_version"] == "00000000-0"
    for answer in (done, *after):
        assert answer.json()["history_version"] == version
        assert answer.headers["etag"] == f'"{version}"'
    prediction = client.post("/predict", json={"user_id": user_id, "question_id": "1"})
    assert "etag" not in prediction.headers


def test_a_history_that_has_changed_is_left_alone(client):
    """Whoever has not seen the newest answer is told so, and may look and try again."""
    user_id = uuid4().hex
    seen = record(client, user_id, FULL).headers["etag"]
    record(client, user_id, FULL)

    refused = post(client, user_id, FULL, If_Match=seen)
    now = client.get(path(user_id)).headers["etag"]
    done = post(client, user_id, FULL, If_Match=f'W/"x", "other", {seen}, {now}')

    assert (refused.status_code, refused.json()["code"]) == (412, "history_changed")
    assert (done.status_code, done.json()["history_length"]) == (200, 3)


def test_first_answers_are_recorded_once(client):
    """`If-None-Match: *` is for users of whom nothing is kept, `If-Match: *` for all others."""
    user_id = uuid4().hex
    found = [
        post(client, user_id, FULL, **{name: "*"}).status_code
        for name in ("If_Match", "If_None_Match", "If_None_Match", "If_Match")
    ]

    assert found == [412, 200, 412, 200]


def test_a_weak_tag_means_no_version_but_excludes_one(client):
    """If-Match compares strongly, If-None-Match weakly."""
    user_id = uuid4().hex
    tag = record(client, user_id, FULL).headers["etag"]

    assert post(client, user_id, FULL, If_Match=f"W/{tag}").status_code == 412
    assert post(client, user_id, FULL, If_None_Match=f"W/{tag}").status_code == 412
    assert post(client, user_id, FULL, If_None_Match='"other"').status_code == 200


@pytest.mark.parametrize("value", ["5f3a09c1-1", '"a" "b"', "", '"a', '*, "a"'])
def test_what_is_no_tag_is_refused(client, value):
    """Not taken for a tag that does not match."""
    answer = post(client, uuid4().hex, FULL, If_Match=value)

    assert answer.status_code == 422
    assert "If-Match" in answer.json()["detail"]


def test_a_repeated_call_is_answered_as_it_was(client):
    """Status, body and tag, to the byte; and it is counted."""
    user_id = uuid4().hex
    before = counted(client, "kt_calls_repeated_total")
    first = post(client, user_id, FULL, Idempotency_Key="k 1")
    other = record(client, user_id, FULL)
    again = post(client, user_id, FULL, Idempotency_Key="k 1")

    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["etag"] == first.headers["etag"] != other.headers["etag"]
    assert client.get(path(user_id)).json()["history_length"] == 2
    assert counted(client, "kt_calls_repeated_total") == before + 1


def test_a_key_is_not_reused(client):
    """Another body under it is refused; the same in other words is not."""
    user_id = uuid4().hex
    first = post(client, user_id, {**FULL, "skill_ids": ["a", "b"]}, Idempotency_Key="k")
    same = post(client, user_id, {**FULL, "event_id": None}, Idempotency_Key="k")
    other = post(client, user_id, {**FULL, "correct": False}, Idempotency_Key="k")

    assert same.content == first.content
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_a_key_has_bounds(client, key):
    """1 to 255 characters."""
    answer = post(client, uuid4().hex, FULL, Idempotency_Key=key)

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["in"] == "header"
    assert post(client, uuid4().hex, FULL, Idempotency_Key="k" * 255).status_code == 200


def test_a_kept_answer_is_corrected(client):
    """It and the new version come back; null says that a time is not known."""
    user_id = uuid4().hex
    before = record(client, user_id, FULL, FULL).headers["etag"]
    change = {"correct": False, "asked_ms": 5, "elapsed_ms": None}

    done = client.patch(path(user_id, "/interactions/1"), json=change)

    listed = client.get(path(user_id)).json()
    expected = {"number": 1, **FULL, "skill_ids": ["a", "b"], **change}
    assert done.json() == {
        "interaction": expected,
        "history_version": listed["history_version"],
    }
    assert listed["interactions"] == [
        {**expected, **FULL, "skill_ids": ["a", "b"], "number": 0},
        expected,
    ]
    assert done.headers["etag"] == f'"{listed["history_version"]}"' != before


def test_a_correction_is_made_on_terms_and_once(client):
    """As answers are."""
    user_id = uuid4().hex
    tag, change = record(client, user_id, FULL).headers["etag"], {"correct": False}
    headers = {"If-Match": tag, "Idempotency-Key": "k"}

    def patch(change, headers, number=0):
        url = path(user_id, f"/interactions/{number}")
        return client.patch(url, json=change, headers=headers)

    first, again = patch(change, headers), patch(change, headers)

    assert first.status_code == 200
    assert again.content == first.content
    assert patch(change, {"If-Match": tag}).json()["code"] == "history_changed"
    reused = patch({"correct": True}, {"Idempotency-Key": "k"})
    assert reused.json()["code"] == "idempotency_key_reused"
    missing = patch(change, {}, number=1)
    assert (missing.status_code, missing.json()["code"]) == (404, "interaction_unknown")


@pytest.mark.parametrize(
    "change", [{}, {"correct": None}, {"question_id": "2"}, {"asked_ms": -1}, {"correct": 1}]
)
def test_a_correction_says_what_can_be_corrected(client, change):
    """And something."""
    user_id = uuid4().hex
    record(client, user_id, FULL)

    assert client.patch(path(user_id, "/interactions/0"), json=change).status_code == 422
    assert client.get(path(user_id)).json()["interactions"][0]["correct"] is True


def test_the_document_says_what_can_be_corrected(client):
    """Null is a time that is not known, and no answer; nothing at all corrects nothing."""
    schema = client.get("/openapi.json").json()["components"]["schemas"]["Amendment"]
    fields = schema["properties"]

    assert schema["minProperties"] == 1
    assert fields["correct"]["type"] == "boolean"
    assert all({"type": "null"} in fields[name]["anyOf"] for name in ("asked_ms", "elapsed_ms"))
    assert not any("default" in field for field in fields.values())


def test_times_are_corrected_by_whole_numbers_however_written(client):
    """In JSON 5.0 is the number 5."""
    user_id = uuid4().hex
    record(client, user_id, FULL)
    change = {"asked_ms": 5.0, "elapsed_ms": 7.0}

    done = client.patch(path(user_id, "/interactions/0"), json=change)

    assert {name: done.json()["interaction"][name] for name in change} == change
    broken = client.patch(path(user_id, "/interactions/0"), json={"asked_ms": 5.5})
    assert broken.status_code == 422


@given(st.lists(st.sampled_from(("*", "W/", '"', '""', '"a"', '"\xe9"', ",", " ", "\t", "a"))))
def test_the_document_says_which_terms_can_be_read(parts):
    """Its pattern fits just what is read, without the blanks around a header."""
    text = "".join(parts).strip(" \t")
    try:
        versions_of("If-Match", [text], takes_weak=True)
    except RequestInvalid:
        is_read = False
    else:
        is_read = True

    assert bool(re.search(PATTERN, text)) == is_read


@pytest.mark.parametrize(
    ("rule", "status", "order"),
    [("append", 200, [5, 9, 7]), ("refuse", 409, [5, 9]), ("insert", 200, [5, 7, 9])],
)
def test_late_answers_are_treated_as_the_setting_says(serve, rule, status, order):
    """And counted by what was done."""
    client = serve(late_answers=rule)
    at = {t: {"question_id": "1", "correct": True, "asked_ms": t} for t in (5, 7, 9)}
    record(client, "u", at[5], at[9])

    late = record(client, "u", at[7])

    assert late.status_code == status
    assert status == 200 or late.json()["code"] == "answer_late"
    assert [i["asked_ms"] for i in client.get(path("u")).json()["interactions"]] == order
    assert counted(client, "kt_answers_late_total", done=rule) == 1


def test_everything_kept_of_a_user_is_given_out(client):
    """What they answered, what was made of it, what they were told; and nothing of a stranger."""
    user_id = uuid4().hex
    record(client, user_id, FULL, {**FULL, "event_id": "e"})
    last = post(client, user_id, {"question_id": "2", "correct": False}, Idempotency_Key="k")
    client.post("/predict", json={"user_id": user_id, "question_id": "1", "model": "dkt"})
    until = time.monotonic() + 10
    while not (found := client.get(path(user_id, "/export")).json())["states"]:
        assert time.monotonic() < until  # it is written when the answer is on its way
        time.sleep(0.01)
    nobody = client.get(path("no / body", "/export")).json()

    assert found["user_id"] == user_id
    assert found["history_version"] == last.json()["history_version"]
    listed = client.get(path(user_id)).json()["interactions"]
    events = [one.pop("event_key") for one in found["interactions"]]
    assert found["interactions"] == listed
    assert [event is None for event in events] == [True, False, True]
    [state], [call] = found["states"], found["calls"]
    assert (state["seen"], state["history"]) == (3, found["history_version"].split("-")[0])
    assert len(base64.b64decode(state["bytes"])) > 100
    assert len(call["key"]) == 32
    assert found["expires_in_ms"]["interactions"] is None
    assert found["expires_in_ms"]["calls"] > 86_000_000
    assert (nobody["user_id"], nobody["history_version"]) == ("no / body", "00000000-0")
    assert nobody["interactions"] == nobody["states"] == nobody["calls"] == []


def test_a_long_history_is_given_out_whole(serve):
    """In numbers from the first that is held."""
    client = serve(history_max_items=2500)
    for _ in range(3):
        record(client, "u", *[{"question_id": "1", "correct": True}] * 900)
    found = client.get(path("u", "/export")).json()["interactions"]

    assert [one["number"] for one in found] == list(range(2700))
