"""Heads of requests: what is too large or too slow is told so, and holds no connection."""

from __future__ import annotations

import json
import select
import time
from contextlib import suppress

import pytest

from app.keys import made
from tests.app.api.test_operations import samples
from tests.app.api.test_overload import ASK, Line, one_inside, request
from tests.app.conftest import ARTIFACTS

LIMIT = 2048
ANSWER = {"question_id": "17", "correct": True}


def problem(line) -> tuple[int, str]:
    status, headers, body = line.answer()
    assert headers["connection"] == "close"
    return status, json.loads(body)["code"]


def is_closed(line) -> bool:
    return line.answers.read(1) == b""


def send_slowly(line, pieces, pause_s):
    for piece in pieces:
        line.send(piece)
        time.sleep(pause_s)


def test_a_head_that_is_too_large_is_refused(serve):
    """In one header or in many, in one piece or in pieces that never end."""
    client = serve(max_head_bytes=LIMIT)
    long = f"x-long: {'x' * LIMIT}\r\n"
    path = "/predict?" + "x" * LIMIT
    many = "".join(f"x-{n}: 123456789\r\n" for n in range(LIMIT // 10))
    for more in (long, many):
        with Line(client) as line:
            # In one piece: a body sent to who has closed already would be answered with a reset.
            line.send(b"".join(request(ASK, more=more)))
            assert problem(line) == (431, "head_too_large")
            assert is_closed(line)
    with Line(client) as line:
        line.send(b"".join(request(ASK, path=path)))
        assert problem(line) == (431, "head_too_large")
    for piece in (b"x" * 100, b"x-a: b\r\n" * 10):
        with Line(client) as line:
            line.send(b"POST /predict HTTP/1.1\r\nhost: here\r\nx-endless: ")
            line.send(piece * ((LIMIT - 200) // len(piece)))
            # What is sent to who has closed already would take the answer along.
            while not select.select([line.socket], [], [], 0.2)[0]:
                line.send(piece)
            assert problem(line) == (431, "head_too_large")

    assert client.post("/predict", json=ASK).status_code == 200


def test_a_head_may_be_as_large_as_is_said(serve):
    """And a body larger than that, on one connection after the other request."""
    client = serve(max_head_bytes=LIMIT)
    history = [ANSWER] * 300
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


def test_heads_of_requests_sent_ahead_are_not_counted_together(serve):
    """However many come in one piece, and though it ends in the midst of one; nor their bodies."""
    client = serve(max_head_bytes=LIMIT, head_timeout_s=0.5)
    small, large = b"".join(request(ASK)), b"".join(request({**ASK, "history": [ANSWER] * 300}))
    with Line(client) as line:
        line.send(small * 50 + small[:20], small[20:])
        assert [line.answer()[0] for _ in range(51)] == [200] * 51
        line.send(large[:-5000])
        time.sleep(0.05)
        line.send(large[-5000:] + small[:20], small[20:])
        assert [line.answer()[0] for _ in range(2)] == [200] * 2
        line.send(small[:20])
        for _ in range(20):  # each is in time, all together are not
            line.send(small[20:] + small[:20])
            assert line.answer()[0] == 200
            time.sleep(0.05)


def test_what_comes_behind_a_body_is_no_header(serve, tmp_path):
    """Nor is it held: it may go on for ever, and is not waited for."""
    secret, key = made("one", ["predict"], None, None, None)
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [key.model_dump(exclude_none=True)]}))
    client = serve(max_head_bytes=LIMIT, keys_file=keys)
    head, body = request(ASK)
    chunked = head.split(b"content-length")[0] + b"transfer-encoding: chunked\r\n\r\n"
    content = b"%x\r\n%s\r\n0\r\n" % (len(body), body)
    with Line(client) as line:
        line.send(chunked + content + f"authorization: Bearer {secret}\r\n\r\n".encode())
        assert line.answer()[0] == 401
    with Line(client) as line:
        line.send(chunked + content)
        assert line.answer()[0] == 401
        with pytest.raises(OSError):
            send_slowly(line, [b"x-more: and more\r\n" * 50] * 1000, 0.001)


def test_a_body_that_nobody_wants_any_more_is_not_waited_for(serve):
    """Whether its request was answered or refused; one that ends in time ends nothing else."""
    client = serve(head_timeout_s=0.5, requests_max_items=1)
    head, body = request(ASK, path="/nothing-here")
    with Line(client) as line:
        line.send(head)
        assert line.answer()[0] == 404
        line.send(body)
        time.sleep(0.6)
        line.send(*request(ASK))
        assert line.answer()[0] == 200
    with Line(client) as line, one_inside(client):
        line.send(head)
        assert line.answer()[0] == 429
        with pytest.raises(OSError):
            send_slowly(line, [body[place : place + 1] for place in range(len(body) - 1)], 0.05)


def test_a_request_that_asks_for_another_protocol_too_is_answered_in_this_one(serve):
    """With its body, wherever that comes: a client of Java asks for HTTP/2 each time."""
    client = serve()
    wish = "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"
    head, body = request(ASK, more=wish)
    with Line(client) as line:
        line.send(head + body)
        first = line.answer()
        line.send(head)
        time.sleep(0.05)
        line.send(body + head + body)
        again = [line.answer()[0] for _ in range(2)]
        line.send(f"GET /livez HTTP/1.1\r\nhost: here\r\n{wish}\r\n".encode() * 300)
        many = [line.answer()[0] for _ in range(300)]
    for version, more in (("1.1", "close, "), ("1.0", ""), ("1.0", "keep-alive, ")):
        with Line(client) as line:
            last = head.replace(b"HTTP/1.1", f"HTTP/{version}".encode())
            last = last.replace(b"Upgrade, ", f"{more}Upgrade, ".encode())
            line.send(last[:-9], last[-9:], body)
            assert line.answer()[0] == 200
            assert is_closed(line)

    assert first[0] == 200
    assert (
        json.loads(first[2])["p_correct"] == client.post("/predict", json=ASK).json()["p_correct"]
    )
    assert again == [200] * 2
    assert many == [200] * 300


CHUNKED = request(ASK)[0].split(b"content-length")[0] + b"transfer-encoding: chunked\r\n\r\n"
NOT_HTTP = [
    b"GET\r\n\r\n",
    b"GREET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/7\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /\xff HTTP/1.1\r\nhost: here\r\n\r\n",
    b"GET http://:x/ HTTP/1.1\r\nhost: here\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # as TLS begins
    b"GET / HTTP/1.1\r\nno header\r\n\r\n",
    b"GET / HTTP/1.1\r\nx y: z\r\n\r\n",
    b"POST /predict HTTP/1.1\r\ncontent-length: many\r\n\r\n",
    CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n",
    CHUNKED + b"2\r\n{}zz",
]


def test_what_is_no_http_is_told_so_as_everything_else(serve):
    """As a problem, with an id; counted as the caller's doing, and nobody else is troubled."""
    client = serve()
    for sent in NOT_HTTP:
        with Line(client) as line:
            line.send(sent)
            status, headers, body = line.answer()
            assert is_closed(line), sent

        problem = json.loads(body)
        assert (status, problem["code"], problem["status"]) == (400, "request_unreadable", 400)
        assert headers["content-type"] == "application/problem+json"
        assert headers["connection"] == "close"
        assert headers["x-request-id"] == problem["request_id"]
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
    with Line(client) as line:
        line.send(b"GET / HTTP/1.1\r\nx-request-id: mine\r\nhost: here\r\nno header\r\n\r\n")
        assert json.loads(line.answer()[2])["request_id"] == "mine"

    assert client.post("/predict", json=ASK).status_code == 200
    found = samples(client)
    times = len(NOT_HTTP) + 1
    assert found["kt_problems_total"][("code", "request_unreadable"),] == times
    unread = ("code", "400"), ("method", "any"), ("route", "none")
    assert found["kt_requests_total"][unread] == times
    assert not [labels for labels in found["kt_requests_total"] if dict(labels)["code"] >= "500"]


def test_what_is_no_http_gets_no_answer_that_is_another_s(serve):
    """Behind a request that is being answered, and in the body of one that has been."""
    client = serve()
    good, bad = b"".join(request(ASK, more="x-request-id: first\r\n")), NOT_HTTP[1]
    with Line(client) as line:
        line.send(good + bad)
        status, headers, _ = line.answer()
        assert (status, headers["x-request-id"]) == (200, "first")
        assert is_closed(line)
    with Line(client) as line:  # as of one that has a head
        line.send(good * 2 + CHUNKED + b"zz\r\n")
        for _ in range(2):
            status, headers, _ = line.answer()
            assert (status, headers["x-request-id"]) == (200, "first")
        assert is_closed(line)
    with Line(client) as line:
        line.send(good)
        assert line.answer()[0] == 200
        line.send(bad)
        status, headers, body = line.answer()
        assert (status, json.loads(body)["code"]) == (400, "request_unreadable")
        assert headers["x-request-id"] != "first"
    with Line(client) as line:
        line.send(CHUNKED.replace(b"/predict", b"/nothing-here"))
        assert line.answer()[0] == 404
        line.send(b"zz\r\n")
        assert is_closed(line)


def test_a_head_too_large_or_too_slow_waits_for_the_answers_before_it(serve):
    """It is behind them; what was asked first is answered, and then the connection is closed."""
    limits = {"max_head_bytes": LIMIT, "head_timeout_s": 0.2, "requests_max_items": 8}
    client = serve(artifact_dir=ARTIFACTS, **limits)
    good = b"".join(request({**ASK, "model": "saint_plus"}))
    for behind in (b"GET /" + b"x" * LIMIT * 2, b"GET /mod"):
        with Line(client) as line:
            line.send(good + behind)
            assert line.answer()[0] == 200
            with suppress(ConnectionError):
                assert line.answers.readline()[9:12] in (b"", b"408", b"431")


def test_a_body_that_was_not_asked_for_is_not_taken_for_a_request(serve):
    """Nor a request for a body: who waits to be asked, and is not, is answered last."""
    client = serve()
    waits = "expect: 100-continue\r\n"
    head, body = request(ASK, more=waits)
    with Line(client) as line:
        line.send(head)
        assert line.answers.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert line.answers.readline() == b"\r\n"
        line.send(body, *request(ASK))
        assert [line.answer()[0] for _ in range(2)] == [200, 200]
    with Line(client) as line:
        line.send(request(ASK, path="/nothing-here", more=waits)[0])
        status, headers, _ = line.answer()
        assert (status, headers["connection"]) == (404, "close")
        assert is_closed(line)
