"""API keys: who may do what, with whose users, how often; and that none of it can be seen."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from pathlib import Path

import pytest
import redis

from app.api.callers import OPEN, Gate, Names
from app.errors import KeysInvalid, RateLimited
from app.keys import SCOPES, Key, Keyring, made
from app.keys import main as keys_command
from app.main import create_app
from app.settings import Settings
from app.telemetry import Metrics
from tests.app.api.test_operations import samples
from tests.app.conftest import SHIPPED
from tests.app.store.conftest import redis_socket  # noqa: F401 - a fixture

ASK = {"question_id": "17", "history": [], "knowledge_state": False}
ANSWERS = {"interactions": [{"question_id": "17", "correct": True}]}

BODIES = {
    "predict": ASK,
    "batch": {"items": [ASK]},
    "interactions": ANSWERS,
    "0": {"correct": True},
    "current": {"version": SHIPPED["dkt"].name},
    "candidate": {"version": "2", "share": 0.5},
}
"""What a path is sent, by its last part."""

NEEDED = {
    ("POST", "/predict"): "predict",
    ("POST", "/predict/batch"): "predict",
    ("POST", "/users/{user_id}/interactions"): "write",
    ("PATCH", "/users/{user_id}/interactions/{number}"): "write",
    ("GET", "/users/{user_id}/interactions"): "read",
    ("GET", "/users/{user_id}/export"): "read",
    ("GET", "/users/{user_id}/knowledge-state"): "read",
    ("DELETE", "/users/{user_id}"): "write",
    ("GET", "/metrics"): "metrics",
    ("GET", "/models"): None,  # any key
    ("GET", "/models/{name}"): None,
    ("GET", "/models/{name}/versions"): None,
    ("GET", "/models/{name}/quality"): "metrics",
    ("PUT", "/models/{name}/current"): "admin",
    ("POST", "/models/{name}/rollback"): "admin",
    ("PUT", "/models/{name}/candidate"): "admin",
    ("DELETE", "/models/{name}/candidate"): "admin",
}


class Keys:
    """A file of keys, and the secrets behind it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[dict] = []

    def add(self, name: str, *scopes: str, tenant=None, per_second=None, burst=None) -> dict:
        """Add a key; return the headers that show it."""
        secret, key = made(name, scopes or SCOPES, tenant, per_second, burst)
        self.entries.append(key.model_dump(exclude_none=True))
        self.write()
        return {"authorization": f"Bearer {secret}"}

    def write(self) -> None:
        """Write the file, as a whole."""
        beside = self.path.with_suffix(".new")
        beside.write_text(json.dumps({"keys": self.entries}))
        os.replace(beside, self.path)


@pytest.fixture
def keys(tmp_path) -> Keys:
    return Keys(tmp_path / "keys.json")


def until(is_so) -> None:
    """Return when it is so."""
    end = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < end, "it never was"
        time.sleep(0.02)


# -- the file --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "Invalid JSON"),
        ("{}", "keys: Field required"),
        ('{"keys": []}', "keys: Tuple should have at least 1 item"),
        ('{"keys": [{"name": "a", "sha256": "00", "scopes": ["read"]}]}', "keys.0.sha256"),
        ('{"keys": [{"name": "a b", "sha256": "%s", "scopes": ["read"]}]}', "keys.0.name"),
        ('{"keys": [{"name": "a", "sha256": "%s", "scopes": ["reed"]}]}', "keys.0.scopes.0"),
        ('{"keys": [{"name": "a", "sha256": "%s", "scopes": []}]}', "keys.0.scopes"),
        ('{"keys": [{"name": "a", "sha256": "%s", "scopes": ["read"], "x": 1}]}', "keys.0.x"),
        ('{"keys": [{"name": "a", "sha256": "%s", "scopes": ["read"], "burst": 2}]}', "per_second"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_by_place(tmp_path, content, said):
    """And what it holds is not quoted: somebody may have written a key into it."""
    path = tmp_path / "keys.json"
    path.write_text(content.replace("%s", "ab" * 32))

    with pytest.raises(KeysInvalid) as refusal:
        Keyring(path)

    assert said in str(refusal.value)
    assert str(path) in str(refusal.value)
    assert "abab" not in str(refusal.value)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_refused_at_once(tmp_path, make):
    """Nobody waits for somebody to write into a pipe."""
    path = tmp_path / "keys.json"
    make(path)

    with pytest.raises(KeysInvalid, match=r"keys\.json is no file"):
        Keyring(path)


@pytest.mark.parametrize("what", ["name", "sha256"])
def test_a_name_or_a_key_that_is_there_twice_is_refused(keys, what):
    """Two keys could not be told apart in the log; one key would have two entries' rights."""
    keys.add("one")
    keys.add("two")
    keys.entries[1][what] = keys.entries[0][what]
    keys.write()

    with pytest.raises(KeysInvalid, match=f"{what} .*'one'.* is there twice") as refusal:
        Keyring(keys.path)

    assert keys.entries[0]["sha256"] not in str(refusal.value)


def test_a_change_that_cannot_be_read_is_told_of_once(keys):
    """The keys of before hold until the file is another one."""
    keys.add("one")
    ring = Keyring(keys.path)
    keys.path.write_text("{")

    with pytest.raises(KeysInvalid):
        ring.reload()
    again = ring.reload()
    keys.write()

    assert (again, [key.name for key in ring.keys]) == (False, ["one"])
    assert ring.reload()


def test_the_command_makes_a_key_that_holds(tmp_path, capsys):
    """What it prints is all there is to do."""
    assert keys_command(["shop", "--scopes", "read", "--tenant", "t", "--per-second", "2"]) == 0

    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    (secret,) = [line for line in lines if line.startswith("kt_")]
    (entry,) = [line for line in lines if line.startswith("{")]
    path = tmp_path / "keys.json"
    path.write_text(f'{{"keys": [{entry}]}}')
    found = Keyring(path).find(secret.encode())
    assert found is not None
    assert (found.name, found.scopes, found.tenant, found.per_second) == (
        "shop",
        ("read",),
        "t",
        2.0,
    )
    assert Keyring(path).find(secret[:-1].encode()) is None
    assert secret not in entry


def test_the_command_refuses_what_no_file_may_hold(capsys):
    """By the name of the field."""
    with pytest.raises(SystemExit):
        keys_command(["a b", "--scopes", "read"])

    assert "name" in capsys.readouterr().err


# -- over HTTP -------------------------------------------------------------------------------------


def test_every_route_says_what_it_needs():
    """A new one is not open by mistake."""
    paths = create_app(Settings()).openapi()["paths"]
    routes = {(m.upper(), path) for path, of in paths.items() for m in of if path not in OPEN}

    assert routes == NEEDED.keys()


def test_a_key_opens_what_its_scopes_say_and_nothing_else(serve, keys):
    """Of every route; without a key or with another one, none but the probes is answered."""
    shown = {scope: keys.add(scope, scope) for scope in SCOPES}
    client = serve(keys_file=keys.path)

    def status(method: str, path: str, headers: dict) -> int:
        path = path.replace("{user_id}", "u").replace("{name}", "dkt").replace("{number}", "0")
        body = BODIES.get(path.rpartition("/")[2])
        content = {} if body is None else {"json": body}
        return client.request(method, path, headers=headers, **content).status_code

    for (method, path), needed in NEEDED.items():
        for scope, headers in shown.items():
            found = status(method, path, headers)
            if needed in (scope, None):  # there is one version alone: nothing to go back to
                is_lacking = "rollback" in path or (method, path[-9:]) == ("PUT", "candidate")
                assert found == (404 if is_lacking else 200), (path, scope)
            else:
                assert found == 403, (path, scope)
        assert status(method, path, {}) == 401
        assert status(method, path, {"authorization": "Bearer kt_guessed"}) == 401
        assert status(method, path, {"authorization": "Basic a2V5"}) == 401
    for path in ("/livez", "/readyz", "/openapi.json"):
        assert client.get(path).status_code == 200


def test_a_refusal_says_what_would_do(serve, keys):
    """Which header, which scope; and never the key."""
    reads = keys.add("reader", "read")
    client = serve(keys_file=keys.path)

    missing = client.post("/predict", json=ASK)
    unknown = client.post("/predict", json=ASK, headers={"authorization": "Bearer kt_mine"})
    lacking = client.post("/predict", json=ASK, headers=reads)

    assert missing.headers["www-authenticate"] == unknown.headers["www-authenticate"] == "Bearer"
    told = [r.json()["code"] for r in (missing, unknown, lacking)]
    assert told == ["key_missing", "key_unknown", "scope_missing"]
    assert "'predict'" in lacking.json()["detail"]
    assert "kt_mine" not in unknown.text
    assert all(r.json()["request_id"] == r.headers["x-request-id"] for r in (missing, lacking))


def test_tenants_do_not_meet(serve, keys):
    """The same user id is another user to each of them, and to who has no tenant."""
    callers = [keys.add("a", tenant="a"), keys.add("b", tenant="b"), keys.add("none")]
    client = serve(keys_file=keys.path)
    for n, headers in enumerate(callers, 1):
        body = {"interactions": ANSWERS["interactions"] * n}
        client.post("/users/u/interactions", json=body, headers=headers).raise_for_status()

    def lengths() -> list[int]:
        ask = {"user_id": "u", "question_id": "17"}
        found = []
        for headers in callers:
            one = client.post("/predict", json=ask, headers=headers).json()
            many = client.post("/predict/batch", json={"items": [ask] * 2}, headers=headers).json()
            page = client.get("/users/u/interactions", headers=headers).json()
            state = client.get("/users/u/knowledge-state", headers=headers).json()
            seen = {p["history_length"] for p in (one, *many["items"], page, state)}
            assert len(seen) == 1
            found.append(seen.pop())
        return found

    assert lengths() == [1, 2, 3]
    assert client.delete("/users/u", headers=callers[1]).json() == {"deleted": True}
    assert lengths() == [1, 0, 3]
    sly = client.get("/users/a%1Fu/interactions", headers=callers[2])
    assert sly.status_code == 422  # no id says another tenant's name


def test_with_a_secret_the_store_knows_no_user(serve, redis_socket):  # noqa: F811
    """Not by name, and not by a hash that could be tried out without the secret."""
    store = redis.Redis(unix_socket_path=str(redis_socket))
    url = f"unix://{redis_socket}"
    user_id = "grace.hopper@school.example"
    client = serve(redis_url=url, user_id_secret="correct horse battery")
    client.post(f"/users/{user_id}/interactions", json=ANSWERS).raise_for_status()
    ask = {"user_id": user_id, "question_id": "17"}
    client.post("/predict", json=ask).raise_for_status()

    again = serve(redis_url=url, user_id_secret="correct horse battery")
    other = serve(redis_url=url, user_id_secret="another secret entirely")

    assert again.post("/predict", json=ask).json()["history_length"] == 1
    assert other.post("/predict", json=ask).json()["history_length"] == 0
    assert not [k for k in store.scan_iter("*") if b"hopper" in k]
    assert again.delete(f"/users/{user_id}").json() == {"deleted": True}


def test_a_key_is_used_no_faster_than_it_may(serve, keys):
    """What comes too fast is refused with when to come again; other keys do not feel it."""
    slow = keys.add("slow", per_second=0.5, burst=3)
    free = keys.add("free")
    client = serve(keys_file=keys.path)

    answers = [client.post("/predict", json=ASK, headers=slow) for _ in range(5)]

    assert [a.status_code for a in answers] == [200, 200, 200, 429, 429]
    assert answers[0].headers["ratelimit-policy"] == '"slow";q=3;w=6'
    assert answers[0].headers["ratelimit"] == '"slow";r=2;t=2'
    refused = answers[-1]
    assert refused.json()["code"] == "rate_limited"
    assert int(refused.headers["retry-after"]) in (1, 2)
    assert refused.headers["ratelimit"].startswith('"slow";r=0;')
    assert client.post("/predict", json=ASK, headers=free).status_code == 200
    until(lambda: client.post("/predict", json=ASK, headers=slow).status_code == 200)


def test_keys_change_while_requests_run(serve, keys):
    """A new one holds, one taken out does not, and a broken file changes nothing."""
    old = keys.add("old")
    client = serve(keys_file=keys.path)
    assert client.post("/predict", json=ASK, headers=old).status_code == 200

    new = keys.add("new")
    until(lambda: client.post("/predict", json=ASK, headers=new).status_code == 200)
    keys.path.write_text("{")
    refused = (("result", "refused"),)
    until(lambda: samples(client, new)["kt_key_reloads_total"].get(refused) == 1)
    assert client.post("/predict", json=ASK, headers=old).status_code == 200
    del keys.entries[0]
    keys.write()
    until(lambda: client.post("/predict", json=ASK, headers=old).status_code == 401)

    assert client.post("/predict", json=ASK, headers=new).status_code == 200


def test_a_change_of_many_keys_looks_at_each_once(keys, monkeypatch):
    """Requests wait meanwhile: whose key stayed is not sought among all others."""
    shown = [keys.add(f"key-{n}", per_second=0.001, burst=1) for n in range(50)]
    metrics, compared = Metrics(), []
    gate = Gate(Keyring(keys.path), Names(None), metrics)
    for one in shown:
        gate.admit("/predict", [(b"authorization", one["authorization"].encode())])[1].take()
    is_same = Key.__eq__
    monkeypatch.setattr(Key, "__eq__", lambda a, b: compared.append(a) or is_same(a, b))

    async def changed():
        watching = asyncio.create_task(gate.watch())
        keys.entries[0]["burst"] = 2
        keys.write()
        reloads = ("kt_key_reloads_total", {"result": "done"})
        while not metrics.registry.get_sample_value(*reloads):
            await asyncio.sleep(0.01)
        watching.cancel()

    asyncio.run(asyncio.wait_for(changed(), 20))

    left = [
        gate.admit("/predict", [(b"authorization", s["authorization"].encode())])[1] for s in shown
    ]
    assert [bucket.burst for bucket in left] == [2] + [1] * 49
    with pytest.raises(RateLimited):
        left[1].take()
    assert len(compared) <= len(shown)


def test_logs_and_metrics_tell_the_key_s_name_alone(serve, keys, caplog):
    """Not the key, not its hash, no user."""
    caplog.set_level(logging.DEBUG)
    shown = keys.add("shop", tenant="school-7")
    client = serve(keys_file=keys.path)
    client.post("/users/ada-lovelace/interactions", json=ANSWERS, headers=shown)
    client.post("/predict", json={"user_id": "ada-lovelace", "question_id": "17"}, headers=shown)
    client.post("/predict", json=ASK, headers={"authorization": "Bearer kt_not-a-key"})
    client.get("/users/ada-lovelace/knowledge-state", headers=shown)

    told = client.get("/metrics", headers=shown).text
    ours = [record for record in caplog.records if not record.name.startswith("http")]
    lines = " ".join(f"{record.getMessage()} {vars(record)}" for record in ours)

    assert samples(client, shown)["kt_key_requests_total"][(("key", "shop"),)] == 4
    secret = shown["authorization"].removeprefix("Bearer ")
    for what in ("ada-lovelace", secret, keys.entries[0]["sha256"], "kt_not-a-key"):
        assert what not in told
        assert what not in lines
    assert "shop" in lines
