"""A head has one reading: whoever stands in front of this service may have gone by the other.

A proxy lets a request through by what it has read of it: whose it is, what kind its body has, where
it ends. Where two readings are allowed, the proxy's may be the harmless one (RFC 9112, section 11).
So what says that must say it once and to the letter. The parser sees to the length of a body; here
is what it lets pass.

Headers that are lists may stand in several lines (`If-Match`). Two of `traceparent` are none, as
W3C has it. `X-Request-Id` opens nothing, and there are proxies that put theirs behind the caller's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from app.api.problems import HeaderInvalid, RequestUnreadable
from app.errors import TracerError

_ONCE = {
    b"host": "Host",
    b"authorization": "Authorization",
    b"content-type": "Content-Type",
    b"idempotency-key": "Idempotency-Key",
    b"sec-fetch-site": "Sec-Fetch-Site",
}
"""Headers that are read here and may stand once."""

_HOST = re.compile(rb"(?:[\w.~!$&'()*+,;=%-]*|\[[\da-fA-Fv.:]+\])(?::\d*)?", re.ASCII)
_ABSOLUTE = re.compile(rb"(?i:https?)://[^/?#@]+/")


def fault_of(
    version: str, target: bytes, headers: Sequence[tuple[bytes, bytes]]
) -> TracerError | None:
    """Return what is wrong with a head, whose headers' names are in small letters; None if nothing.

    It is called for every request: what has nothing wrong is found so without a loop in Python.
    """
    named = dict(headers)
    if len(named) != len(headers):
        for name in _ONCE.keys() & named.keys():
            if sum(name == other for other, _ in headers) > 1:
                return HeaderInvalid(_ONCE[name], "there are two of it, and it may stand once")
    if version != "1.1" and version != "1.0":
        return RequestUnreadable()
    host = named.get(b"host")
    if host is None:
        if version == "1.1":
            return HeaderInvalid("Host", "it is needed")
    elif not _is_host(host):
        return HeaderInvalid("Host", "a name or an address is expected, and perhaps a port")
    coding = named.get(b"transfer-encoding")
    if coding is not None:
        if coding.lower() != b"chunked":
            return HeaderInvalid("Transfer-Encoding", "`chunked` alone is understood")
        if version == "1.0":
            return HeaderInvalid("Transfer-Encoding", "there is none in HTTP/1.0")
    if b"#" in target or not (target.startswith(b"/") or _is_elsewhere(target)):
        return RequestUnreadable()
    return None


@lru_cache(maxsize=64)
def _is_host(value: bytes) -> bool:
    return _HOST.fullmatch(value) is not None


def _is_elsewhere(target: bytes) -> bool:
    """Whether it is one that does not begin with a path, as proxies are sent, or `*`."""
    return target == b"*" or _ABSOLUTE.match(target) is not None
