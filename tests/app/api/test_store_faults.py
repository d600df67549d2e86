"""What callers are told while the store is hurt, and what they are answered all the same."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx

from app.store.keys import HISTORY, user_key
from benchmarks.stores import clustered, one_server, until
from tests.app.conftest import ARTIFACTS

INLINE = {"history": [{"question_id": "8", "correct": True}], "question_id": "17"}
STORED = {"user_id": "u", "question_id": "17"}
ANSWER = {"interactions": [{"question_id": "17", "correct": True}]}


def stored_calls(client: httpx.Client) -> list[Callable[[], httpx.Response]]:
    """Everything that needs a stored history."""
    return [
        lambda: client.post("/predict", json=STORED),
        lambda: client.post("/predict", json={**STORED, "model": "last_query"}),
        lambda: client.post("/users/u/interactions", json=ANSWER),
        lambda: client.get("/users/u/interactions"),
        lambda: client.get("/users/u/knowledge-state"),
        lambda: client.delete("/users/u"),
    ]


def test_without_its_store_a_service_says_so_at_once_and_comes_back_by_itself(serve):
    """Nobody waits, nobody is taken for new, and inline histories are answered throughout."""
    with one_server() as node:
        client = serve(artifact_dir=ARTIFACTS, redis_url=f"redis://127.0.0.1:{node.port}")
        client.post("/users/u/interactions", json=ANSWER).raise_for_status()
        client.post("/predict", json=STORED).raise_for_status()  # a memory of the user is held
        for end, begin in ((node.kill, node.start), (node.halt, node.go_on)):
            end()
            client.post("/predict", json=STORED)
            client.post("/predict", json=STORED)
            began_s = time.monotonic()
            for _ in range(5):
                for call in stored_calls(client):
                    answer = call()
                    assert answer.status_code == 503
                    assert answer.json()["code"] == "store_unavailable"
                    assert answer.headers["retry-after"] == "1"
                assert client.post("/predict", json=INLINE).status_code == 200
            both = client.post("/predict/batch", json={"items": [STORED, INLINE]}).json()["items"]
            assert both[0]["status"] == 503
            assert both[1]["history_length"] == 1
            assert time.monotonic() - began_s < 20  # thirty time-outs take a minute
            ready = client.get("/readyz")
            assert (ready.status_code, ready.json()["store"]["answers"]) == (503, False)
            assert "kt_store_up 0.0" in client.get("/metrics").text
            begin()
            until(lambda: client.get("/readyz").status_code == 200, "the store to be found again")
            found = client.post("/predict", json=STORED).json()
            assert (found["history_length"], found["cold_start"]) == (1, False)
            assert "kt_store_up 1.0" in client.get("/metrics").text


def is_told(client: httpx.Client, why: str) -> bool:
    """Say whether /readyz is green and has, with the metrics, why nothing is recorded."""
    ready, metrics = client.get("/readyz"), client.get("/metrics").text.splitlines()
    found = ready.json()
    (warning,) = found["warnings"]
    return (
        (ready.status_code, found["ready"], found["reasons"]) == (200, True, [])
        and (found["store"]["answers"], found["store"]["takes_writes"]) == (True, False)
        and why in warning
        and {"kt_ready 1.0", "kt_store_up 1.0", "kt_store_refuses_writes 1.0"} <= {*metrics}
    )


def test_a_store_that_takes_no_writes_answers_reads(serve):
    """Full, it is 507; a replica, it is 503 by another name; predictions go on.

    So nobody takes the service out of rotation: every other one has the same store.
    """
    with one_server() as node:
        client = serve(redis_url=f"redis://127.0.0.1:{node.port}")
        client.post("/users/u/interactions", json=ANSWER).raise_for_status()
        node.redis.config_set("maxmemory", "1")
        full = client.post("/users/u/interactions", json=ANSWER)
        assert (full.status_code, full.json()["code"]) == (507, "store_full")
        assert client.post("/predict", json=STORED).json()["history_length"] == 1
        assert is_told(client, "out of memory")
        node.redis.config_set("maxmemory", "0")
        node.redis.replicaof("127.0.0.1", "1")
        refused = client.post("/users/u/interactions", json=ANSWER)
        assert (refused.status_code, refused.json()["code"]) == (503, "store_read_only")
        assert refused.headers["retry-after"] == "1"
        assert client.post("/predict", json=STORED).json()["history_length"] == 1
        assert is_told(client, "it is a replica")
        node.redis.replicaof("NO", "ONE")

        again = client.post("/users/u/interactions", json=ANSWER)
        assert (again.status_code, again.json()["history_length"]) == (200, 2)
        assert client.get("/readyz").json()["warnings"] == []
        assert "kt_store_refuses_writes 0.0" in client.get("/metrics").text


def test_a_store_that_takes_no_writes_loses_nothing(serve):
    """A service that must not lose anything starts on one, and stays ready."""
    with one_server() as node:
        node.redis.config_set("min-replicas-to-write", "1")
        client = serve(redis_url=f"redis://127.0.0.1:{node.port}", require_durable=True)

        assert is_told(client, "min-replicas-to-write")
        assert client.post("/predict", json=INLINE).status_code == 200


def test_in_a_batch_only_those_on_a_server_that_is_gone_are_refused(serve):
    """Of a cluster: the others are answered, alone or together, and may record."""
    with clustered(2, with_replicas=False) as cluster:
        client = serve(redis_url=cluster.url)
        users = [f"u{number}" for number in range(12)]
        for user_id in users:
            client.post(f"/users/{user_id}/interactions", json=ANSWER).raise_for_status()
        gone, there = cluster.masters
        if cluster.master_of("kt:t1") is gone:
            gone, there = there, gone
        theirs = {u for u in users if cluster.master_of(user_key(HISTORY, u)) is gone}
        gone.kill()
        items = [{"user_id": u, "question_id": "17"} for u in users]
        for knowledge_state in (True, False):
            asked = [{**item, "knowledge_state": knowledge_state} for item in items]
            found = client.post("/predict/batch", json={"items": asked}).json()["items"]
            refused = {u for u, one in zip(users, found, strict=True) if one.get("status") == 503}
            assert refused == theirs
            assert {one.get("history_length") for one in found} == {None, 1}

        for user_id in users:
            ask = {"user_id": user_id, "question_id": "17"}
            recorded = client.post(f"/users/{user_id}/interactions", json=ANSWER)
            wanted = 503 if user_id in theirs else 200
            assert client.post("/predict", json=ask).status_code == wanted
            assert recorded.status_code == wanted
        assert 0 < len(theirs) < len(users)
        store = client.get("/readyz").json()["store"]
        assert (store["kind"], store["servers"], store["servers_gone"]) == ("cluster", 2, 1)
        assert "kt_store_servers_gone 1.0" in client.get("/metrics").text
        gone.start()
        until(lambda: client.get("/readyz").json()["store"]["servers_gone"] == 0, "its return")
