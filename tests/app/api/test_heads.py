"""Heads of requests: what is too large or too slow is told so, and holds no connection."""

from __future__ import annotations

import json
from contextlib import suppress

from tests.app.api.test_overload import ASK, Line, request

LIMIT = 2048


def problem(line) -> tuple[int, str]:
    status, headers, body = line.answer()
    assert headers["connection"] == "close"
    return status, json.loads(body)["code"]


def is_closed(line) -> bool:
    return line.answers.read(1) == b""


def test_a_head_that_is_too_large_is_refused(serve):
    """In one header or in many, in one piece or in pieces that never end."""
    client = serve(max_head_bytes=LIMIT)
    long = f"x-long: {'x' * LIMIT}\r\n"
    many = "".join(f"x-{n}: 123456789\r\n" for n in range(LIMIT // 10))
    for more in (long, many):
        with Line(client) as line:
            line.send(*request(ASK, more=more))
            assert problem(line) == (431, "head_too_large")
            assert is_closed(line)
    for piece in (b"x" * 100, b"x-a: b\r\n" * 10):
        with Line(client) as line:
            line.send(b"POST /predict HTTP/1.1\r\nhost: here\r\nx-endless: ")
            with suppress(OSError):  # it may be closed before all has been sent
                for _ in range(LIMIT // len(piece) + 2):
                    line.send(piece)
            assert problem(line) == (431, "head_too_large")

    assert client.post("/predict", json=ASK).status_code == 200


def test_a_head_may_be_as_large_as_is_said(serve):
    """And a body larger than that, on one connection after the other request."""
    client = serve(max_head_bytes=LIMIT)
    history = [{"question_id": "17", "correct": True}] * 300
    with Line(client) as line:
        for _ in range(3):
            more = f"x-long: {'x' * (LIMIT - 200)}\r\n"
            line.send(*request({**ASK, "history": history}, more=more))
            assert line.answer()[0] == 200


def test_who_takes_too_long_over_a_head_is_not_waited_for(serve):
    """Told so where something has come, on the first request of a connection and on later ones."""
    client = serve(head_timeout_s=0.3)
    with Line(client) as line:
        assert is_closed(line)
    with Line(client) as line:
        line.send(b"POST /predict HTTP/1.1\r\nhost: here\r\n")
        assert problem(line) == (408, "head_too_slow")
        assert is_closed(line)
    with Line(client) as line:
        line.send(*request(ASK))
        assert line.answer()[0] == 200
        line.send(b"POST /predict HT")
        assert problem(line) == (408, "head_too_slow")


def test_a_connection_at_work_is_no_slow_one(serve):
    """Neither while it is answered nor between two requests."""
    client = serve(head_timeout_s=0.3)
    with Line(client) as line:
        head, body = request(ASK)
        line.send(head)
        line.socket.settimeout(0.6)
        try:  # nothing comes: it waits for the body, whose time is the request's deadline
            line.socket.recv(1)
            raise AssertionError("it was not waited for")
        except TimeoutError:
            line.socket.settimeout(30)
        line.send(body)
        assert line.answer()[0] == 200
