"""Answers in one piece are uvicorn's, byte for byte, and leave the connection as its own do."""

import asyncio
import logging

import hypothesis.strategies as st
from hypothesis import event, example, given
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from app.api.whole import WholeAnswer

START, BODY = "http.response.start", "http.response.body"


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self):
        self.pieces = []
        self.is_closed = False

    def write(self, data):
        self.pieces.append(bytes(data))

    def close(self):
        self.is_closed = True

    def is_closing(self):
        return self.is_closed


names = st.sampled_from([b"etag", b"x-request-id", b"content-type", b"retry-after", b"bad name"])
values = st.one_of(
    st.sampled_from([b"application/json", b'"7-1"', b"", b"a\r\nset-cookie: b", b"a\0b", b"a\tb"]),
    st.binary(max_size=6),
)


@st.composite
def answers(draw):
    """An answer's messages: whole ones, and all that an application may send besides."""
    body = draw(st.binary(max_size=20))
    headers = draw(st.lists(st.tuples(names, values), max_size=4))
    length = draw(st.sampled_from([len(body), len(body), len(body), None, len(body) + 1]))
    if length is not None:
        headers.insert(draw(st.integers(0, len(headers))), (b"content-length", b"%d" % length))
    headers += draw(
        st.sampled_from(
            [[], [], [], [(b"connection", b"close")], [(b"transfer-encoding", b"chunked")]]
        )
    )
    status = draw(st.sampled_from([200, 200, 404, 429, 204, 304]))
    parts = draw(st.sampled_from([[body], [body], [body], [body[:5], body[5:]], []]))
    messages = [{"type": START, "status": status, "headers": headers}]
    for place, part in enumerate(parts):
        messages.append({"type": BODY, "body": part, "more_body": place + 1 < len(parts)})
    return messages


async def sent(messages, method, keep_alive, expects, ours):
    """What went over the wire, how it ended, and how uvicorn sees the request afterwards."""
    wire, ended = Wire(), []
    log = logging.getLogger("silent")
    cycle = RequestResponseCycle(
        scope={"type": "http", "method": method},
        transport=wire,
        flow=FlowControl(wire),
        logger=log,
        access_logger=log,
        access_log=False,
        default_headers=[(b"date", b"Wed, 25 Nov 2026 12:00:00 GMT")],
        message_event=asyncio.Event(),
        expect_100_continue=expects,
        keep_alive=keep_alive,
        on_response=lambda: ended.append(True),
    )
    send = WholeAnswer(cycle) if ours else cycle.send
    failure = None
    try:
        for message in messages:
            await send(message)
    except RuntimeError as exc:
        failure = str(exc)
    state = (
        cycle.response_complete,
        cycle.waiting_for_100_continue and cycle.response_complete,
        cycle.message_event.is_set(),
        ended,
        wire.is_closed,
    )
    return b"".join(wire.pieces), failure, state, len(wire.pieces)


PLAIN = [
    {"type": START, "status": 200, "headers": [(b"content-length", b"2")]},
    {"type": BODY, "body": b"ab"},
]

MISNAMED = [
    {"type": START, "status": 200, "headers": [(b"content-length", b"0"), (b"bad name", b"")]},
    {"type": BODY, "body": b""},
]


@given(answers(), st.sampled_from(["POST", "HEAD"]), st.booleans(), st.booleans())
@example(PLAIN, "POST", True, False)
@example(MISNAMED, "POST", True, False)
def test_it_is_uvicorns_answer(messages, method, keep_alive, expects):
    """The same bytes, the same refusal of what is no header, and the same end.

    But that a connection ends on which a body is announced that nobody has asked for.
    """
    written, failure, state, pieces = asyncio.run(
        sent(messages, method, keep_alive, expects, ours=True)
    )
    theirs, their_failure, their_state, _ = asyncio.run(
        sent(messages, method, keep_alive and not expects, expects, ours=False)
    )
    if len(messages) > 1:  # of a head alone nothing goes out: nobody could read an answer in it
        assert failure == their_failure
        assert state == their_state
        if failure is None:
            assert written == theirs
        event(f"pieces: {pieces}")
    else:
        assert written == b""


def test_a_whole_answer_is_one_piece():
    """Which is what it is for."""
    for ours, pieces in ((True, 1), (False, 2)):
        found = asyncio.run(sent(PLAIN, "POST", True, False, ours))
        assert found[3] == pieces
        assert found[0].endswith(b"content-length: 2\r\n\r\nab")
