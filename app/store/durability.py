"""Whether a server keeps what it is given: read from what it says of itself.

INFO is asked, not CONFIG, which servers that others manage forbid.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

_Info = Mapping[str, Any] | Exception


class Durability(NamedTuple):
    """How a server keeps what it has acknowledged, and what of that may be lost."""

    persistence: str  # append_only_file, snapshots, none; or unknown
    eviction: str  # its maxmemory policy; or unknown
    warnings: list[str]
    refusal: str | None = None  # why it takes no writes just now


class Replicas(NamedTuple):
    """How many must have a change before it is acknowledged, and how long they are waited for."""

    least: int
    wait_ms: int


def durability_of(persistence: _Info, memory: _Info, *, has_lifetimes: bool) -> Durability:
    """Judge what INFO says; `has_lifetimes` says that histories are to be gone after a time."""
    kept, evicted = _persistence(persistence), _eviction(memory)
    found = (_PERSISTENCE.get(kept), _eviction_warning(evicted, has_lifetimes=has_lifetimes))
    return Durability(kept, evicted, [one for one in found if one is not None])


_PERSISTENCE = {
    "snapshots": "the store writes snapshots only: what it acknowledged after the last one is lost "
    "when it dies; set appendonly yes",
    "none": "the store writes nothing to disk: what it acknowledged is lost when it dies; "
    "set appendonly yes",
    "unknown": "the store does not say whether it writes to disk; allow this user INFO",
}


def _persistence(info: _Info) -> str:
    if isinstance(info, Exception) or "aof_enabled" not in info:
        return "unknown"
    if info["aof_enabled"]:
        return "append_only_file"
    # Whether snapshots are configured is not told; whether one was made or read is (from 7.0 on).
    has_any = any(info.get(name) for name in ("rdb_saves", "rdb_last_load_keys_loaded"))
    return "snapshots" if has_any or info.get("rdb_bgsave_in_progress") else "none"


def _eviction(info: _Info) -> str:
    if isinstance(info, Exception):
        return "unknown"
    return str(info.get("maxmemory_policy", "unknown"))


def _eviction_warning(policy: str, *, has_lifetimes: bool) -> str | None:
    remedy = "set maxmemory-policy noeviction"
    if policy == "noeviction":
        return None
    if policy == "unknown":
        return "the store does not say what it evicts; allow this user INFO"
    if has_lifetimes or not policy.startswith("volatile-"):
        return f"the store may drop histories when it is full ({policy}); {remedy}"
    return (
        f"the store may drop what calls with an Idempotency-Key were answered ({policy}): "
        f"repeated, they would be recorded twice; {remedy}"
    )
