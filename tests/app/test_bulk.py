"""Many questions in one call are answered as each would be alone, whatever stands beside it."""

from __future__ import annotations

import math
import time
from uuid import uuid4

import numpy as np
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from app.api.schemas.predictions import AskFields, PredictionRequest, ask_of, stands_on_something
from app.asks import Ask
from app.records import records_of
from app.settings import Settings
from models.contract.interaction import NO_KEY
from tests.app.api.test_operations import samples
from tests.app.conftest import ARTIFACTS, serving
from tests.app.store.conftest import redis_socket  # noqa: F401 - a fixture
from tests.app.test_kept_states import Learner, wait_for

KEEPING = ["dkt", "dkt_asked"]
COUNTED = (
    *("kt_predictions_total", "kt_unseen_total", "kt_states_found_total"),
    *("kt_answers_folded_total", "kt_states_kept_total"),
    *("kt_history_length_bucket", "kt_history_length_sum"),
)


def learners(seed: int, lengths: list[int]) -> list[Learner]:
    """Return users of so many answers, not yet recorded."""
    found = [Learner(np.random.default_rng(seed + n), 4096) for n in range(len(lengths))]
    for learner, length in zip(found, lengths, strict=True):
        learner.answered(length)
    return found


def record(client, learner: Learner, answers: list[dict] | None = None) -> None:
    body = {"interactions": learner.answers if answers is None else answers}
    if body["interactions"]:
        answer = client.post(f"/users/{learner.user_id}/interactions", json=body)
        assert answer.status_code == 200, answer.text


def batch(client, items: list) -> list[dict]:
    answer = client.post("/predict/batch", json={"items": items})
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


def alone(client, item) -> dict:
    return client.post("/predict", json=item).json()


def same(found: dict, expected: dict) -> None:
    """Raise unless two answers, or two problems, are the same."""
    assert found.get("code") == expected.get("code")
    if "code" in expected:
        return
    assert math.isclose(found["p_correct"], expected["p_correct"], abs_tol=1e-6)
    assert (found["knowledge_state"] is None) == (expected["knowledge_state"] is None)
    if expected["knowledge_state"] is not None:
        assert found["knowledge_state"] == pytest.approx(expected["knowledge_state"], abs=1e-6)
        assert [*found["knowledge_state"]] == [*expected["knowledge_state"]]
    for name in ("model", "history_length", "truncated", "cold_start", "unseen"):
        assert found[name] == expected[name]


def mixed(users: list[Learner], rng: np.random.Generator, count: int) -> list:
    """Return items of every kind, in no order."""
    items = []
    for n in range(count):
        learner = users[int(rng.integers(len(users)))]
        item = learner.ask(str(rng.choice([*KEEPING, *KEEPING, "last_query", "none"])))
        item["knowledge_state"] = [False, True, ["1", "nor this"], []][int(rng.integers(4))]
        kind = int(rng.integers(9))
        if kind == 0:
            item = {**learner.inline(item), "user_id": None}
        elif kind == 1:
            item["question_id"] = "never met"
        elif kind == 2:
            item["skill_ids"] = ["1", "48", "neither", "1"][int(rng.integers(3)) :]
        elif kind == 3:
            item = [{"user_id": learner.user_id}, "no object", {**item, "asked_ms": -1}][n % 3]
        elif kind == 4:
            del item["model"], item["asked_ms"]
        items.append(item)
    return items


def test_items_of_every_kind_are_answered_as_if_they_had_come_alone(serve):
    """At their own places; the states behind are brought up first, or not there at all."""
    client, rng = serve(), np.random.default_rng(0)
    users = learners(10, [0, 1, 2, 30, 120, 430])
    for learner in users:
        record(client, learner)
    for learner in users[3:]:  # states that will be behind
        for model in KEEPING:
            alone(client, learner.ask(model))
        record(client, learner, learner.answered(3))
    items = mixed(users, rng, 300)

    found = batch(client, items)

    for item, one in zip(items, found, strict=True):
        same(one, alone(client, item))
    assert {one.get("code") for one in found} == {None, "model_unknown", "request_invalid"}
    assert len({one["p_correct"] for one in found if "p_correct" in one}) > 100


def test_users_beyond_a_piece_are_answered_too(serve):
    """More of them than are asked for together, before and after a restart."""
    users = learners(50, [n % 7 for n in range(600)])
    client = serve()
    for learner in users:
        record(client, learner)
    items = [{**one.ask(KEEPING[n % 2]), "knowledge_state": False} for n, one in enumerate(users)]

    first, second = batch(client, items), batch(client, items[::-1])

    for n in range(0, 600, 29):
        same(first[n], alone(client, items[n]))
        same(second[599 - n], first[n])
    assert [one["history_length"] for one in first] == [n % 7 for n in range(600)]


def test_a_state_whose_numbers_are_none_costs_nobody_an_answer(redis_socket):  # noqa: F811
    """Its user's, nor those who were in the run with it; it is made anew, after a restart too."""
    settings = Settings(artifact_dir=ARTIFACTS, redis_url=f"unix://{redis_socket}")
    store = redis.Redis(unix_socket_path=str(redis_socket))
    users = learners(20, [5, 60, 7, 0, 3])
    with serving(settings) as client:
        for learner in users:
            record(client, learner)
        items = [learner.ask(model) for learner in users for model in KEEPING]
        batch(client, items)
        states = f"kt:s1:{{{users[1].user_id}}}"
        fields = wait_for(lambda: store.hgetall(states), 2)
    for field, value in fields.items():
        spoilt = value[:24] + np.full((len(value) - 24) // 4, np.nan, np.float32).tobytes()
        store.hset(states, field, spoilt)
    with serving(settings) as client:
        found = batch(client, items)
        again = wait_for(lambda: store.hgetall(states), 2, fields)
        for learner, one in zip(np.repeat(users, 2), found, strict=True):
            assert one["history_length"] == len(learner.answers), one
        for item, one in zip(items, found, strict=True):
            same(one, alone(client, item))

    assert again == fields


def test_a_history_that_cannot_be_read_is_told_at_its_own_place(redis_socket):  # noqa: F811
    """Though all of them were read in one trip."""
    settings = Settings(artifact_dir=ARTIFACTS, redis_url=f"unix://{redis_socket}")
    store = redis.Redis(unix_socket_path=str(redis_socket))
    users = learners(30, [4] * 9)
    with serving(settings) as client:
        for learner in users:
            record(client, learner)
        store.set(f"kt:h1:{{{users[4].user_id}}}", b"what is this")
        found = batch(client, [learner.ask("dkt_asked") for learner in users])

    codes = [one.get("code") for one in found]
    assert codes == [None] * 4 + ["store_corrupt"] + [None] * 4


def test_without_its_store_every_item_says_so(serve, tmp_path):
    """But those that need none."""
    client = serve(redis_url=f"unix://{tmp_path}/none.sock")
    items = [
        {"user_id": "u", "question_id": "1", "knowledge_state": False},
        {"history": [], "question_id": "1"},
        {"user_id": "v", "question_id": "1", "model": "dkt"},
    ]

    found = batch(client, items)

    assert [one.get("code") for one in found] == ["store_unavailable", None, "store_unavailable"]


def all_written(client) -> None:
    """Wait until no state is on its way to the store any more: that takes its own time."""
    before, now = -1.0, 0.0
    while now != before:
        time.sleep(0.3)
        before, now = now, sum(samples(client).get("kt_states_kept_total", {}).values())
    assert now > 0


def test_as_much_is_counted_as_if_they_had_come_alone(tmp_path):
    """Predictions, what they stand on, what is not known, the states found and folded."""
    counted = []
    for one_by_one in (True, False):
        settings = Settings(artifact_dir=ARTIFACTS, data_dir=tmp_path / str(one_by_one))
        with serving(settings) as client:
            users = learners(40, [n % 9 for n in range(40)])
            for learner in users:
                record(client, learner)
            items = [learner.ask(KEEPING[n % 2]) for n, learner in enumerate(users)]
            for item in items[::5]:
                item["skill_ids"] = ["1", "neither"]
                item["knowledge_state"] = False
            for _ in range(2):  # states are absent, then current
                if one_by_one:
                    for item in items:
                        alone(client, item)
                else:
                    batch(client, items)
                all_written(client)
            now = samples(client)
        counted.append({name: now.get(name) for name in COUNTED})
        stages = {dict(k)["stage"]: v for k, v in now["kt_stage_duration_seconds_count"].items()}
        assert stages["run"] == stages["queue"] >= 2 * len(items)
        assert sum(now["kt_batch_items_sum"].values()) >= 2 * len(items)
        assert not any(now.get("kt_queue_items", {}).values())

    assert counted[0] == counted[1]


ODD = st.sampled_from([None, True, 0, -1, 1.5, "", "a\nb", "x" * 257, [], ["1"], ["", 2], {}])
GOOD = {
    "user_id": st.just("u1"),
    "question_id": st.text("abc123é ", min_size=1),
    "model": st.just("dkt"),
    "asked_ms": st.integers(0, 10**12),
    "skill_ids": st.lists(st.text("ab", min_size=1), min_size=1, max_size=3),
    "knowledge_state": st.booleans() | st.lists(st.just("1")),
    "another": st.just(1),
}
ANSWER = {
    "question_id": GOOD["question_id"],
    "correct": st.booleans(),
    "asked_ms": st.none() | GOOD["asked_ms"],
    "elapsed_ms": st.none() | st.integers(0, 10**6),
    "skill_ids": st.none() | GOOD["skill_ids"],
    "event_id": st.none() | GOOD["question_id"],
}
SAID = {k: ANSWER[k] for k in ("question_id", "correct")}
ANSWERED = st.fixed_dictionaries(SAID, optional={k: v for k, v in ANSWER.items() if k not in SAID})
ODDLY_ANSWERED = st.fixed_dictionaries({}, optional={k: v | ODD for k, v in ANSWER.items()})
GOOD["history"] = st.none() | st.lists(ANSWERED, max_size=4)
ITEM = st.fixed_dictionaries({}, optional={name: value | ODD for name, value in GOOD.items()})
STORED = st.fixed_dictionaries({k: GOOD[k] for k in ("user_id", "question_id")})
INLINE = st.fixed_dictionaries(
    {"question_id": GOOD["question_id"], "history": GOOD["history"] | st.lists(ODDLY_ANSWERED)}
)


@given(ITEM | STORED | INLINE | ODD)
def test_the_quick_way_to_read_an_item_lets_nothing_else_through(item):
    """And means the same: the same question, and a history of the same answers."""
    try:
        fields = TypeAdapter(AskFields).validate_python(item)
    except ValidationError:
        return
    if not stands_on_something(fields):
        with pytest.raises(ValidationError, match="user_id is needed"):
            PredictionRequest.model_validate(item)
        return
    request = PredictionRequest.model_validate(item)
    answers = [one.to_answer() for one in request.history or []]

    for ask in (ask_of(fields), request.to_ask()):
        assert ask._replace(history=None) == Ask(
            **{k: v for k, v in item.items() if k != "history"}
        )
        if request.history is None:
            assert ask.history is None
            continue
        expected = records_of(answers)
        expected.interactions["event_key"] = NO_KEY  # of what is not stored there is no event
        assert ask.history.interactions.tobytes() == expected.interactions.tobytes()
        assert ask.history.texts.items() <= expected.texts.items()
        keys = expected.interactions["skills_key"]
        assert ask.history.texts.keys() == set(keys[keys != NO_KEY].tolist())


def test_nobodys_question_is_no_callers():
    """An empty id, which stands for it inside, is refused at the door."""
    with pytest.raises(ValidationError):
        PredictionRequest.model_validate({"user_id": uuid4().hex, "question_id": ""})
