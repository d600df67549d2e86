"""A request that a proxy in front might read otherwise than this service is not answered."""

import json

import pytest

from tests.app.api.test_heads import CHUNKED, is_closed
from tests.app.api.test_overload import ASK, Line, request

BODY = json.dumps(ASK).encode()


def asked(*lines, target="/predict", version="HTTP/1.1"):
    """A question, with these headers and no others but that of its length."""
    head = [f"POST {target} {version}", *lines, f"content-length: {len(BODY)}", "", ""]
    return "\r\n".join(head).encode() + BODY


def told(client, sent):
    """The status, and the problem where there is one."""
    with Line(client) as line:
        line.send(sent)
        status, headers, body = line.answer()
        content = json.loads(body)
        if status == 400:
            assert headers["connection"] == "close"
            assert headers["x-request-id"] == content["request_id"]
            assert is_closed(line)
        return status, content


HOST, JSON = "Host: here", "Content-Type: application/json"

DOUBLED = {
    "Host": "Host: here",
    "Authorization": "Authorization: Bearer mine",
    "Content-Type": JSON,
    "Idempotency-Key": "Idempotency-Key: k",
    "Sec-Fetch-Site": "Sec-Fetch-Site: none",
}


@pytest.mark.parametrize("name", DOUBLED)
def test_what_may_stand_once_stands_once(client, name):
    """Twice the same is no better: another reader may join the two."""
    others = [line for line in (HOST, JSON) if line != DOUBLED[name]]
    once, twice = asked(*others, DOUBLED[name]), asked(*others, *[DOUBLED[name]] * 2)
    other = asked(DOUBLED[name], *others, DOUBLED[name].upper().rpartition(" ")[0] + " other")

    assert told(client, once)[0] == 200
    for sent in (twice, other):
        status, problem = told(client, sent)
        assert (status, problem["code"]) == (400, "header_invalid")
        assert problem["detail"].startswith(f"{name}: ")


def test_lists_may_stand_in_several_lines(client):
    """As may what opens nothing: the first id is the request's."""
    lists = ['If-Match: "a"', 'If-Match: "b"', "Accept: */*", "Accept: x/y", "X-Request-Id: 1"]
    traces = ["X-Request-Id: 2", "traceparent: 00", "traceparent: 01"]
    with Line(client) as line:
        line.send(asked(HOST, JSON, *lists, *traces))
        status, headers, _ = line.answer()
    assert (status, headers["x-request-id"]) == (200, "1")


def test_a_request_says_for_whom_it_is(client):
    """In HTTP/1.1; in 1.0 it need not, but if it does it is a host."""
    assert told(client, asked(JSON))[1]["code"] == "header_invalid"
    assert told(client, asked(JSON, version="HTTP/1.0"))[0] == 200
    for host in (
        "",
        "a.b-c:80",
        "127.0.0.1:1",
        "[::1]:8000",
        "[fe80::1]",
        "x%20y",
        "a_b",
        "a:",
        "\t a \t",
    ):
        assert told(client, asked(JSON, f"Host: {host}"))[0] == 200, host
    for host in ("a b", "a/b", "u@a", "a,b", "a:b", "a:1:2", "[::1", "a?", "http://a", "\xe9"):
        expected = 200 if host == "a,b" else 400  # as RFC 3986 has it
        assert told(client, asked(JSON, f"Host: {host}"))[0] == expected, host


TARGETS = {
    "/predict?x=1": 200,
    "http://here/predict": 200,
    "HTTPS://other:1/predict?x": 200,
    "/predict#": 400,
    "/predict?a#b": 400,
    "http://u@here/predict": 400,
    "http://here": 400,
    "ftp://here/predict": 400,
    "*": 404,
    # What it is of is not worked out: the path is matched as it came.
    "//predict": 404,
    "/./predict": 404,
    "/x/../predict": 404,
    "/%70redict": 404,
    "/predict%00": 404,
    "/predict/": 404,
    "/predict;a=b": 404,
    "/users/..%2f..%2fpredict": 405,  # a user who is called so
    "\\predict": 400,
    "/a b": 400,
    "predict": 400,
}


@pytest.mark.parametrize("target", TARGETS)
def test_where_a_request_is_for_has_one_reading(client, target):
    """No fragment, no name and password, no scheme but that of HTTP, and no path worked out."""
    assert told(client, asked(HOST, JSON, target=target))[0] == TARGETS[target]


def test_a_body_is_read_as_it_comes(client):
    """Who is told that it is compressed does not look for what is plain in it."""
    assert told(client, asked(HOST, JSON, "Content-Encoding: identity"))[0] == 200
    for coding in ("gzip", "br", "identity, gzip"):
        status, problem = told(client, asked(HOST, JSON, f"Content-Encoding: {coding}"))
        assert (status, problem["code"]) == (415, "media_type_unsupported")


CODINGS = ["gzip, chunked", "identity, chunked", ",chunked", "identity", "chunked, chunked", "x"]


@pytest.mark.parametrize("coding", CODINGS)
def test_a_body_ends_in_one_way(client, coding):
    """Coded as nobody here decodes it, or so that its end is a matter of taste, it is refused."""
    sent = CHUNKED.replace(b"chunked", coding.encode()) + b"0\r\n\r\n"
    assert told(client, sent)[0] == 400


LENGTHS = [
    b"content-length: 5\r\ncontent-length: 5",
    b"content-length: 5, 5",
    b"content-length: +5",
    b"content-length: 0x5",
    b"content-length: 5\r\ntransfer-encoding: chunked",
    b"transfer-encoding: chunked\r\ncontent-length: 5",
    b"transfer-encoding: chunked\r\ntransfer-encoding: chunked",
    b"transfer-encoding : chunked",
    b"transfer-encoding:\r\n chunked",
    b"x: folded\r\n line\r\ncontent-length: 5",
    b"x: a\nb: c",
    b"x: a\rb",
    b"x: a\0b",
]


@pytest.mark.parametrize("lines", LENGTHS)
def test_what_says_where_a_body_ends_says_it_once_and_to_the_letter(client, lines):
    """The parser's part, and asked for here: another one must be as strict."""
    sent = CHUNKED.replace(b"transfer-encoding: chunked", lines) + b"0\r\n\r\n"
    assert told(client, sent)[1]["code"] == "request_unreadable"


CHUNKS = [
    b"1;a\nb\r\nx\r\n",
    b"0x1\r\nx\r\n",
    b"1 \r\nx\r\n",
    b"1\nx\n",
    b"1\r\nxyz",
    b"+1\r\nx\r\n",
]


@pytest.mark.parametrize("chunk", CHUNKS)
def test_chunks_are_as_http_has_them(client, chunk):
    """Their sizes, their extensions, and their ends."""
    assert told(client, CHUNKED + chunk + b"0\r\n\r\n")[1]["code"] == "request_unreadable"


def test_extensions_of_chunks_are_read_over(client):
    """As they must be."""
    sent = b'%x;a=b;c="d;e"\r\n%s\r\n0;last\r\n\r\n' % (len(BODY), BODY)
    for coding in (b"chunked", b"Chunked "):
        assert told(client, CHUNKED.replace(b"chunked", coding) + sent)[0] == 200


OTHERS = ["HTTP/0.9", "HTTP/2.0", "HTTP/1.2", "HTTP/1.1 ", "http/1.1", "HTTP/1.01", ""]


@pytest.mark.parametrize("version", OTHERS)
def test_other_versions_are_not_spoken(client, version):
    """An answer in this one would be taken for something else."""
    assert told(client, asked(HOST, JSON, version=version))[1]["code"] == "request_unreadable"


def test_the_version_before_is_spoken_as_it_was(client):
    """It knew no chunks, nobody in it waits to be asked for a body, and one answer ends it."""
    chunked = CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0") + b"0\r\n\r\n"
    assert told(client, chunked)[1]["detail"].startswith("Transfer-Encoding: ")
    waits = "expect: 100-continue\r\nconnection: keep-alive\r\n"
    with Line(client) as line:
        line.send(b"".join(request(ASK, more=waits)).replace(b"HTTP/1.1", b"HTTP/1.0"))
        status, headers, _ = line.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert is_closed(line)


def test_what_is_refused_is_followed_by_nothing(serve):
    """A request in the same piece, behind one with which the connection ends, is not begun."""
    client = serve(max_head_bytes=2048, requests_max_items=1)
    answers = {"interactions": [{"question_id": "1", "correct": True}]}
    client.post("/users/u/interactions", json=answers).raise_for_status()
    behind = b"DELETE /users/u HTTP/1.1\r\nhost: here\r\n\r\n"
    for first in (
        asked(JSON),
        asked(HOST, JSON, "x-long: " + "x" * 4096),
        asked(HOST, JSON, "connection: close"),
        asked(HOST, JSON, version="HTTP/1.0"),
        b"GET / HTTP/7\r\n\r\n",
    ):
        with Line(client) as line:
            line.send(first + behind)
            line.answer()
            assert is_closed(line)
    assert len(client.get("/users/u/interactions").json()["interactions"]) == 1


def test_a_refusal_has_no_body_where_none_is_asked_for(client):
    """`HEAD` is told by the status alone."""
    with Line(client) as line:
        line.send(b"HEAD /models HTTP/1.1\r\n\r\n")
        assert line.answers.readline() == b"HTTP/1.1 400 Bad Request\r\n"
        assert line.answers.read().endswith(b"\r\n\r\n")
