"""Histories in Redis, or in any server that speaks as Redis does.

    kt:h1:{user}   string: 24 bytes of header, then a record an interaction, oldest first: `packed`
    kt:s1:{user}   hash: states that models have kept, see `redis_states`
    kt:i1:{user}   hash: calls with a key that were answered in the last 24 hours, see `change.lua`
    kt:p1:{user}   string: forecasts that wait for their answers, see `redis_outcomes`
    kt:t1          hash: 8-byte key -> the outside id, or the text of a skill set, behind it

The header is the form of the records (`KTH2` to `KTH5`), four random bytes that tell this history
from one forgotten before under the same name, and from what it was before an amendment, and two
64-bit integers: the number of older records dropped, and the newest known time of asking.
A history is cut to what is kept only when it has grown a quarter past it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from redis.asyncio import Redis

from app.errors import StoreFull, StoreReadOnly, StoreUnavailable
from app.store.durability import Durability, Replicas, durability_of
from app.store.failures import translated
from app.store.histories import (
    FREELY,
    Amended,
    Amendment,
    AnsweredCall,
    Everything,
    LateRule,
    Page,
    Recorded,
    StoredHistory,
    StoredState,
    Terms,
    Version,
)
from app.store.keys import CALLS, FORECASTS, HISTORY, STATES, user_key
from app.store.outcomes import KEPT_FORECAST
from app.store.packed import NO_ELAPSED, NO_TIME, packed, unpacked
from app.store.redis_changes import RedisChanges
from app.store.redis_client import RedisClient, StoreApart
from app.store.redis_outcomes import RedisOutcomes
from app.store.redis_texts import TEXTS, RedisTexts, notes_of
from models.contract.interaction import NO_KEY, UNKNOWN_MS

_PING = "kt:ping%s"

_OF_A_USER = HISTORY, STATES, CALLS, FORECASTS
"""All that lies in the store of a user, but for what a script puts there while it runs."""

_OF_STATE = struct.Struct("<4s4sqq")
_OF_CALL = struct.Struct("<q16s")


class RedisHistories:
    """Every user's newest `keep` interactions, behind one client."""

    def __init__(
        self,
        client: RedisClient,
        keep: int,
        kind: str,
        *,
        late: LateRule = "append",
        life_s: int = 0,
        min_replicas: int = 0,
        longest_s: float = 1.0,
        outcomes: RedisOutcomes | None = None,
    ) -> None:
        """`kind` says in /readyz which store this is: `redis`, `sentinel`, `cluster` or `embedded`.

        A history not added to for `life_s` is gone; 0 keeps it for ever. Changes are acknowledged
        when so many replicas have them, or refused after `longest_s`. `outcomes` compares forecasts
        with what is added.
        """
        self._client = client
        self._is_apart = client.servers.is_cluster  # a plain client finds it out by a refusal
        self._keep = keep
        self._kind = kind
        self._late = late
        self._life_s = life_s
        self._outcomes = outcomes
        replicas = Replicas(min_replicas, round(500 * longest_s))  # less than the connection waits
        self._changes = RedisChanges(client, keep, replicas)
        self._texts = RedisTexts(client, replicas)
        self._append = client.script("append", "change", "outcomes")
        self._amend = client.script("amend", "change")
        self._export = client.script("export")
        self._read = client.script("read")
        self._rehearse = client.script("rehearse")

    def describe(self) -> dict[str, Any]:
        """Return what /readyz tells of this store."""
        return {
            "kind": self._kind,
            "history_max_items": self._keep,
            **self._client.servers.describe(),
        }

    async def read(self, user_id: str, last: int) -> StoredHistory:
        """Return the newest `last` interactions, in one round trip."""
        page = await self._slice(user_id, "", last)
        dropped = page.version.total - len(page.interactions)
        return StoredHistory(page.interactions, dropped, page.length, page.version)

    async def page(self, user_id: str, start: int, limit: int) -> Page:
        """Return up to `limit` interactions from number `start` on; dropped ones are skipped."""
        return await self._slice(user_id, str(start), limit)

    async def append(
        self,
        user_id: str,
        interactions: NDArray[np.void],
        texts: Mapping[int, str],
        terms: Terms = FREELY,
    ) -> Recorded:
        """Add interactions atomically, all or none, but for those whose event key is already there.

        Event keys are compared with what is still held. Where the connection breaks before the
        answer, nobody knows whether they were added: they are sent again only where that is
        harmless, for the call has a key, or each of them an event key. Texts that there is no room
        for keep answers out too: they go in the same step, or before where they lie elsewhere.
        """
        has_keys = bool((interactions["event_key"] != NO_KEY).all())
        # Terms that a call has changed itself would refuse it the second time.
        is_harmless = has_keys and terms.meant is None and terms.not_meant is None
        is_repeatable = is_harmless or terms.call_key is not None
        records = packed(interactions)
        if not self._is_apart:
            try:
                noted = notes_of(texts)
                return await self._appended(user_id, records, terms, is_repeatable, noted)
            except StoreApart:
                self._is_apart = True
        await self._texts.keep(texts)
        return await self._appended(user_id, records, terms, is_repeatable, [])

    async def _appended(
        self,
        user_id: str,
        records: bytes,
        terms: Terms,
        is_repeatable: bool,
        noted: Sequence[Any],
    ) -> Recorded:
        """Add records, and texts with them; forecasts that still wait to be kept go before."""
        content, more = b"append" + records, [TEXTS] if noted else []
        arguments = [records, self._late, self._life_s, len(noted), *noted]
        if self._outcomes is None:
            call = self._changes.call(self._append, user_id, terms, content, *arguments, more=more)
            found, replicas = await self._changes.made(user_id, call, is_repeatable)
            self._changes.require(replicas)
            return _recorded(found)
        async with self._outcomes.carried(user_id) as carried:
            keys, joining = self._outcomes.joining(user_id, is_apart=self._is_apart)
            arguments += joining
            more += keys
            call = self._changes.call(self._append, user_id, terms, content, *arguments, more=more)
            found, replicas = await self._changes.made(user_id, call, is_repeatable, carried)
        done = _recorded(found)
        if not done.is_repeated and (joined := found[5:]):
            await self._outcomes.joined(joined[0], joined[1:])
        self._changes.require(replicas)
        return done

    async def amend(
        self, user_id: str, number: int, amendment: Amendment, terms: Terms = FREELY
    ) -> Amended:
        """Change one kept interaction where it stands, and name the history anew."""
        correct, asked_ms, elapsed_ms = amendment
        changes = (
            "" if correct is None else int(correct),
            "" if asked_ms is None else NO_TIME if asked_ms == UNKNOWN_MS else asked_ms,
            "" if elapsed_ms is None else NO_ELAPSED if elapsed_ms == UNKNOWN_MS else elapsed_ms,
        )
        content = f"amend {number} {changes}".encode()
        call = self._changes.call(self._amend, user_id, terms, content, number, *changes)
        is_repeatable = terms.meant is None or terms.call_key is not None
        found, replicas = await self._changes.made(user_id, call, is_repeatable)
        self._changes.require(replicas)
        record, form, version, *again = found
        return Amended(unpacked(record, form), _version(version), bool(again))

    async def everything(self, user_id: str) -> Everything:
        """Return all that is kept of a user, as of one moment."""
        keys = [user_key(kind, user_id) for kind in _OF_A_USER]
        name, gone, records, form, left, states, calls, forecasts = await self._client.ask(
            lambda redis: redis.evalsha(self._export.sha, len(keys), *keys),
            key=keys[0],
            repeat=True,
        )
        interactions = unpacked(records, form)
        kept = np.frombuffer(forecasts, KEPT_FORECAST, len(forecasts) // KEPT_FORECAST.itemsize)
        history_left_ms, states_left_ms, calls_left_ms, forecasts_left_ms = (
            ms if ms >= 0 else None for ms in left
        )
        return Everything(
            interactions=interactions,
            first=gone,
            version=Version(name, gone + len(interactions)),
            history_left_ms=history_left_ms,
            states=[_state(*pair) for pair in _pairs(states) if len(pair[1]) >= _OF_STATE.size],
            states_left_ms=states_left_ms,
            calls=[_call(*pair) for pair in _pairs(calls) if len(pair[1]) > _OF_CALL.size],
            calls_left_ms=calls_left_ms,
            forecasts=kept[kept["question_key"] != NO_KEY],
            forecasts_left_ms=forecasts_left_ms,
        )

    async def texts(self, keys: Iterable[int]) -> dict[int, str]:
        """Return the outside ids behind keys; a key never met is left out."""
        return await self._texts.behind(keys)

    async def forget(self, user_id: str) -> bool:
        """Delete everything kept of a user; True if there was anything."""
        if self._outcomes is not None:
            await self._outcomes.forget(user_id)
        # The history first: what is written of it meanwhile finds none, and is not kept.
        keys = [user_key(kind, user_id) for kind in _OF_A_USER]
        return bool(
            await self._client.ask(lambda redis: redis.unlink(*keys), key=keys[0], repeat=True)
        )

    async def ping(self) -> Durability:
        """Return when the store, or a server of its cluster, answers.

        Says how it keeps what it is given, of several servers the one that keeps it worst, and why
        one of them takes no writes. That is asked anew each time: a server that comes back may be
        another one.
        """

        async def run(redis: Redis, key: str) -> Any:
            pipe = redis.pipeline(transaction=False)
            pipe.set(key, b"1", ex=60)
            pipe.evalsha(self._rehearse.sha, 1, key)
            for section in ("persistence", "memory"):
                pipe.info(section)
            written, forbidden, *info = await pipe.execute(raise_on_error=False)
            refusal = _refusal(written)
            for one in (forbidden, None if refusal else written):
                if isinstance(one, Exception):
                    raise one
            durability = durability_of(*info, has_lifetimes=self._life_s > 0)
            return forbidden, durability._replace(refusal=refusal)

        told = await self._client.ask_each(run, _PING)
        answered: list[tuple[list[bytes], Durability]] = [
            one for one in told if not isinstance(one, BaseException)
        ]
        if not answered:
            raise told[0]
        if forbidden := sorted({c.decode() for names, _ in answered for c in names}):
            raise StoreUnavailable(
                f"the user of KT_REDIS_URL may not {', '.join(forbidden)}; "
                "docs/operations.md has the rule that lets it"
            )
        worst = max((how for _, how in answered), key=lambda how: len(how.warnings))
        refusals = (how.refusal for _, how in answered if how.refusal is not None)
        return worst._replace(refusal=next(refusals, None))

    async def _slice(self, user_id: str, start: str, limit: int) -> Page:
        arguments = (start, str(limit), str(self._keep))
        records, first, kept, total, form, name = await self._client.ask(
            lambda redis: redis.evalsha(self._read.sha, 1, user_key(HISTORY, user_id), *arguments),
            key=user_key(HISTORY, user_id),
            repeat=True,
        )
        interactions = unpacked(records, form)
        following = first + len(interactions)
        return Page(
            interactions,
            first,
            following if following < total else None,
            kept,
            Version(name, total),
        )


def _version(packed: bytes) -> Version:
    return Version(packed[:4], int.from_bytes(packed[4:], "little"))


def _recorded(found: Sequence[Any]) -> Recorded:
    recorded, duplicates, length, version, late, *more = found
    is_repeated = more == [b"again"]
    return Recorded(recorded, duplicates, length, _version(version), late, is_repeated)


def _refusal(written: Any) -> str | None:
    """Say why a server that has answered takes no writes just now; None for any other reason."""
    if not isinstance(written, Exception):
        return None
    found = translated(written, is_repeatable=True)
    return str(found) if isinstance(found, StoreFull | StoreReadOnly) else None


def _pairs(flat: Sequence[bytes]) -> Iterable[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)


def _state(key: bytes, value: bytes) -> StoredState:
    _, history, start, seen = _OF_STATE.unpack_from(value)
    return StoredState(key.decode(), history, start, seen, value[_OF_STATE.size :])


def _call(key: bytes, value: bytes) -> AnsweredCall:
    until_s, content = _OF_CALL.unpack_from(value)
    return AnsweredCall(key, content, until_s, value[_OF_CALL.size :])
