"""Which server is asked for what: one for everything, or the servers of a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from redis.asyncio import Redis
from redis.exceptions import AskError

from app.store.health import Health

MakeClient = Callable[[int], Redis]
"""From the most connections to a client that makes them when it needs them."""


class Server:
    """One server, or whichever holds a service now: its client, and whether it answers."""

    def __init__(
        self, make: MakeClient, connections: int, changed: Callable[[], None] = lambda: None
    ) -> None:
        self.redis = make(connections)
        # A connection of its own: those of a server that hangs are all taken.
        self.probe = make(1)
        self.health = Health(self.probe.ping, self._hang_up, changed)

    async def aclose(self) -> None:
        """Hang up."""
        await self.health.aclose()
        await asyncio.gather(self.redis.aclose(), self.probe.aclose())

    async def _hang_up(self) -> None:
        await self.redis.connection_pool.disconnect()


class Servers(Protocol):
    """Who has which key. `of` raises `StoreUnavailable` where nobody is known to have it."""

    @property
    def is_cluster(self) -> bool:
        """Keys lie on several servers, and one script touches keys of one slot only."""
        ...

    def of(self, key: str) -> Server:
        """Return the server that has a key."""
        ...

    def place_of(self, key: str) -> str:
        """Return a name for the server that has a key, as long as that is so."""
        ...

    def one_of_each(self, template: str) -> Sequence[str]:
        """Return keys, `template` filled in, of which each server has one."""
        ...

    def moved(self, exc: AskError) -> None:
        """Hear from a server that it has a key no more."""
        ...

    def doubt(self) -> None:
        """Hear from a server that the cluster is not whole."""
        ...

    def describe(self) -> dict[str, int]:
        """Return what /readyz tells of them."""
        ...

    async def aclose(self) -> None:
        """Hang up."""
        ...


class OneServer:
    """Everything is on one server; where sentinels watch it, on whichever they say."""

    is_cluster = False

    def __init__(self, make: MakeClient, connections: int) -> None:
        self._server = Server(make, connections)

    def of(self, key: str) -> Server:
        """Return it."""
        return self._server

    def place_of(self, key: str) -> str:
        """Return its name."""
        return ""

    def one_of_each(self, template: str) -> Sequence[str]:
        """Return one key."""
        return [template % ""]

    def moved(self, exc: AskError) -> None:
        """Hear what only a server of a cluster says, one that was taken for a plain one."""

    def doubt(self) -> None:
        """Look whether it is there."""
        self._server.health.doubt()

    def describe(self) -> dict[str, int]:
        """Return nothing: there is one."""
        return {}

    async def aclose(self) -> None:
        """Hang up."""
        await self._server.aclose()
