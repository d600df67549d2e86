"""Traces: what a collector is told of requests, and that it can harm none."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from uuid import uuid4

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from app.api.traces import Traces
from app.settings import Settings
from tests.app.api.test_keys import Keys
from tests.app.api.test_overload import until
from tests.app.conftest import ARTIFACTS, serving

STAGES = ["store_read", "queue", "run", "serialize"]


ENDLESS = 200_000_000


class Collector(ThreadingHTTPServer):
    """Takes traces as a collector does: OTLP over HTTP."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Taking)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.status = 200
        self.elsewhere: str | None = None  # where it sends who comes on to
        self.is_endless = False
        self.answered_bytes = 0
        self.bodies: list[bytes] = []
        self.may_answer = threading.Event()
        self.may_answer.set()

    @property
    def requests(self) -> list[ExportTraceServiceRequest]:
        return [ExportTraceServiceRequest.FromString(body) for body in self.bodies]

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def trace(self, trace_id: str) -> dict[str, list[Span]]:
        """Return what has come of a trace, by the spans' names; the request's own comes last."""
        found: dict[str, list[Span]] = {}
        for span in self.spans:
            if span.trace_id.hex() == trace_id:
                found.setdefault(span.name, []).append(span)
        return found


class _Taking(BaseHTTPRequestHandler):
    server: Collector
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.bodies.append(body)
        assert self.path == "/v1/traces"
        self.server.may_answer.wait(60)
        self.send_response(self.server.status)
        if self.server.elsewhere is not None:
            self.send_header("location", self.server.elsewhere)
        if self.server.is_endless:
            self.close_connection = True
            self.end_headers()
            with suppress(OSError):
                while self.server.answered_bytes < ENDLESS:
                    self.server.answered_bytes += self.wfile.write(bytes(65_536))
            return
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector."""
    with Collector() as collector:
        threading.Thread(target=collector.serve_forever, args=(0.05,), daemon=True).start()
        yield collector
        collector.may_answer.set()
        collector.shutdown()


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector of the test's own."""
    with collecting() as started:
        yield started


class Watched(NamedTuple):
    """A server, by its client, and the collector that it tells."""

    client: httpx.Client
    collector: Collector


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Those of all tests here that can tell their own requests from others'."""
    with collecting() as collector:
        settings = {"data_dir": tmp_path_factory.mktemp("traced"), "traces": collector.address}
        with serving(Settings(artifact_dir=ARTIFACTS, **settings)) as client:
            yield Watched(client, collector)


def parent(sampled: str = "01") -> tuple[str, str, dict[str, str]]:
    """A trace that a caller has begun: its id, the id of the caller's span, the header."""
    trace_id, span_id = uuid4().hex, uuid4().hex[:16]
    return trace_id, span_id, {"traceparent": f"00-{trace_id}-{span_id}-{sampled}"}


def told(span: Span) -> dict[str, Any]:
    """The attributes of a span."""
    values = {a.key: a.value for a in span.attributes}
    return {
        key: [v.string_value for v in value.array_value.values]
        if value.HasField("array_value")
        else getattr(value, value.WhichOneof("value"))
        for key, value in values.items()
    }


@pytest.mark.parametrize("model", ["last_query", "dkt"])
def test_a_request_is_a_span_under_its_callers_with_its_stages_in_it(watched, lines, model):
    """Ids are the caller's, times lie in each other, and the log has the same ids."""
    client, collector = watched
    trace_id, caller, headers = parent()
    headers |= {"tracestate": "vendor=opaque", "x-request-id": "r-1"}
    ask = {"user_id": "u", "question_id": "17", "model": model, "knowledge_state": False}

    answer = client.post("/predict", json=ask, headers=headers)

    assert answer.headers["x-request-id"] == "r-1"
    until(lambda: "POST /predict" in collector.trace(trace_id))
    found = collector.trace(trace_id)
    [request] = found.pop("POST /predict")
    assert request.parent_span_id.hex() == caller
    assert request.trace_state == "vendor=opaque"
    assert request.kind == Span.SPAN_KIND_SERVER
    assert told(request) == {
        "http.request.method": "POST",
        "http.route": "/predict",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "network.protocol.version": "1.1",
    }
    assert list(found) == STAGES
    before_ns = request.start_time_unix_nano
    for stage in STAGES:
        [span] = found[stage]
        assert span.parent_span_id == request.span_id
        assert before_ns <= span.start_time_unix_nano <= span.end_time_unix_nano
        before_ns = span.end_time_unix_nano
    assert before_ns <= request.end_time_unix_nano
    [line] = [line for line in lines() if line.get("request_id") == "r-1"]
    assert (line["trace_id"], line["span_id"]) == (trace_id, request.span_id.hex())


def test_nobody_can_be_told_from_a_trace(watched):
    """No id of a user, a question, a skill or a call, wherever in a request it stood."""
    _, collector = watched
    trace_id, _, headers = parent()
    client = httpx.Client(base_url=watched.client.base_url, headers=headers)
    ids = {name: uuid4().hex for name in ("user", "question", "skill", "event", "call", "bad")}
    user = f"/users/{ids['user']}"
    answers = [
        {
            "question_id": ids["question"],
            "skill_ids": [ids["skill"]],
            "correct": True,
            "event_id": ids["event"],
        }
    ]
    ask = {"user_id": ids["user"], "question_id": ids["question"], "skill_ids": [ids["skill"]]}
    post = {"interactions": answers}
    client.post(f"{user}/interactions", json=post, headers={"idempotency-key": ids["call"]})
    client.post("/predict", json=ask)
    client.post("/predict", json={**ask, "model": ids["bad"]})
    client.post("/predict", json={**ask, ids["bad"]: ids["bad"]})
    client.post("/predict/batch", json={"items": [ask, {**ask, "model": ids["bad"]}]})
    client.patch(f"{user}/interactions/0", json={"correct": False})
    client.get(f"{user}/interactions", params={"start": 0, "limit": 1, ids["bad"]: ids["bad"]})
    client.get(f"{user}/knowledge-state")
    client.get(f"{user}/export")
    client.get(f"{user}/{ids['bad']}", headers={"user-agent": ids["bad"]})
    client.request("PURGE", user, headers={"x-forwarded-for": ids["bad"]})
    client.delete(user)
    client.get("/models")
    client.close()

    until(lambda: "GET /models" in collector.trace(trace_id))
    everything = b"".join(collector.bodies)
    assert [name for name, one in ids.items() if one.encode() in everything.lower()] == []
    found = {name: len(spans) for name, spans in collector.trace(trace_id).items()}
    assert found["POST /users/{user_id}/interactions"] == found["DELETE /users/{user_id}"] == 1
    assert found["POST /predict"] == 3
    assert found["GET"] == 1  # at no route


def test_an_error_is_named_by_its_code(serve, collector, tmp_path):
    """What the caller did wrong is no error of the service's."""
    client = serve(traces=collector.address, redis_url=f"unix://{tmp_path}/none.sock")
    gone, _, headers = parent()
    client.post("/predict", json={"user_id": "u", "question_id": "1"}, headers=headers)
    wrong, _, headers = parent()
    client.post("/predict", json={"history": [], "question_id": "1", "model": "x"}, headers=headers)

    until(lambda: collector.trace(wrong))
    [failed], [refused] = (
        collector.trace(gone)["POST /predict"],
        collector.trace(wrong).popitem()[1],
    )
    assert failed.status.code == Status.STATUS_CODE_ERROR
    assert told(failed)["error.type"] == "store_unavailable"
    assert refused.status.code == Status.STATUS_CODE_UNSET
    assert told(refused)["ktserve.problems"] == ["model_unknown"]
    assert told(refused)["http.response.status_code"] == 404


def test_what_its_caller_does_not_trace_is_not_sent(watched):
    """Nor are probes, which come for ever."""
    client, collector = watched
    unsampled, _, headers = parent("00")
    client.post("/predict", json={"history": [], "question_id": "1"}, headers=headers)
    probe, _, headers = parent()
    client.get("/readyz", headers=headers)
    sampled, _, headers = parent()
    client.get("/models", headers=headers)

    until(lambda: collector.trace(sampled))
    assert collector.trace(unsampled) == collector.trace(probe) == {}


def test_who_shows_no_key_is_in_nobody_s_trace(serve, collector, tmp_path):
    """Whatever he asks for, and with another's trace."""
    keys = Keys(tmp_path / "keys.json")
    key = keys.add("reader", "read")
    client = serve(traces=collector.address, keys_file=keys.path)
    trace_id, _, headers = parent()
    for path in ("/models", "/openapi.json"):
        client.get(path, headers=headers)
        client.get(path, headers={"authorization": "Bearer kt_guessed", **headers})
    client.get("/models", headers={**key, **headers})

    until(lambda: collector.trace(trace_id))
    [span] = [one for one in collector.spans if one.kind == Span.SPAN_KIND_SERVER]
    assert told(span)["http.response.status_code"] == 200


@pytest.mark.parametrize(
    "headers",
    [
        [("traceparent", "")],
        [("traceparent", "00-" + "0" * 32 + "-" + "1" * 16 + "-01")],
        [("traceparent", "00-" + "1" * 31 + "-" + "1" * 16 + "-01")],
        [("traceparent", "ff-" + "1" * 32 + "-" + "1" * 16 + "-01")],
        [("traceparent", "00-" + "1" * 32 + "-" + "1" * 16 + "-01")] * 2,
        [("traceparent", "1" * 10_000)],
        [("tracestate", "vendor=opaque")],
    ],
    ids=["empty", "zeros", "short", "version", "twice", "long", "alone"],
)
def test_what_is_no_trace_context_is_nothing(collector, headers):
    """The request gets a trace of its own."""
    scope = {"method": "GET", "scheme": "http", "http_version": "1.1"}
    scope["headers"] = [(name.encode(), value.encode()) for name, value in headers]

    async def one() -> None:
        async with Traces(collector.address, share=1.0, longest_s=10) as traces:
            traces.begin(scope).end("/models", 200, [])

    asyncio.run(one())

    [span] = collector.spans
    assert re.fullmatch("[0-9a-f]{32}", span.trace_id.hex())
    assert span.trace_id.hex() not in ("0" * 32, "1" * 32)
    assert (span.parent_span_id, span.trace_state) == (b"", "")


def one_trace(address: str) -> None:
    """Trace a request, and send that."""

    async def one() -> None:
        async with Traces(address, share=1.0, longest_s=10) as traces:
            scope = {"method": "GET", "scheme": "http", "http_version": "1.1", "headers": []}
            traces.begin(scope).end("/models", 200, [])

    asyncio.run(one())


def test_traces_go_nowhere_else(collector, lines):
    """A collector that sends on to another one is one that takes nothing."""
    with collecting() as other:
        collector.status, collector.elsewhere = 307, f"{other.address}/v1/traces"
        one_trace(collector.address)

        assert len(collector.bodies) == 1
        assert other.bodies == []
    [lost] = [one for one in lines() if one["event"] == "traces_lost"]
    assert lost["why"] == "TooManyRedirects"


def test_an_answer_without_an_end_is_not_read_to_it(collector):
    """It would fill the memory."""
    collector.is_endless = True
    one_trace(collector.address)

    until(lambda: collector.answered_bytes > 0)
    assert len(collector.bodies) == 1
    assert collector.answered_bytes < ENDLESS / 2


def test_a_share_is_of_those_that_come_without_a_trace(collector):
    """Of others their caller decides."""
    scope = {"method": "GET", "scheme": "http", "http_version": "1.1", "headers": []}
    _, _, header = parent()
    traced = {**scope, "headers": [(k.encode(), v.encode()) for k, v in header.items()]}

    async def begun(share: float) -> list[bool]:
        async with Traces(collector.address, share=share, longest_s=10) as traces:
            return [traces.begin(one) is not None for one in [traced] + [scope] * 200]

    assert asyncio.run(begun(0.0)) == [True] + [False] * 200
    assert 50 < sum(asyncio.run(begun(0.5))) < 150
    assert all(asyncio.run(begun(1.0)))


def test_a_trace_of_many_stages_is_bounded_and_says_so(watched):
    """A batch has a run for each item that is asked alone."""
    client, collector = watched
    trace_id, _, headers = parent()
    items = [{"history": [], "question_id": "1", "knowledge_state": False}] * 100
    client.post("/predict/batch", json={"items": items}, headers=headers)

    until(lambda: "POST /predict/batch" in collector.trace(trace_id))
    found = collector.trace(trace_id)
    [request] = found.pop("POST /predict/batch")
    assert sum(map(len, found.values())) == 64
    assert told(request)["ktserve.stages_left_out"] == 201 - 64
    shared = [told(span)["ktserve.run_windows"] for span in found["run"]]
    assert 1 < max(shared) <= 64
    assert not any(told(span) for span in found["queue"])


def test_what_waits_is_sent_before_the_service_ends(collector, tmp_path):
    """Nobody has to wait for it."""
    trace_id, _, headers = parent()
    address = collector.address + "/"

    with serving(Settings(artifact_dir=ARTIFACTS, data_dir=tmp_path, traces=address)) as client:
        client.get("/models", headers=headers)

    assert "GET /models" in collector.trace(trace_id)
    [resource] = {str(r.resource) for q in collector.requests for r in q.resource_spans}
    assert '"ktserve"' in resource
    assert socket.gethostname() not in resource


def test_a_collector_that_refuses_is_told_of_once(serve, collector, lines):
    """And once when it takes traces again; requests are answered all the while."""
    collector.status = 400
    client = serve(traces=collector.address)
    for more in (1, 2, 3):
        assert client.get("/models").status_code == 200
        until(lambda more=more: len(collector.bodies) == more)
    collector.status = 200
    client.get("/models")
    until(lambda: any(line["event"] == "traces_back" for line in lines()))

    told = [line for line in lines() if line["event"].startswith("traces_")]
    assert [line["event"] for line in told] == ["traces_lost", "traces_back"]
    assert told[0]["why"] == "400"
    assert "request_id" not in told[0]
    assert not [line for line in lines() if line["logger"].startswith(("opentelemetry", "urllib3"))]


def test_a_collector_that_is_gone_harms_nobody(serve, lines, monkeypatch):
    """The log says so, without the address."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.5")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    client = serve(traces=f"http://127.0.0.1:{port}", drain_s=0.5)
    answers = [client.post("/predict", json={"history": [], "question_id": "1"}) for _ in range(9)]

    assert {answer.status_code for answer in answers} == {200}
    until(lambda: any(line["event"] == "traces_lost" for line in lines()))
    assert [line["why"] for line in lines() if line["event"] == "traces_lost"] == [
        "ConnectionError"
    ]
    assert str(port) not in json.dumps([line for line in lines() if line["event"] != "request"])


def test_the_end_does_not_wait_for_a_collector_that_hangs(collector, lines, tmp_path, monkeypatch):
    """What it did not take is left, and the log says so."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "50")
    collector.may_answer.clear()
    settings = {"data_dir": tmp_path, "traces": collector.address, "drain_s": 0.2}

    with serving(Settings(artifact_dir=ARTIFACTS, **settings)) as client:
        assert client.get("/models").status_code == 200
        until(lambda: collector.bodies)
        assert client.get("/models").status_code == 200

    assert not collector.may_answer.is_set()
    assert [line["event"] for line in lines() if line["event"].startswith("traces_")] == [
        "traces_left"
    ]


def test_fastapi_tells_nobody_of_its_own(collector, tmp_path, monkeypatch):
    """It would send paths, which hold user ids, wherever the environment says."""
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.address)

    with serving(Settings(artifact_dir=ARTIFACTS, data_dir=tmp_path)) as client:
        assert client.get("/users/u/interactions").status_code == 200

    assert collector.bodies == []


def test_without_the_setting_no_line_has_a_trace(client: httpx.Client, lines):
    """Whatever the caller sends."""
    trace_id, _, headers = parent()
    client.get("/models", headers=headers)

    until(lambda: "request" in [line["event"] for line in lines()])
    assert trace_id not in json.dumps(lines())
