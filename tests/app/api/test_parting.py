"""Ends of connections: a last answer is read though its caller sends on, and nothing waits long."""

from __future__ import annotations

import asyncio
import select
import socket
import time
from contextlib import asynccontextmanager
from functools import partial

import pytest
import uvicorn
import uvloop

from app.api.door import Door, Room
from app.api.parting import Lingering
from app.telemetry import Metrics
from tests.app.api.test_heads import CHUNKED, LIMIT, is_closed
from tests.app.api.test_overload import ASK, Line, in_progress, request, until

LARGE = {**ASK, "note": "x" * 200_000}
MORE = b"x" * 4096
BAD = b"GREET / HTTP/1.1\r\n\r\n"

REFUSED = {
    "a head that is too large": (b"GET /?" + b"x" * LIMIT, 431),
    "no HTTP": (BAD, 400),
    "no host": (b"POST /predict HTTP/1.1\r\ncontent-length: 1000000\r\n\r\n", 400),
    "no chunk": (CHUNKED + b"zz\r\n", 400),
    "a head that is too slow": (b"GET / HT", 408),
    "a body that is too large": (request(LARGE, more="connection: close\r\n")[0], 413),
    "a body not asked for": (request(ASK, "/nothing", "expect: 100-continue\r\n")[0], 404),
    "an older caller": (request(LARGE, "/nothing")[0].replace(b"HTTP/1.1", b"HTTP/1.0"), 404),
}


def test_who_sends_on_can_read_why_he_is_not_listened_to(serve):
    """What he sends is dropped, not answered by a reset that would take the answer from him."""
    client = serve(max_head_bytes=LIMIT, max_body_bytes=150_000, head_timeout_s=1)
    for how, (sent, status) in REFUSED.items():
        with Line(client) as line:
            line.send(sent)
            assert select.select([line.socket], [], [], 30)[0]
            for _ in range(20):
                line.send(MORE)
                time.sleep(0.002)  # a reset has come by now
            found, headers, _ = line.answer()
            assert (found, headers["connection"]) == (status, "close"), how
            assert is_closed(line)
            line.send(MORE)


def test_who_sends_on_takes_no_place(serve):
    """Nor does what he has begun go on: it is ended when he is told so."""
    client = serve(requests_max_items=1, head_timeout_s=60, deadline_ms=60_000)
    with Line(client) as line:
        line.send(CHUNKED)
        until(lambda: in_progress(client) == 1)
        line.send(b"zz\r\n")
        assert line.answer()[0] == 400
        until(lambda: in_progress(client) == 0)
        line.send(MORE)
        assert client.post("/predict", json=ASK).status_code == 200


def test_a_flood_of_what_is_no_http_leaves_the_log_alone(serve, lines):
    """It is counted instead."""
    client = serve()
    for _ in range(20):
        with Line(client) as line:
            line.send(BAD)
            assert line.answer()[0] == 400

    assert not [one for one in lines() if "Invalid HTTP" in one["event"]]
    assert len(lines()) < 20


@asynccontextmanager
async def served(answer=b"", **given):
    """A server of one answer, in this loop; gives its address and what it knows of itself."""
    metrics = Metrics()
    state = {"max_head_bytes": 1024, "max_body_bytes": 10_000, "head_timeout_s": 0.2, **given}
    parts = {"lingering": Lingering(2), "metrics": metrics, "room": Room(8, metrics)}

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            scope["state"].update({**parts, **state})
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        headers = [(b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    listening.bind(("127.0.0.1", 0))
    config = uvicorn.Config(app, http=Door, log_config=None, timeout_graceful_shutdown=20)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield listening.getsockname(), server, state | parts
    finally:
        server.should_exit = True
        await asyncio.wait_for(serving, 30)


async def come_to(holds):
    """Wait for what must come; fail where it does not."""
    for _ in range(500):
        if holds():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not come to hold")


async def told_off(address):
    """A connection that was told why, and has not been closed on the caller's side."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(BAD)
    assert b"request_unreadable" in await reader.read()
    return reader, writer


async def sent_on(writer):
    """Send for a second."""
    for _ in range(100):
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


runs = pytest.mark.parametrize("run", [asyncio.run, uvloop.run])


@runs
def test_who_sends_on_is_not_waited_for_long(run):
    """However little it is, and though he says nothing."""

    async def asked():
        async with served() as (address, server, given):
            _, writer = await told_off(address)
            assert given["lingering"].now == 1
            await come_to(lambda: not server.server_state.connections)
            assert given["lingering"].now == 0
            with pytest.raises(ConnectionError):
                await sent_on(writer)
            writer.close()

    run(asked())


@runs
def test_who_sends_on_is_not_waited_for_long_though_he_sends_much(run):
    """He may send what a body may have, and is cut off."""

    async def asked():
        async with served(head_timeout_s=60) as (address, server, given):
            _, writer = await told_off(address)
            writer.write(b"x" * 9_000)
            await writer.drain()
            await asyncio.sleep(0.05)
            assert given["lingering"].now == 1
            writer.write(b"x" * 9_000)
            await come_to(lambda: not server.server_state.connections)
            writer.close()

    run(asked())


@runs
def test_only_so_many_are_waited_for(run):
    """One more is closed at once; when one of them has gone there is room again."""

    async def asked():
        async with served(head_timeout_s=60) as (address, server, given):
            callers = [await told_off(address) for _ in range(3)]
            await come_to(lambda: len(server.server_state.connections) == 2)
            assert given["lingering"].now == 2
            callers[0][1].close()
            await come_to(lambda: given["lingering"].now == 1)
            callers.append(await told_off(address))
            assert given["lingering"].now == 2
            for _, writer in callers:
                writer.close()
            await come_to(lambda: given["lingering"].now == 0)

    run(asked())


@runs
def test_a_server_that_stops_waits_for_no_farewell(run):
    """Of who has had his answer nothing more is wanted."""

    async def asked():
        async with served(b"end", head_timeout_s=60) as (address, _, given):
            kept = await told_off(address)
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n")
            await reader.readuntil(b"end")
            began_s = time.monotonic()
        assert time.monotonic() - began_s < 15  # it would be cut off after 20
        assert given["lingering"].now == 0
        kept[1].close()
        writer.close()

    run(asked())


ASKS = {
    "he said so": b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    "he spoke HTTP/1.0": b"GET / HTTP/1.0\r\n\r\n",
    "he was idle": b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
}


@asynccontextmanager
async def narrow(address, ask):
    """A caller who has asked, and whose socket holds little; gives how he takes so many bytes."""
    loop = asyncio.get_running_loop()
    with socket.socket() as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        caller.setblocking(False)
        await loop.sock_connect(caller, address)
        caller.send(ask)
        yield partial(loop.sock_recv, caller)


@runs
@pytest.mark.parametrize("why", ASKS)
def test_an_answer_that_nobody_takes_is_not_kept(run, why):
    """Though it is too small to hold up those behind it, and we have closed."""

    async def asked():
        async with served(b"x" * 60_000) as (address, server, _):
            server.config.timeout_keep_alive = 0
            async with narrow(address, ASKS[why]):
                await come_to(lambda: server.server_state.total_requests)
                assert server.server_state.connections
                await come_to(lambda: not server.server_state.connections)

    run(asked())


@runs
def test_who_stops_taking_his_last_answer_is_not_waited_for(run):
    """Though so little is left that others behind it would not be held up."""

    async def asked():
        async with (
            served(b"x" * 100_000) as (address, server, _),
            narrow(address, ASKS["he said so"]) as take,
        ):
            taken = 0
            while taken < 85_000:
                taken += len(await take(85_000 - taken))
            await come_to(lambda: not server.server_state.connections)

    run(asked())


@runs
def test_who_takes_his_last_answer_slowly_gets_all_of_it(run):
    """He is waited for as long as he takes something."""

    async def asked():
        async with (
            served(b"x" * 60_000) as (address, _, _),
            narrow(address, ASKS["he said so"]) as take,
        ):
            taken = 0
            while part := await take(6000):
                taken += len(part)
                await asyncio.sleep(0.08)
            assert taken > 60_000

    run(asked())
