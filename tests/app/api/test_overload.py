"""More than can be answered: who is refused, who is given up, and what those cost who have left."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from contextlib import contextmanager, suppress

import httpx
import pytest
import uvicorn

from app.api.door import Door, Room
from app.api.parting import Lingering
from app.settings import Settings
from app.telemetry import Metrics, Request, current_request
from benchmarks.stores import one_server
from tests.app.api.test_operations import samples
from tests.app.conftest import ARTIFACTS, serving

ASK = {"question_id": "17", "history": [], "knowledge_state": False}


class Line:
    """A bare connection: what is sent, and when, is the test's own choice."""

    def __init__(self, client):
        self.address = client.base_url.host, client.base_url.port
        self.socket = socket.create_connection(self.address, timeout=30)
        self.answers = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.answers.close()
        self.socket.close()

    def send(self, *pieces: bytes):
        for piece in pieces:
            self.socket.sendall(piece)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        status = int(self.answers.readline().split()[1])
        headers = {}
        while (line := self.answers.readline().strip()) != b"":
            name, _, value = line.decode().partition(": ")
            headers[name] = value
        return status, headers, self.answers.read(int(headers["content-length"]))


def request(body, path="/predict", more=""):
    """The head and the body of a POST."""
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: here\r\ncontent-type: application/json\r\n{more}"
        f"content-length: {len(content)}\r\n\r\n"
    )
    return head.encode(), content


@contextmanager
def one_inside(client):
    """A request whose body is still to come takes the only place; gives what ends it."""
    head, body = request(ASK)
    with Line(client) as line:
        line.send(head)
        until(lambda: in_progress(client) == 1)

        def end():
            line.send(body)
            return line.answer()[0]

        yield end


def in_progress(client):
    """Requests being answered, but for the one that asks."""
    return samples(client)["kt_requests_in_progress"][()] - 1


def until(holds):
    """Wait for what must come; fail where it does not."""
    for _ in range(1000):
        if holds():
            return
        time.sleep(0.01)
    pytest.fail("it did not come to hold")


@pytest.fixture
def store():
    """A store that can be told to answer nothing more."""
    with one_server() as node:
        yield node


def test_who_comes_to_a_full_house_is_refused_at_once(serve):
    """With 429, when to come again, and the id that the caller gave."""
    client = serve(requests_max_items=1)
    with one_inside(client) as end:
        refused = client.post("/predict", json=ASK, headers={"X-Request-Id": "mine"})

        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.headers["x-request-id"] == refused.json()["request_id"] == "mine"
        assert (refused.json()["code"], refused.json()["retry_after_s"]) == ("overloaded", 1)
        assert end() == 200
    assert client.post("/predict", json=ASK).status_code == 200


def test_whoever_watches_over_the_process_is_always_let_in(serve):
    """A full house is no reason to restart it, and is seen in its metrics."""
    client = serve(requests_max_items=1)
    with one_inside(client):
        assert client.get("/models").status_code == 429
        assert [client.get(p).status_code for p in ("/livez", "/readyz?x=1")] == [200, 200]
        found = samples(client)
    until(lambda: in_progress(client) == 0)
    with Line(client) as line:  # nor do they take a place
        line.send(b"GET /metrics HTTP/1.1\r\nhost: here\r\n\r\n" * 20)
        assert client.post("/predict", json=ASK).status_code == 200
    assert found["kt_problems_total"][(("code", "overloaded"),)] == 1
    refused = ("code", "429"), ("method", "any"), ("route", "none")
    assert found["kt_requests_total"][refused] == 1


def test_the_connection_of_a_refused_request_goes_on(serve):
    """Its body is read and forgotten, in however many pieces it comes."""
    client = serve(requests_max_items=1)
    head, body = request(ASK)
    with one_inside(client) as end, Line(client) as line:
        line.send(head)
        first = line.answer()
        line.send(body[:5])
        time.sleep(0.02)
        line.send(body[5:], head + body)
        second = line.answer()
        assert end() == 200
        line.send(head + body)

        assert (first[0], second[0], line.answer()[0]) == (429, 429, 200)
        assert "connection" not in first[1]


@pytest.mark.parametrize("more", ["connection: close\r\n", "expect: 100-continue\r\n"])
def test_a_refused_connection_ends_where_its_caller_or_its_body_would_be_in_doubt(serve, more):
    """A body that was to be sent after `100 Continue` may come or may not."""
    client = serve(requests_max_items=1)
    head, body = request(ASK, more=more)
    with one_inside(client), Line(client) as line:
        line.send(head, *([] if "expect" in more else [body]))
        status, headers, _ = line.answer()

        assert (status, headers["connection"]) == (429, "close")
        assert line.answers.read() == b""


def test_requests_sent_ahead_are_answered_in_order(serve):
    """Behind an answer that is still to come nobody is refused: it would come first."""
    client = serve(requests_max_items=1)
    good, bad = b"".join(request(ASK)), b"".join(request({"question_id": "1"}))
    with Line(client) as line:
        line.send(good + bad + good)

        assert [line.answer()[0] for _ in range(3)] == [200, 422, 200]


def test_requests_sent_ahead_take_one_place_together(serve, store):
    """They are answered one after the other: whoever sends many fills no house."""
    url = f"redis://127.0.0.1:{store.port}"
    client = serve(requests_max_items=4, redis_url=url, redis_timeout_ms=1500)
    store.halt()
    waits = b"".join(request({**ASK, "history": None, "user_id": "u"}))
    with Line(client) as line:
        line.send(waits + b"".join(request(ASK)) * 20)
        assert [client.post("/predict", json=ASK).status_code for _ in range(3)] == [200] * 3
        assert [line.answer()[0] for _ in range(21)] == [503] + [200] * 20
    assert [client.post("/predict", json=ASK).status_code for _ in range(3)] == [200] * 3


def test_a_crowd_is_answered_or_refused_and_leaves_no_trace(serve):
    """Nobody hangs, and when all have gone there is room for everybody."""
    client = serve(artifact_dir=ARTIFACTS, requests_max_items=4)

    async def crowd():
        async with httpx.AsyncClient(base_url=client.base_url, timeout=30) as many:
            asks = (many.post("/predict", json={**ASK, "model": "saint_plus"}) for _ in range(200))
            return [answer.status_code for answer in await asyncio.gather(*asks)]

    found = asyncio.run(crowd())

    assert set(found) == {200, 429}
    time.sleep(0.1)
    assert [client.post("/predict", json=ASK).status_code for _ in range(8)] == [200] * 8


def test_a_request_that_takes_too_long_is_given_up(serve, store):
    """At its deadline, whatever it waits for, with 503 and when to come again."""
    url = f"redis://127.0.0.1:{store.port}"
    client = serve(redis_url=url, redis_timeout_ms=5000, deadline_ms=200)
    store.halt()
    ask = {"user_id": "u", "question_id": "17"}
    answer = {"question_id": "1", "correct": True}
    began = time.monotonic()
    found = [
        client.post("/predict", json=ask),
        client.post("/predict/batch", json={"items": [ask]}),
        client.get("/users/u/knowledge-state"),
        client.post("/users/u/interactions", json={"interactions": [answer]}),
    ]

    assert time.monotonic() - began > 0.6
    for given_up in found:
        assert (given_up.status_code, given_up.headers["retry-after"]) == (503, "1")
        assert given_up.json()["code"] == "deadline_passed"
        assert given_up.json()["request_id"] == given_up.headers["x-request-id"]
    assert client.post("/predict", json=ASK).status_code == 200


def test_a_body_that_does_not_come_is_waited_for_until_the_deadline(serve):
    """Who sends the head alone holds a place no longer than that."""
    client = serve(requests_max_items=1, deadline_ms=200)
    head, _ = request(ASK)
    with Line(client) as line:
        line.send(head)

        assert line.answer()[0] == 503
        assert client.post("/predict", json=ASK).status_code == 200


USERS = [f"u{n}" for n in range(200)]
ASK_OF_ONE = {"question_id": "17", "model": "saint_plus", "knowledge_state": False}
MANY = {"items": [{**ASK_OF_ONE, "user_id": user} for user in USERS]}
"""Quick to read, slow to run: nothing is held of any of them yet."""

SLOW = {"artifact_dir": ARTIFACTS, "threads": 1, "batch_max_items": 1}


def with_histories(client):
    """Give users histories that make windows long."""
    answers = [{"question_id": str(i % 50), "correct": True} for i in range(199)]
    for user in USERS:
        path = f"/users/{user}/interactions"
        client.post(path, json={"interactions": answers}).raise_for_status()
    return client


def abandoned(client):
    found = samples(client).get("kt_queue_abandoned_total", {})
    return found.get((("model", "saint_plus"),), 0)


def test_what_is_given_up_leaves_the_queue(serve, tmp_path):
    """Its windows are not run."""
    # By another server: to write a history may take longer than this one gives its callers.
    with serving(Settings(artifact_dir=ARTIFACTS, data_dir=tmp_path / "data")) as writer:
        with_histories(writer)
    client = serve(**SLOW, deadline_ms=300)

    assert client.post("/predict/batch", json=MANY).status_code == 503
    assert abandoned(client) > 10


def test_who_has_left_costs_nothing_more(serve):
    """Windows that wait are taken out of the queue, and the place is free."""
    client = with_histories(serve(**SLOW, requests_max_items=1))
    with Line(client) as line:
        line.send(*request(MANY, "/predict/batch"))
        until(
            lambda: (
                samples(client).get("kt_queue_items", {}).get((("model", "saint_plus"),), 0) > 50
            )
        )

    until(lambda: abandoned(client) > 0)
    assert client.post("/predict", json=ASK).status_code == 200
    assert in_progress(client) == 0
    left = ("code", "499"), ("method", "POST"), ("route", "/predict/batch")
    assert samples(client)["kt_requests_total"][left] == 1


def test_who_has_left_is_not_waited_for_at_the_store(serve, store):
    """The request ends there and then, not with what it waits for."""
    client = serve(redis_url=f"redis://127.0.0.1:{store.port}", redis_timeout_ms=1500)
    store.halt()
    with Line(client) as line:
        line.send(*request({"user_id": "u", "question_id": "17"}))
        time.sleep(0.3)

    left = ("code", "499"), ("method", "POST"), ("route", "/predict")
    until(lambda: samples(client)["kt_requests_total"].get(left) == 1)


def test_who_leaves_with_more_sent_ahead_is_no_error(serve, store, caplog):
    """The first of several requests ends as any whose caller has gone."""
    client = serve(redis_url=f"redis://127.0.0.1:{store.port}", redis_timeout_ms=1500)
    store.halt()
    head, body = request({"user_id": "u", "question_id": "17"})
    with caplog.at_level("WARNING", logger="uvicorn.error"):
        with Line(client) as line:
            line.send((head + body) * 3)
            until(lambda: in_progress(client) == 1)
        until(lambda: in_progress(client) == 0)
    assert not [one for one in caplog.records if one.name.startswith("uvicorn")]


def big_asks(client, times):
    """As many requests for an answer that no socket's buffer holds often."""
    answers = [
        {"question_id": f"an id that is long {n:0100}", "correct": True} for n in range(1000)
    ]
    for _ in range(4):
        assert client.post("/users/u/interactions", json={"interactions": answers}).is_success
    return b"GET /users/u/export HTTP/1.1\r\nhost: here\r\n\r\n" * times


@pytest.mark.parametrize("first", ["his time", "the deadline"])
def test_who_takes_no_answer_holds_no_place(serve, caplog, first):
    """His connection ends; others are let in again, and it is no error of ours."""
    limits = {"his time": (0.2, 10_000), "the deadline": (60, 1000)}
    head_timeout_s, deadline_ms = limits[first]
    client = serve(requests_max_items=1, head_timeout_s=head_timeout_s, deadline_ms=deadline_ms)
    asks = big_asks(client, 60)
    with caplog.at_level("WARNING", logger="uvicorn.error"), Line(client) as line:
        line.send(asks)
        until(lambda: in_progress(client) == 1)

        until(lambda: client.post("/predict", json=ASK).status_code == 200)
        until(lambda: in_progress(client) == 0)
        with suppress(ConnectionError):
            while line.answers.read(1 << 20):
                pass
    assert not [one for one in caplog.records if one.name.startswith("uvicorn")]


def test_who_takes_his_answers_slowly_gets_all(serve):
    """He is waited for as long as he takes something."""
    client = serve(requests_max_items=8, head_timeout_s=1.5)
    asks = big_asks(client, 10)
    with Line(client) as line:
        line.send(asks)
        for _ in range(10):
            time.sleep(0.2)
            assert line.answer()[0] == 200


def test_refusals_that_nobody_takes_are_not_kept(serve):
    """Who asks on in a full house and reads nothing is not listened to any longer."""
    client = serve(requests_max_items=1)
    refused = b"".join(request(ASK, more="connection: keep-alive\r\n")) * 1000
    with one_inside(client) as end, Line(client) as line:
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            line.send(refused * 200)
        assert end() == 200


def test_a_request_sent_ahead_has_nothing_of_the_one_before():
    """What is logged while nothing is known of it yet bears no other one's id."""
    found = []

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            metrics = Metrics()
            bounds = {"max_head_bytes": 1024, "max_body_bytes": 1024, "head_timeout_s": 10.0}
            given = {"metrics": metrics, "room": Room(8, metrics), "lingering": Lingering()}
            scope["state"].update(bounds, **given)
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        found.append(current_request.get())
        current_request.set(Request("of one"))
        headers = [(b"content-length", b"3")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"end"})

    async def asked():
        server = uvicorn.Server(uvicorn.Config(app, port=0, http=Door, log_config=None))
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        address = server.servers[0].sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n" * 3)
        for _ in range(3):
            await reader.readuntil(b"end")
        writer.close()
        server.should_exit = True
        await serving

    asyncio.run(asked())

    assert found == [None] * 3
