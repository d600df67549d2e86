"""Two servers, one store, one user, a hundred writers: exactly what was acknowledged is there."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from uuid import uuid4

import httpx

from app.settings import Settings
from tests.app.conftest import ARTIFACTS, serving
from tests.app.store.conftest import redis_socket  # noqa: F401 - a fixture

WRITERS, CALLS = 100, 3


def written(servers: list[httpx.Client], user_id: str, writer: int) -> list[str]:
    """Record answers as one of several kinds of caller does; return those acknowledged."""
    path, done = f"/users/{user_id}/interactions", []
    for call in range(CALLS):
        questions = [f"{writer}-{call}-{n}" for n in range(1 + (writer + call) % 3)]
        answers = [{"question_id": q, "correct": True} for q in questions]
        first, second = servers if (writer + call) % 2 else servers[::-1]
        match writer % 4:
            case 0:  # once, and without any care
                found = [first.post(path, json={"interactions": answers})]
            case 1:  # again at the other server, as after a broken connection
                for answer in answers:
                    answer["event_id"] = answer["question_id"]
                found = [s.post(path, json={"interactions": answers}) for s in (first, second)]
                assert found[1].json()["duplicates"] == len(answers)
            case 2:
                headers = {"Idempotency-Key": questions[0]}
                found = [
                    s.post(path, json={"interactions": answers}, headers=headers)
                    for s in (first, second, first)
                ]
                assert len({one.content for one in found}) == 1
            case _:  # only behind what it has seen
                found = [behind_what_was_seen(first, path, answers)]
        assert all(one.status_code in (200, 412) for one in found)
        done += questions if found[0].status_code == 200 else []
    return done


def behind_what_was_seen(server: httpx.Client, path: str, answers: list[dict]) -> httpx.Response:
    """Record answers where nobody else has come in between, at most a few times too late."""
    for _ in range(5):
        seen = server.get(path, params={"limit": 1})
        headers = {"If-Match": seen.headers["etag"]}
        done = server.post(path, json={"interactions": answers}, headers=headers)
        if done.status_code == 200:
            before = int(seen.json()["history_version"].split("-")[1])
            assert int(done.json()["history_version"].split("-")[1]) == before + len(answers)
            break
    return done


def test_a_hundred_writers_at_two_servers_lose_double_and_mix_nothing(redis_socket):  # noqa: F811
    """Whether they retry by event, by call, on condition or not at all."""
    settings = Settings(artifact_dir=ARTIFACTS, redis_url=f"unix://{redis_socket}")
    user_id = uuid4().hex
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(settings)) for _ in range(2)]
        for server in servers:
            # FastAPI makes its routes with the first request, and warns less than Python's threads
            # can agree on: two applications of one process must not do so at a time.
            assert server.get(f"/users/{user_id}/interactions").json()["history_length"] == 0
        with ThreadPoolExecutor(WRITERS) as pool:
            done = list(pool.map(lambda n: written(servers, user_id, n), range(WRITERS)))
        listed: list[str] = []
        start: int | None = 0
        while start is not None:
            params = {"start": start, "limit": 1000}
            page = servers[0].get(f"/users/{user_id}/interactions", params=params).json()
            listed += [one["question_id"] for one in page["interactions"]]
            start = page["next"]

    acknowledged = [question for one in done for question in one]
    assert len(acknowledged) > WRITERS * CALLS
    assert Counter(listed) == Counter(acknowledged)
    places = {question: place for place, question in enumerate(listed)}
    for question in listed:  # those of one call stand together
        call, _, n = question.rpartition("-")
        assert n == "0" or places[question] == places[f"{call}-{int(n) - 1}"] + 1
