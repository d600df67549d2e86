"""What an operator's machinery asks: health, metrics, request ids, logs."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import signal
from contextvars import Context
from uuid import uuid4

import pytest
import uvicorn
import uvloop
from prometheus_client.parser import text_string_to_metric_families

from app.__main__ import Server
from app.logs import JsonLines
from app.main import create_app
from app.settings import Settings
from app.telemetry import Request, current_request
from tests.app.conftest import SHIPPED


def samples(client, headers=None) -> dict[str, dict[tuple, float]]:
    """Sample name -> labels -> value."""
    found: dict[str, dict[tuple, float]] = {}
    for family in text_string_to_metric_families(client.get("/metrics", headers=headers).text):
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def test_a_running_service_is_alive_and_ready(client):
    """And says with which models, provider and store."""
    assert client.get("/livez").json() == {"alive": True, "stuck_s": 0.0}
    ready = client.get("/readyz").json()

    assert ready["ready"] is True
    assert [m["name"] for m in ready["models"]] == sorted(SHIPPED)
    assert ready["provider"]["effective"] == "cpu"
    assert ready["warnings"] == []
    assert ready["store"] == {
        "kind": "embedded",
        "history_max_items": 4096,
        "answers": True,
        "persistence": "append_only_file",
        "eviction": "noeviction",
        "takes_writes": True,
    }


def test_without_its_store_the_service_is_not_ready_but_answers_what_it_can(serve, tmp_path):
    """Inline histories need no store; stored ones are refused, never answered as if empty."""
    client = serve(redis_url=f"unix://{tmp_path}/none.sock")
    ready = client.get("/readyz")
    stored = client.post("/predict", json={"user_id": "u", "question_id": "17"})
    inline = client.post("/predict", json={"history": [], "question_id": "17"})
    batch = client.post(
        "/predict/batch",
        json={"items": [{"user_id": "u", "question_id": "1"}, {"history": [], "question_id": "1"}]},
    )

    assert ready.status_code == 503
    assert ready.json()["reasons"][0].startswith("store: ")
    assert (stored.status_code, stored.headers["retry-after"]) == (503, "1")
    assert inline.status_code == 200
    assert batch.json()["items"][0]["status"] == 503
    assert batch.json()["items"][1]["cold_start"] is True
    assert samples(client)["kt_store_up"] == {(): 0.0}


@pytest.mark.parametrize("model", ["last_query", "dkt"])
def test_stages_of_a_request_are_timed(client, model):
    """Each in the histogram, and this request's own in its answer."""
    stages = ["store_read", "queue", "run", "serialize"]
    ask = {"user_id": "u", "question_id": "17", "model": model, "knowledge_state": False}
    before = samples(client)["kt_stage_duration_seconds_count"]
    answer = client.post("/predict", json=ask)
    after = samples(client)["kt_stage_duration_seconds_count"]

    assert [s.split(";")[0] for s in answer.headers["server-timing"].split(", ")] == stages
    for stage in stages:
        assert after[(("stage", stage),)] > before[(("stage", stage),)]


def test_labels_are_templates_and_no_line_tells_of_a_user(client, lines):
    """Neither metrics nor logs hold an id of a user or a question."""
    user_id, question_id = uuid4().hex, uuid4().hex
    interactions = [{"question_id": question_id, "correct": True}]
    client.post(f"/users/{user_id}/interactions", json={"interactions": interactions})
    client.post("/predict", json={"user_id": user_id, "question_id": question_id})
    client.post("/predict", json={"user_id": user_id, "question_id": question_id, "model": "x"})
    client.get(f"/users/{user_id}/nothing/here")
    client.delete(f"/users/{user_id}")

    told = client.get("/metrics").text + json.dumps(lines())
    assert user_id not in told
    assert question_id not in told
    routes = {dict(labels)["route"] for labels in samples(client)["kt_requests_total"]}
    assert {"/predict", "/users/{user_id}", "/users/{user_id}/interactions", "none"} <= routes


def test_a_request_id_goes_in_and_out_and_into_the_log(client, lines):
    """One is made where none, or a strange one, is given."""
    given = client.get("/models", headers={"x-request-id": "abc-123"})
    strange = client.get("/models", headers={"x-request-id": 'x" onclick=1' * 20})

    assert given.headers["x-request-id"] == "abc-123"
    assert len(strange.headers["x-request-id"]) == 32
    assert "abc-123" in [line.get("request_id") for line in lines()]


def test_what_a_signal_comes_upon_is_not_its_reason(lines):
    """It may come in the midst of a request, which has nothing to do with it."""
    server = Server(uvicorn.Config(create_app(Settings()), log_config=None))

    def interrupted() -> None:
        current_request.set(Request("r-1"))
        server.handle_exit(signal.SIGTERM, None)

    Context().run(interrupted)

    [line] = [line for line in lines() if line["event"] == "stopping"]
    assert line["signal"] == "SIGTERM"
    assert "request_id" not in line


def test_a_problem_carries_the_request_id_and_is_counted(client):
    """So that a caller's report finds the log line."""
    before = samples(client).get("kt_problems_total", {}).get((("code", "not_found"),), 0)
    answer = client.get("/nothing", headers={"x-request-id": "r-1"})

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["request_id"] == "r-1"
    assert samples(client)["kt_problems_total"][(("code", "not_found"),)] == before + 1


def test_a_method_that_is_not_taken_says_which_are(client):
    """405, with the header that HTTP asks for."""
    answer = client.get("/predict")

    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json()["code"] == "method_not_allowed"


def test_methods_that_nothing_takes_are_told_together(client):
    """Whoever calls has many of them, and each would be a series for every route."""
    for method in ("PROPFIND", "LOCK", "HEAD"):
        assert client.request(method, "/livez").status_code == 405

    methods = {dict(labels)["method"] for labels in samples(client)["kt_requests_total"]}
    assert "any" in methods
    assert not methods & {"PROPFIND", "LOCK", "HEAD"}


def test_models_are_described(client):
    """The manifest is the artifact's, the card is for people."""
    listed = client.get("/models").json()["models"]
    one = client.get("/models/saint_plus").json()

    assert sum(m["is_default"] for m in listed) == sum(m["is_knowledge_model"] for m in listed) == 1
    assert one["manifest"]["network"] == "saint_plus"
    assert one["manifest"]["metrics"]["all"]["auc"]["value"] > 0.7
    assert one["card"].startswith("# ")
    assert client.get("/models/none").status_code == 404


def test_the_provider_is_told(client):
    """`auto` without a GPU has fallen back, and says so."""
    found = samples(client)

    assert found["kt_provider_info"] == {(("effective", "cpu"), ("requested", "auto")): 1.0}
    assert found["kt_provider_fallback"] == {(): 1.0}
    assert len(found["kt_model_info"]) == len(SHIPPED)


def test_a_full_queue_is_refused_with_429(serve):
    """At once, at the place of the item in a batch."""
    client = serve(queue_max_items=2)
    items = [{"history": [], "question_id": "1", "knowledge_state": False}] * 50

    found = client.post("/predict/batch", json={"items": items}).json()["items"]

    refused = [f for f in found if f.get("status") == 429]
    assert 0 < len(refused) < 50
    assert refused[0]["retry_after_s"] == 1
    assert samples(client)["kt_queue_refused_total"][(("model", "dkt_asked"),)] == len(refused)


def test_a_log_line_of_a_failure_quotes_no_value():
    """Messages may hold an id: at level info only the type and the places are told."""
    try:
        raise ValueError("learner-4711")
    except ValueError as exc:
        record = logging.makeLogRecord({"msg": "failed", "exc_info": (type(exc), exc, None)})

    assert "4711" not in JsonLines().format(record)
    assert "4711" in JsonLines(messages=True).format(record)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_what_the_event_loop_says_of_a_failure_quotes_no_value(lines, new_loop):
    """Neither what a task has raised that nobody waits for, nor what a callback was given."""

    async def failing(user_id: str) -> None:
        raise ValueError(user_id)

    def broken(user_id: str) -> None:
        raise ValueError(user_id)

    async def run() -> None:
        task = asyncio.create_task(failing("learner-4711"))
        asyncio.get_running_loop().call_soon(broken, "learner-4711")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del task
        gc.collect()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(run())

    told = [line for line in lines() if line["logger"] == "asyncio"]
    assert [line["error"] for line in told] == ["ValueError"] * 2
    assert "Task exception was never retrieved" in [line["event"] for line in told]
    assert "4711" not in json.dumps(told)


def test_settings_of_the_fixture_are_real(client):
    """The default model of the settings is among those served."""
    served = [m["name"] for m in client.get("/models").json()["models"]]

    assert Settings().default_model in served
    assert Settings().knowledge_model in served
