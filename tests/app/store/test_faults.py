"""What a store promises while its server is hurt: what is acknowledged stays, who asks is told."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.resources import files
from uuid import uuid4

import pytest
import uvloop
from redis.crc import key_slot

from app.errors import StoreFull, StoreReadOnly, StoreUnavailable
from app.records import records_of
from app.settings import Settings
from app.store.keys import HISTORY, user_key
from app.store.opening import Store, open_store
from benchmarks.stores import Node, clustered, one_server, until, watched
from tests.app.store.proxy import a_proxy
from tests.app.store.test_histories import add, answers
from tests.app.store.test_states import RULE, kept

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A server that every test of this module leaves whole."""
    with one_server() as opened:
        yield opened


@asynccontextmanager
async def opened(url: str, **settings) -> AsyncIterator[Store]:
    async with open_store(Settings(redis_url=url, **settings)) as store:
        yield store


def url_of(node: Node, user: str = "") -> str:
    return f"redis://{user}127.0.0.1:{node.port}"


async def in_time(call, wait_s: float = 20):
    """Return what a call gives once the store is there; what it raises until then must be named."""
    end_s = time.monotonic() + wait_s
    while True:
        try:
            return await call()
        except StoreUnavailable:
            assert time.monotonic() < end_s
            await asyncio.sleep(0.01)


async def test_a_server_that_hangs_is_waited_for_once():
    """Who asks after that is told at once, reads and writes alike, and who waits is let go."""
    user_id = uuid4().hex
    with one_server() as node:
        async with opened(url_of(node), redis_timeout_ms=1000) as store:
            await add(store.histories, user_id, answers(0, 3, events=True))
            node.halt()
            waiting = [asyncio.create_task(store.states.stand(user_id, RULE)) for _ in range(3)]
            with pytest.raises(StoreUnavailable):
                await store.histories.read(user_id, 10)
            for one in await asyncio.gather(*waiting, return_exceptions=True):
                assert isinstance(one, StoreUnavailable)
            async with asyncio.timeout(10):  # each would take a second
                for _ in range(50):
                    with pytest.raises(StoreUnavailable):
                        await store.states.stand(user_id, RULE)
                    with pytest.raises(StoreUnavailable):
                        await add(store.histories, user_id, answers(3, 4))
            node.go_on()

            assert (await in_time(lambda: store.states.stand(user_id, RULE))).total >= 3


async def test_a_server_that_is_gone_is_asked_by_nobody_but_the_one_who_looks():
    """However many call; and when it is back with all it had, they are answered."""
    user_id = uuid4().hex
    with one_server() as node:
        async with a_proxy(node.port) as (proxy, url), opened(url) as store:
            await add(store.histories, user_id, answers(0, 3))
            node.kill()
            await asyncio.gather(
                *(store.histories.read(user_id, 10) for _ in range(5)), return_exceptions=True
            )
            before = proxy.connections
            for _ in range(500):
                with pytest.raises(StoreUnavailable, match="does not answer as it should"):
                    await store.histories.read(user_id, 10)
            assert proxy.connections - before < 100
            node.start()
            stored = await in_time(lambda: store.histories.read(user_id, 10))

            assert stored.length == 3


async def test_killed_and_started_again_a_server_has_lost_and_doubled_nothing():
    """Under many writers, who send again what was not acknowledged; nor do reads find less."""
    users = [uuid4().hex for _ in range(6)]
    acknowledged = dict.fromkeys(users, 0)
    with one_server() as node:
        async with opened(url_of(node)) as store:

            async def learner(user_id: str) -> None:
                for number in range(60):
                    given = answers(number, number + 1, events=True)
                    await in_time(partial(add, store.histories, user_id, given))
                    acknowledged[user_id] = number + 1
                    standing = await in_time(partial(store.states.stand, user_id, RULE))
                    assert standing.total >= number + 1

            learners = [asyncio.create_task(learner(user_id)) for user_id in users]
            for share in (60, 180):
                while sum(acknowledged.values()) < share:
                    await asyncio.sleep(0.005)
                node.kill()
                node.start()
            await asyncio.gather(*learners)
            for user_id in users:
                stored = await store.histories.read(user_id, 100)
                assert stored.interactions["asked_ms"].tolist() == [1000 * i for i in range(60)]


async def test_a_slow_server_is_waited_for(node):
    """As long as it answers in KT_REDIS_TIMEOUT_MS nobody is refused."""
    user_id = uuid4().hex
    async with a_proxy(node.port) as (proxy, url), opened(url) as store:
        await add(store.histories, user_id, answers(0, 3))
        proxy.delay_s = 0.3
        stood = await asyncio.gather(*(store.states.stand(user_id, RULE) for _ in range(5)))

        assert [one.total for one in stood] == [3] * 5


async def test_a_connection_cut_in_an_answer_doubles_nothing(node):
    """A read, and a write that can be told from another, are sent again; else it is not known."""
    user_id = uuid4().hex
    async with a_proxy(node.port) as (proxy, url), opened(url) as store:
        await add(store.histories, user_id, answers(0, 5))
        proxy.cut_at = 7
        assert (await store.histories.read(user_id, 10)).length == 5
        proxy.cut_at = 1
        again = await add(store.histories, user_id, answers(5, 6, events=True))
        proxy.cut_at = 1
        with pytest.raises(StoreUnavailable, match="whether these answers were recorded"):
            await add(store.histories, user_id, answers(6, 7))

        assert (again.recorded + again.duplicates, again.length) == (1, 6)
        assert (await store.histories.read(user_id, 10)).length in (6, 7)


def test_cut_again_and_again_nobody_meets_an_error_without_a_name(node):
    """On the loop that serves: it has words of its own for writing to where nobody reads."""
    user_id = uuid4().hex

    async def read_while_cut() -> set[str]:
        async with opened(url_of(node)) as store:
            await add(store.histories, user_id, answers(0, 3))
            end = asyncio.Event()

            async def read() -> set[str]:
                met = set()
                while not end.is_set():
                    try:
                        await store.histories.read(user_id, 10)
                    except Exception as exc:
                        met.add(type(exc).__name__)
                    await asyncio.sleep(0.001)
                return met

            reading = [asyncio.create_task(read()) for _ in range(12)]
            for _ in range(60):
                await asyncio.to_thread(node.redis.client_kill_filter, _type="normal", skipme=True)
                await asyncio.sleep(0.01)
            end.set()
            return set().union(*await asyncio.gather(*reading))

    assert uvloop.run(read_while_cut()) <= {"StoreUnavailable"}


async def test_a_full_server_answers_reads(node):
    """And says of a write that there is no room."""
    user_id = uuid4().hex
    async with opened(url_of(node)) as store:
        await add(store.histories, user_id, answers(0, 3))
        node.redis.config_set("maxmemory", "1")
        try:
            with pytest.raises(StoreFull):
                await add(store.histories, user_id, answers(3, 4))
            await kept(store, user_id)  # it is lost, and nobody hurt

            standing = await store.states.stand(user_id, RULE)
            assert (standing.total, standing.state) == (3, b"")
        finally:
            node.redis.config_set("maxmemory", "0")


async def test_a_server_without_room_for_all_of_a_call_records_none_of_it(node):
    """Texts that are read in make room for answers behind them: those are not kept without."""
    refused, recorded = 0, 0
    async with opened(url_of(node)) as store:
        try:
            for spare in range(0, 2_000_000, 50_000):
                user_id = uuid4().hex
                records = records_of(answers(0, 2))
                more = {spare + n: f"{user_id}-{n}".ljust(2000) for n in range(300)}
                texts = more | dict(records.texts)
                used = node.redis.info("memory")["used_memory"]
                node.redis.config_set("maxmemory", used + spare)
                try:
                    await store.histories.append(user_id, records.interactions, texts)
                except StoreFull:
                    refused += 1
                    assert (await store.histories.read(user_id, 10)).length == 0
                else:
                    recorded += 1
                    assert await store.histories.texts(texts) == texts
        finally:
            node.redis.config_set("maxmemory", "0")

    assert min(refused, recorded) > 0


async def test_a_server_that_cannot_save_is_not_taken_for_one_that_is_gone():
    """It refuses even a PING then, and answers reads, also over a connection that is made anew."""
    user_id = uuid4().hex
    with one_server("--save", "3600 1") as node:
        async with opened(url_of(node)) as store:
            await add(store.histories, user_id, answers(0, 3))
            (node.folder / "dump.rdb").mkdir()
            node.redis.bgsave()
            until(
                lambda: node.redis.info("persistence")["rdb_last_bgsave_status"] == "err",
                "the server to fail to save",
            )
            with pytest.raises(StoreReadOnly, match="cannot write its file"):
                await add(store.histories, user_id, answers(3, 4))
            assert "cannot write its file" in (await store.histories.ping()).refusal
            for _ in range(3):
                node.redis.client_kill_filter(_type="normal", skipme=True)
                assert (await store.histories.read(user_id, 10)).length == 3


async def test_a_replica_answers_reads_and_names_itself_to_writers(node):
    """As does a master with too few replicas; neither is taken for one that is gone."""
    user_id = uuid4().hex
    async with opened(url_of(node)) as store:
        await add(store.histories, user_id, answers(0, 3))
        node.redis.config_set("min-replicas-to-write", "1")
        try:
            with pytest.raises(StoreReadOnly, match="min-replicas-to-write"):
                await add(store.histories, user_id, answers(3, 4))
            assert "min-replicas-to-write" in (await store.histories.ping()).refusal
        finally:
            node.redis.config_set("min-replicas-to-write", "0")
        node.redis.replicaof("127.0.0.1", "1")
        try:
            with pytest.raises(StoreReadOnly, match="replica"):
                await add(store.histories, user_id, answers(3, 4))
            assert (await store.states.stand(user_id, RULE)).total == 3
        finally:
            node.redis.replicaof("NO", "ONE")
        assert (await add(store.histories, user_id, answers(3, 4))).length == 4


async def test_a_store_without_the_replicas_asked_for_acknowledges_nothing(node):
    """KT_REDIS_MIN_REPLICAS: what only one server has may be lost with it."""
    user_id = uuid4().hex
    async with opened(url_of(node), redis_min_replicas=1, redis_timeout_ms=600) as store:
        with pytest.raises(StoreUnavailable, match="on 0 replicas and not on 1"):
            await add(store.histories, user_id, answers(0, 1, events=True))
        with pytest.raises(StoreUnavailable, match="on 0 replicas and not on 1"):
            await add(store.histories, user_id, answers(0, 1, events=True))
        assert (await store.histories.read(user_id, 10)).length == 1


ALLOWED = (
    "+ping +hello +client|setinfo +info +set +evalsha +script|load +strlen +getrange +setrange "
    "+append +copy +rename +unlink +persist +pexpire +pttl +time +hsetnx +hset +hget +hgetall "
    "+hmget +hdel +hincrby +hexists +hlen +expire"
)


@pytest.mark.parametrize(
    ("login", "said"),
    [
        ("nobody:wrong@", "wants another name or password"),
        ("reader:p@", "may not .*HSET"),
        ("plain:p@", "may not EVALSHA"),
        ("elsewhere:p@", "may not do all it must"),
    ],
)
async def test_a_user_who_may_not_do_all_is_told_what(node, login, said):
    """With neither name nor password in the message."""
    node.redis.execute_command("ACL", "SETUSER", "reader", "on", ">p", "~*", "+@all", "-hset")
    node.redis.execute_command("ACL", "SETUSER", "plain", "on", ">p", "~*", "+@all", "-evalsha")
    node.redis.execute_command("ACL", "SETUSER", "elsewhere", "on", ">p", "~x:*", "+@all")
    async with opened(url_of(node, login)) as store:
        with pytest.raises(StoreUnavailable, match=said) as caught:
            await store.histories.ping()

    assert login.split(":", maxsplit=1)[0] not in str(caught.value)


async def test_the_rule_in_the_manual_lets_a_user_do_all(node):
    """And no more than that."""
    manual = (files("app").parent / "docs/operations.md").read_text()
    assert ALLOWED in manual
    node.redis.execute_command(
        *("ACL", "SETUSER", "ktserve", "on", ">p", "~kt:*", "resetchannels", "-@all"),
        *ALLOWED.split(),
    )
    user_id = uuid4().hex
    async with opened(url_of(node, "ktserve:p@")) as store:
        await store.histories.ping()
        await add(store.histories, user_id, answers(0, 3))
        await kept(store, user_id)
        await add(store.histories, user_id, answers(3, 4, events=True))

        assert (await store.states.stand(user_id, RULE)).state == b"abcd"
        assert len(await store.histories.texts([1])) == 0
        assert await store.histories.forget(user_id)


def test_every_command_of_the_scripts_is_rehearsed():
    """But COPY: a user without it has histories in more room."""
    folder = files("app.store") / "lua"
    scripts = {f.name: f.read_text() for f in folder.iterdir() if f.name.endswith(".lua")}
    rehearsed = set(re.findall(r'"([A-Z]+)"', scripts.pop("rehearse.lua")))
    called = {
        name
        for text in scripts.values()
        for name in re.findall(r'\bcall\("([A-Z]+)"|\bpcall\("([A-Z]+)"', text)
    }

    assert {a or b for a, b in called} <= rehearsed | {"COPY"}


async def test_sentinels_are_asked_who_is_the_master():
    """One that hangs is followed by a replica with all that was acknowledged; nobody helps."""
    user_id = uuid4().hex
    with watched(down_after_ms=300) as service:
        async with opened(service.url, redis_min_replicas=1, redis_timeout_ms=1000) as store:
            await asyncio.gather(*(add(store.histories, user_id, answers(0, 1)) for _ in range(9)))
            for number in range(30):
                await add(store.histories, user_id, answers(number, number + 1, events=True))
            master = service.master
            master.halt()
            given = answers(30, 31, events=True)
            await in_time(lambda: add(store.histories, user_id, given))
            read = partial(store.histories.read, user_id, 31)
            stored = await asyncio.gather(*(in_time(read) for _ in range(20)))

            until(lambda: service.master is not master, "the sentinels to agree")
            for one in stored:
                assert one.interactions["asked_ms"].tolist() == [1000 * i for i in range(31)]


def on(master: Node, store: Store, count: int = 3) -> list[str]:
    """Return users whose histories a master has."""
    found: list[str] = []
    while len(found) < count:
        user_id = uuid4().hex
        if str(master.port) in store.histories._client.servers.place_of(user_key(HISTORY, user_id)):
            found.append(user_id)
    return found


async def test_in_a_cluster_only_who_is_on_a_killed_master_waits():
    """Until its replica takes over, with all that it had; nobody helps.

    The texts were there as well: others can record what answers questions met before.
    """
    with clustered() as cluster:
        async with opened(cluster.url) as store:
            has_texts = store.histories._client.servers.place_of("kt:t1")
            killed = next(m for m in cluster.masters if str(m.port) in has_texts)
            theirs = on(killed, store)
            others = [u for m in cluster.masters if m is not killed for u in on(m, store)]
            for user_id in theirs + others:
                await add(store.histories, user_id, answers(0, 3, events=True))
                await kept(store, user_id)
            killed.kill()
            with pytest.raises(StoreUnavailable):
                await store.histories.read(theirs[0], 10)
            with pytest.raises(StoreUnavailable):
                await add(store.histories, others[0], answers(7, 8))
            end_s, reached = time.monotonic() + 20, 0
            while reached < len(theirs):
                assert time.monotonic() < end_s
                for user_id in others:
                    assert (await store.states.stand(user_id, RULE)).state == b"abcd"
                    await add(store.histories, user_id, answers(0, 3, events=True))
                stood = (await store.states.stand_all(theirs + others, RULE)).each()
                assert None not in stood[len(theirs) :]
                reached = sum(standing is not None for standing in stood[: len(theirs)])
                await store.histories.ping()
            for user_id in theirs:
                assert (await store.histories.read(user_id, 10)).length == 3
                assert (await add(store.histories, user_id, answers(3, 4))).length == 4


async def test_users_are_found_where_their_slot_has_gone():
    """While it is on its way they wait; nothing is done twice."""
    with clustered(2, with_replicas=False) as cluster:
        async with opened(cluster.url) as store:
            old, new = cluster.masters
            names = [m.redis.execute_command("CLUSTER", "MYID") for m in cluster.masters]
            (user_id,) = on(old, store, 1)
            slot = key_slot(user_key(HISTORY, user_id).encode())
            new.redis.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", names[0])
            old.redis.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", names[1])
            writing = asyncio.create_task(add(store.histories, user_id, answers(0, 3)))
            reading = asyncio.create_task(store.states.stand(user_id, RULE))
            await asyncio.sleep(0.1)
            assert not writing.done()
            for master in (new, old):
                master.redis.execute_command("CLUSTER", "SETSLOT", slot, "NODE", names[1])

            assert (await writing).length == 3
            assert (await reading).total in (0, 3)
            assert (await store.histories.read(user_id, 10)).length == 3
            assert str(new.port) in store.histories._client.servers.place_of(
                user_key(HISTORY, user_id)
            )
