"""The servers of a cluster: who has which slot, found out again whenever that may have changed.

Each server has a client, and a health, of its own: where one is gone, those whose users are on the
others notice nothing. redis-py's own cluster client is not used: it hangs up on every server when
one slot is not covered, and raises where it should wait for a free connection.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import Context
from typing import Any

from redis.asyncio import Redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, RedisError

from app.store.addresses import Host
from app.store.failures import gone, why
from app.store.servers import Server

log = logging.getLogger(__name__)

MakeClientOf = Callable[[Host, int], Redis]

_LOOK_S = 1.0  # for one server to tell who has what
_TRIES = 2000  # to find a key of a server: one with a slot or two is done without
_PAUSE_S = 0.2  # between two looks, for as long as the cluster is not whole


class Cluster:
    """The servers of one cluster. `open` looks first; where nobody answers, that goes on behind."""

    is_cluster = True

    def __init__(self, seeds: Sequence[Host], make: MakeClientOf, connections: int) -> None:
        """`seeds` are asked who there is; `make` gives a client for one of them."""
        self._seeds = tuple(seeds)
        self._make = make
        self._connections = connections
        self._servers: dict[Host, Server] = {}
        self._slots: list[Host | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        self._keys: dict[str, list[str]] = {}  # template -> a key of each server
        self._reason = "nobody has been reached yet"
        self._looking: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        for host in seeds:
            self._known(host)

    async def open(self) -> None:
        """Find out who has what, or at least try to once."""
        if not await self._look():
            self.doubt()

    def of(self, key: str) -> Server:
        """Return the server that has a key; `StoreUnavailable` where none is known."""
        host = self._slots[key_slot(key.encode())]
        if host is None:
            self.doubt()
            raise gone(f"no server has this user's slot: {self._reason}")
        return self._servers[host]

    def place_of(self, key: str) -> str:
        """Return a name for the server that has a key; one for all who have none."""
        return str(self._slots[key_slot(key.encode())])

    def one_of_each(self, template: str) -> Sequence[str]:
        """Return keys, `template` filled in with words in braces, each of another server."""
        if template not in self._keys:
            wanted, keys = {h for h in self._slots if h is not None}, []
            for number in range(_TRIES):
                if not wanted:
                    break
                key = template % f"{{{number}}}"
                if (host := self._slots[key_slot(key.encode())]) in wanted:
                    wanted.remove(host)
                    keys.append(key)
            self._keys[template] = keys or [template % ""]
        return self._keys[template]

    def moved(self, exc: AskError) -> None:
        """Believe a server that says who has a slot now, and see what else has changed."""
        if exc.slot_id is not None and exc.host:
            host = (str(exc.host), int(exc.port))
            self._known(host)
            self._slots[int(exc.slot_id)] = host
            self._keys.clear()
        self.doubt()

    def doubt(self) -> None:
        """Look who has what, in the background, until every slot has a server that answers."""
        if self._looking is None:
            self._looking = asyncio.create_task(
                self._look_on(), name="store-cluster", context=Context()
            )

    def describe(self) -> dict[str, int]:
        """Return how many servers have slots, and how many of them do not answer."""
        hosts = {host for host in self._slots if host is not None}
        return {
            "servers": len(hosts),
            "servers_gone": sum(not self._servers[host].health.is_up for host in hosts),
        }

    async def aclose(self) -> None:
        """Hang up on all."""
        if self._looking is not None:
            self._looking.cancel()
            with suppress(asyncio.CancelledError):
                await self._looking
        await asyncio.gather(*self._leaving, *(s.aclose() for s in self._servers.values()))

    async def _look_on(self) -> None:
        try:
            is_well = await self._look()
            while not is_well:
                await asyncio.sleep(_PAUSE_S)
                is_well = await self._look()
        finally:
            self._looking = None

    async def _look(self) -> bool:
        """Ask one after the other until one tells; say whether all is well."""
        hosts = [*self._servers]
        random.shuffle(hosts)
        # First those who are there: a server that hangs would take its time.
        hosts.sort(key=lambda host: not self._servers[host].health.is_up)
        for host in hosts:
            try:
                async with asyncio.timeout(_LOOK_S):
                    told = await self._asked(host)
            except (RedisError, OSError) as exc:
                self._reason = why(exc)
                continue
            self._learn(told, host)
            break
        return all(h is not None and self._servers[h].health.is_up for h in set(self._slots))

    async def _asked(self, host: Host) -> Sequence[Any]:
        """Return who has which slots, as one server knows it."""
        pipe = self._servers[host].probe.pipeline(transaction=False)
        pipe.execute_command("CLUSTER", "SLOTS")  # as it comes: redis-py's own reading is another
        told: Sequence[Any] = (await pipe.execute())[0]
        return told

    def _learn(self, told: Sequence[Any], asked: Host) -> None:
        """Take over what a server tells: runs of slots, each with its master and its replicas."""
        slots: list[Host | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        known = {asked, *self._seeds}
        for first, last, *servers in told:
            # One that does not know its own address is where it was asked.
            hosts = [(_text(s[0]) or asked[0], int(s[1])) for s in servers]
            known.update(hosts)
            slots[int(first) : int(last) + 1] = [hosts[0]] * (int(last) - int(first) + 1)
        if slots != self._slots:
            log.info("store_slots", extra={"servers": len({*slots} - {None})})
            self._slots = slots
            self._keys.clear()
        for host in known:
            self._known(host)
        for host in self._servers.keys() - known:
            leaving = asyncio.create_task(self._servers.pop(host).aclose(), context=Context())
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    def _known(self, host: Host) -> None:
        if host not in self._servers:
            self._servers[host] = Server(
                lambda most: self._make(host, most), self._connections, self.doubt
            )


def _text(name: Any) -> str:
    if isinstance(name, bytes):
        name = name.decode()
    return "" if name in (None, "?") else str(name)
