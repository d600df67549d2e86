"""Who calls: the key that a request shows, what it may do, and how often.

A request without a key may do nothing where there are keys, and everything where there are none:
then nobody but this machine can reach the service (`app.settings`).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from time import monotonic
from typing import NamedTuple

from pydantic import SecretStr
from starlette.requests import Request
from starlette.types import Scope as ASGIScope

from app.asks import Ask
from app.errors import CrossSite, KeyMissing, KeysInvalid, KeyUnknown, RateLimited, ScopeMissing
from app.keys import SCOPES, Key, Keyring, Scope
from app.telemetry import Metrics

log = logging.getLogger(__name__)

OPEN = frozenset({"/livez", "/readyz", "/docs", "/openapi.json"})
"""Paths that need no key: probes have none, and what the API looks like is no secret."""

CALLER = "kt.caller"
"""Under this name a request's ASGI scope holds its `Caller`."""

_CHANGES_S = 1.0
_BURST_S = 10.0  # a key may use at once what it may in so long, where its entry does not say

Headers = Iterable[tuple[bytes, bytes]]


class Names:
    """Under which name a user is stored.

    That of another tenant cannot be said by any caller: ids hold no control characters. With a
    secret the store holds no id at all, but a hash that nobody can take without it.
    """

    def __init__(self, secret: SecretStr | None) -> None:
        self._key = None
        if secret is not None:  # a key of blake2b has at most 64 bytes
            self._key = hashlib.sha256(secret.get_secret_value().encode()).digest()

    def of(self, tenant: str | None, user_id: str) -> str:
        """Return the stored name of a tenant's user."""
        name = user_id if tenant is None else f"{tenant}\x1f{user_id}"
        if self._key is None:
            return name
        return hashlib.blake2b(name.encode(), digest_size=16, key=self._key).hexdigest()


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever has sent a request."""

    key: str | None  # the name of the key; None where none was needed
    scopes: frozenset[Scope]
    tenant: str | None
    names: Names

    def require(self, scope: Scope) -> None:
        """Raise `ScopeMissing` where the caller may not do that."""
        if scope not in self.scopes:
            raise ScopeMissing(self.key or "", scope) if self.key else KeyMissing

    def user(self, user_id: str) -> str:
        """Return the stored name of a user of this caller's tenant."""
        return self.names.of(self.tenant, user_id)

    def ask(self, ask: Ask) -> Ask:
        """Return an ask that names its user as he is stored."""
        if ask.user_id is None:
            return ask
        name = self.user(ask.user_id)
        return ask if name is ask.user_id else ask._replace(user_id=name)


class Bucket:
    """A rate limit: tokens that come steadily, and are taken one a request."""

    def __init__(self, key: str, per_second: float, burst: int) -> None:
        self.per_second = per_second
        self.burst = burst
        self._tokens = float(burst)
        self._at_s = monotonic()
        window_s = math.ceil(burst / per_second)
        self._name = f'"{key}"'
        self._key = key
        self._policy = (b"ratelimit-policy", f"{self._name};q={burst};w={window_s}".encode())

    def take(self) -> None:
        """Take a token; raise `RateLimited` where there is none."""
        self._fill(monotonic())
        if self._tokens < 1:
            wait_s = (1 - self._tokens) / self.per_second
            raise RateLimited(self._key, self.per_second, wait_s)
        self._tokens -= 1

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return what tells a caller of the limit (draft-ietf-httpapi-ratelimit-headers)."""
        self._fill(monotonic())
        full_s = math.ceil((self.burst - self._tokens) / self.per_second)
        limit = f"{self._name};r={int(self._tokens)};t={full_s}".encode()
        return [self._policy, (b"ratelimit", limit)]

    def _fill(self, now_s: float) -> None:
        self._tokens = min(self.burst, self._tokens + (now_s - self._at_s) * self.per_second)
        self._at_s = now_s


class _Holder(NamedTuple):
    """What is known of whoever shows a key."""

    key: Key
    caller: Caller
    bucket: Bucket | None


class Gate:
    """Tells callers apart, and lets nobody in who may not come."""

    def __init__(self, keyring: Keyring | None, names: Names, metrics: Metrics) -> None:
        self._keyring = keyring
        self._names = names
        self._metrics = metrics
        self._anyone = Caller(None, frozenset(SCOPES), None, names)
        self._nobody = Caller(None, frozenset(), None, names)
        self._holders: dict[bytes, _Holder] = {}  # by the key's hash

    def admit(self, path: str, headers: Headers) -> tuple[Caller, Bucket | None]:
        """Return who asks and the limit there is on it.

        Raises `KeyMissing` or `KeyUnknown`.
        """
        if self._keyring is None:
            return self._anyone, None
        secret = None
        for name, value in headers:
            if name == b"authorization":
                secret = value
                break
        if secret is None:
            if path in OPEN:
                return self._nobody, None
            raise KeyMissing
        scheme, _, shown = secret.partition(b" ")
        key = self._keyring.find(shown.strip()) if scheme.lower() == b"bearer" else None
        if key is None:
            raise KeyUnknown
        holder = self._holders.get(key.digest)
        if holder is None:
            holder = self._holders[key.digest] = self._holder(key)
        return holder.caller, holder.bucket

    async def watch(self) -> None:
        """Read the keys again whenever their file changes, for ever."""
        assert self._keyring is not None, "there are no keys to watch"
        while True:
            await asyncio.sleep(_CHANGES_S)
            try:
                if not self._keyring.reload():
                    continue
            except KeysInvalid as exc:
                log.error("keys_not_reloaded", extra={"reason": str(exc)})
                self._metrics.key_reloads.labels("refused").inc()
                continue
            self._forget_gone()
            log.info("keys_reloaded", extra={"keys": len(self._keyring.keys)})
            self._metrics.key_reloads.labels("done").inc()

    def _forget_gone(self) -> None:
        """A key whose entry is another now begins with a full bucket; one that stayed does not."""
        assert self._keyring is not None
        there = {key.digest: key for key in self._keyring.keys}
        self._holders = {d: h for d, h in self._holders.items() if h.key == there.get(d)}

    def _holder(self, key: Key) -> _Holder:
        caller = Caller(key.name, frozenset(key.scopes), key.tenant, self._names)
        if key.per_second is None:
            return _Holder(key, caller, None)
        burst = key.burst or max(1, math.ceil(key.per_second * _BURST_S))
        return _Holder(key, caller, Bucket(key.name, key.per_second, burst))


def caller_of(scope: ASGIScope) -> Caller:
    """Return who has sent a request."""
    caller: Caller = scope[CALLER]
    return caller


class Needs:
    """A route's dependency: the caller, who must have this scope."""

    def __init__(self, scope: Scope) -> None:
        self.scope: Scope = scope

    async def __call__(self, request: Request) -> Caller:
        """Return the caller; raise `ScopeMissing`, or `CrossSite`."""
        caller = caller_of(request.scope)
        caller.require(self.scope)
        # Without keys a page of any site might have a browser on this machine send what needs no
        # body: browsers say so, and nobody else does. All else is asked for by JSON, which they
        # do not send to another site unasked.
        is_foreign = request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
        if self.scope == "admin" and is_foreign:
            raise CrossSite
        return caller
