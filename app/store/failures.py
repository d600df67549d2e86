"""What a Redis says when something is wrong, in our words: no address, no password."""

from __future__ import annotations

import re

from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)

from app.errors import StoreCorrupt, StoreFull, StoreReadOnly, StoreUnavailable, TracerError

FAILURES = (RedisError, OSError)
"""What a call can raise that is the store's doing."""

BREAKS = (RedisConnectionError, ConnectionError)
"""The connection is gone, or could not be made."""

_GONE = (*BREAKS, RedisTimeoutError, TimeoutError, BusyLoadingError, ClusterDownError)

_NO_WRITES = {
    "READONLY": "it is a replica",
    "NOREPLICAS": "it has fewer good replicas than its min-replicas-to-write",
    "MISCONF": "it cannot write its file, and its stop-writes-on-bgsave-error is on",
}
"""By the first word of what it says: servers that refuse writes and answer reads."""


def is_gone(exc: Exception) -> bool:
    """Say whether a failure may mean that the server is not there, for anybody."""
    return isinstance(exc, _GONE)


def why(exc: Exception) -> str:
    """Return what is wrong, without the error's own text, which may hold an address or a name."""
    text = str(exc)
    if isinstance(exc, AuthenticationError) or text.startswith("NOAUTH"):
        return "it wants another name or password than KT_REDIS_URL has"
    if _is_forbidden(exc):
        command = re.search(r"'([a-z|]+)' command", text)
        missing = f"may not {command.group(1).upper()}" if command else "may not do all it must"
        return f"the user of KT_REDIS_URL {missing}"
    if isinstance(exc, MasterNotFoundError):
        return "no sentinel that answers knows a master of that name that is up"
    if "cluster support disabled" in text:
        return "it is no server of a cluster"
    if "unknown command 'sentinel'" in text.lower():
        return "it is no sentinel"
    words = text.split(maxsplit=1)
    is_code = bool(words) and words[0].isupper() and isinstance(exc, ResponseError)
    return words[0] if is_code else type(exc).__name__


def gone(reason: str, doubt: str = "") -> StoreUnavailable:
    """Return what is said of a server that does not do what it should."""
    return StoreUnavailable(f"the store does not answer as it should ({reason}){doubt}")


def translated(exc: Exception, *, is_repeatable: bool) -> TracerError:
    """Return our error for a failure; what may or may not have been written is said to be so."""
    text = str(exc)
    if isinstance(exc, OutOfMemoryError) or text.startswith("OOM "):
        return StoreFull("the store is out of memory; raise its maxmemory or forget users")
    if isinstance(exc, ResponseError) and ("KTCORRUPT" in text or text.startswith("WRONGTYPE")):
        return StoreCorrupt()
    if (reason := refuses_writes(exc)) is not None:
        return StoreReadOnly(f"the store takes no writes just now: {reason}")
    # An answer, if a bad one, is that of a server which has done nothing.
    is_told = isinstance(exc, ResponseError)
    doubt = "" if is_repeatable or is_told else _DOUBT
    return gone(why(exc), doubt)


_DOUBT = "; whether these answers were recorded is not known"


def refuses_writes(exc: Exception) -> str | None:
    """Return why a server that is there takes no writes, where that is what it says."""
    if isinstance(exc, ReadOnlyError):
        return _NO_WRITES["READONLY"]
    return _NO_WRITES.get(str(exc).split(maxsplit=1)[0]) if str(exc) else None


def _is_forbidden(exc: Exception) -> bool:
    return isinstance(exc, NoPermissionError) or "has no permissions" in str(exc)
