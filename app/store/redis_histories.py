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

import secrets
import struct
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from redis.asyncio import Redis

from app.errors import (
    AnswerLate,
    HistoryChanged,
    IdempotencyKeyReused,
    InteractionUnknown,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
    TracerError,
)
from app.store.durability import Durability, durability_of
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
from app.store.keys import BESIDE, CALLS, FORECASTS, HISTORY, STATES, user_key
from app.store.outcomes import KEPT_FORECAST
from app.store.packed import NO_ELAPSED, NO_TIME, packed, unpacked
from app.store.redis_client import RedisClient, Script, StoreApart
from app.store.redis_outcomes import Carried, RedisOutcomes
from models.contract.interaction import NO_KEY, UNKNOWN_MS

_TEXTS, _PING = "kt:t1", "kt:ping%s"

_OF_A_USER = HISTORY, STATES, CALLS, FORECASTS
"""All that lies in the store of a user, but for what a script puts there while it runs."""

_NOTED = 65_536  # keys of texts that a process remembers to have kept apart from answers

_OF_STATE = struct.Struct("<4s4sqq")
_OF_CALL = struct.Struct("<q16s")

_REFUSALS: dict[Any, type[TracerError]] = {
    b"changed": HistoryChanged,
    b"reused": IdempotencyKeyReused,
    b"late": AnswerLate,
    b"unknown": InteractionUnknown,
}
"""What is raised where a script has refused a change, by its word for that."""


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
        self._min_replicas = min_replicas
        self._replicas_wait_ms = round(500 * longest_s)  # shorter than the connection waits
        self._noted: set[int] = set()  # keys whose texts are kept, as far as this process knows
        self._is_apart = client.servers.is_cluster  # a plain client finds it out by a refusal
        self._keep = keep
        self._kind = kind
        self._late = late
        self._life_s = life_s
        self._outcomes = outcomes
        self._append = client.script("append", "change", "outcomes")
        self._amend = client.script("amend", "change")
        self._export = client.script("export")
        self._read = client.script("read")
        self._note = client.script("note")
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
        noted: list[Any] = [part for key, text in texts.items() for part in (_packed(key), text)]
        # Terms that a call has changed itself would refuse it the second time.
        is_harmless = has_keys and terms.meant is None and terms.not_meant is None
        is_repeatable = is_harmless or terms.call_key is not None
        records = packed(interactions)
        if not self._is_apart:
            try:
                return await self._client.to_its_end(
                    self._appended(user_id, records, terms, is_repeatable, noted)
                )
            except StoreApart:
                self._is_apart = True
        await self._note_first(noted, texts)
        return await self._client.to_its_end(
            self._appended(user_id, records, terms, is_repeatable, [])
        )

    async def _appended(
        self,
        user_id: str,
        records: bytes,
        terms: Terms,
        is_repeatable: bool,
        noted: Sequence[Any],
    ) -> Recorded:
        """Add records, and texts with them; forecasts that still wait to be kept go before.

        What comes of these is seen to, whoever has left meanwhile.
        """
        content, more = b"append" + records, [_TEXTS] if noted else []
        arguments = [records, self._late, self._life_s, len(noted), *noted]
        if self._outcomes is None:
            call = self._change(self._append, user_id, terms, content, *arguments, more=more)
            found, replicas = await self._changed(user_id, call, is_repeatable)
            self._require(replicas)
            return _recorded(found)
        async with self._outcomes.carried(user_id) as carried:
            keys, joining = self._outcomes.joining(user_id, is_apart=self._is_apart)
            arguments += joining
            more += keys
            call = self._change(self._append, user_id, terms, content, *arguments, more=more)
            found, replicas = await self._changed(user_id, call, is_repeatable, carried)
        done = _recorded(found)
        if not done.is_repeated and (joined := found[5:]):
            await self._outcomes.joined(joined[0], joined[1:])
        self._require(replicas)
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
        call = self._change(self._amend, user_id, terms, content, number, *changes)
        is_repeatable = terms.meant is None or terms.call_key is not None
        found, replicas = await self._changed(user_id, call, is_repeatable)
        self._require(replicas)
        record, form, version, *again = found
        return Amended(unpacked(record, form), _version(version), bool(again))

    def _change(
        self,
        script: Script,
        user_id: str,
        terms: Terms,
        content: bytes,
        *arguments: Any,
        more: Sequence[str] = (),
    ) -> Sequence[Any]:
        """Return the call of a script behind `change`, with `more` keys behind its own."""
        keys = [user_key(kind, user_id) for kind in (HISTORY, BESIDE, CALLS)]
        call = b""
        if terms.call_key is not None:
            call = _digest(terms.call_key.encode()) + _digest(content)
        keys += more
        wanted = _versions(terms.meant), _versions(terms.not_meant)
        return (
            *(script.sha, len(keys), *keys),
            *(secrets.token_bytes(4), self._keep, *wanted, call),
            *arguments,
        )

    async def _changed(
        self,
        user_id: str,
        call: Sequence[Any],
        is_repeatable: bool,
        carried: Carried | None = None,
    ) -> tuple[list[Any], int]:
        """Return what a script has done and how many replicas know; before it keep forecasts."""

        async def run(redis: Redis) -> Any:
            if not (self._min_replicas or carried):
                return await redis.evalsha(*call), 0
            pipe = redis.pipeline(transaction=False)
            if carried is not None:
                pipe.evalsha(*carried.call)
            if self._min_replicas:
                # WAIT is for what this connection wrote: where nothing was, for this.
                pipe.set(user_key(BESIDE, user_id), b"", px=1)
            pipe.evalsha(*call)
            if self._min_replicas:
                pipe.execute_command("WAIT", self._min_replicas, self._replicas_wait_ms)
            answers = await pipe.execute(raise_on_error=False)
            waited = answers.pop() if self._min_replicas else 0
            done = answers.pop()
            failed = next((one for one in (done, waited) if isinstance(one, Exception)), None)
            # Those that were kept are not to come again, whatever came of the rest.
            if carried is not None and not (failed and isinstance(answers[0], Exception)):
                carried.were_kept(answers[0])
            if failed is not None:
                raise failed
            return done, waited

        done, replicas = await self._client.ask(
            run, key=user_key(HISTORY, user_id), repeat=is_repeatable
        )
        return _accepted(done), replicas

    def _require(self, replicas: int) -> None:
        if replicas < self._min_replicas:
            raise StoreUnavailable(
                f"recorded, but on {replicas} replicas and not on {self._min_replicas} "
                "(KT_REDIS_MIN_REPLICAS): a fail-over now might lose it"
            )

    async def _note_first(self, noted: list[Any], texts: Mapping[int, str]) -> None:
        """Keep texts where they are on another server than answers are.

        Where that one is gone, or takes none, it is enough that they have been kept: answers to
        questions met before can be recorded still.
        """
        is_new = not texts.keys() <= self._noted
        min_replicas = self._min_replicas if is_new else 0

        async def run(redis: Redis) -> int:
            pipe = redis.pipeline(transaction=False)
            pipe.evalsha(self._note.sha, 1, _TEXTS, *noted)
            if min_replicas:
                pipe.set(user_key(BESIDE, _TEXTS), b"", px=1)  # as for answers
                pipe.execute_command("WAIT", min_replicas, self._replicas_wait_ms)
            return int((await pipe.execute())[-1])

        try:
            replicas = await self._client.ask(run, key=_TEXTS, repeat=True)
        except (StoreFull, StoreReadOnly, StoreUnavailable):
            if is_new:
                raise
            return
        if replicas < min_replicas:
            raise StoreUnavailable(
                f"not recorded: the ids in it are on {replicas} replicas and not on {min_replicas} "
                "(KT_REDIS_MIN_REPLICAS)"
            )
        if len(self._noted) + len(texts) > _NOTED:
            self._noted.clear()
        self._noted |= texts.keys()

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
        wanted = list(keys)
        if not wanted:
            return {}
        packed = [_packed(key) for key in wanted]
        found = await self._client.ask(
            lambda redis: redis.hmget(_TEXTS, packed), key=_TEXTS, repeat=True
        )
        return {k: t.decode() for k, t in zip(wanted, found, strict=True) if t is not None}

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


def _packed(key: int) -> bytes:
    return key.to_bytes(8, "little")


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=16).digest()


def _version(packed: bytes) -> Version:
    return Version(packed[:4], int.from_bytes(packed[4:], "little"))


def _versions(versions: Sequence[Version] | Literal["*"] | None) -> bytes:
    """Return versions as `change.lua` reads them."""
    if versions is None:
        return b""
    if versions == "*":
        return b"*"
    return b"=" + b"".join(v.name + _packed(v.total) for v in versions)


def _recorded(found: Sequence[Any]) -> Recorded:
    recorded, duplicates, length, version, late, *more = found
    is_repeated = more == [b"again"]
    return Recorded(recorded, duplicates, length, _version(version), late, is_repeated)


def _accepted(found: list[Any]) -> list[Any]:
    """Return what a script has done; raise where it has refused to."""
    word, *more = found
    if word in _REFUSALS:
        raise _REFUSALS[word](*more)
    return found


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
