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
from functools import lru_cache

from app.api.problems import HeaderInvalid, MediaTypeUnsupported, RequestUnreadable
from app.errors import TracerError

Headers = list[tuple[bytes, bytes]]

_ONCE = {
    b"host": "Host",
    b"authorization": "Authorization",
    b"content-type": "Content-Type",
    b"idempotency-key": "Idempotency-Key",
    b"sec-fetch-site": "Sec-Fetch-Site",
}
"""Headers that are read here and may stand once."""

_HOST = re.compile(rb"(?:[\w.~!$&'()*+,;=%-]*|\[[\da-fA-Fv.:]+\])(?::\d*)?", re.ASCII)
_PLAIN = b"identity"
_SLASH, _HASH = b"/#"
_ABSOLUTE = re.compile(rb"(?i:https?)://[^/?#@]+/")


def fault_of(version: str, target: bytes, headers: Headers) -> TracerError | None:
    """Return what is wrong with a head, whose headers' names are in small letters; None if nothing.

    Each request is asked about: one with which nothing is wrong costs no loop and no further call.
    """
    named = dict(headers)
    if (
        len(named) == len(headers)
        and version == "1.1"
        and _is_host(named.get(b"host"))
        and b"transfer-encoding" not in named
        and b"content-encoding" not in named
        and target[0] == _SLASH
        and _HASH not in target
    ):
        return None
    return _fault_of(version, target, headers, named)


def _fault_of(
    version: str, target: bytes, headers: Headers, named: dict[bytes, bytes]
) -> TracerError | None:
    if version not in ("1.0", "1.1"):
        return RequestUnreadable()
    if name := next((name for name in _ONCE if [n for n, _ in headers].count(name) > 1), None):
        return HeaderInvalid(_ONCE[name], "there are two of it, and it may stand once")
    if b"host" not in named and version == "1.1":
        return HeaderInvalid("Host", "it is needed")
    if not _is_host(named.get(b"host", b"")):
        return HeaderInvalid("Host", "a name or an address is expected, and perhaps a port")
    if (coding := named.get(b"transfer-encoding")) is not None:
        if coding.strip().lower() != b"chunked":
            return HeaderInvalid("Transfer-Encoding", "`chunked` alone is understood")
        if version == "1.0":
            return HeaderInvalid("Transfer-Encoding", "there is none in HTTP/1.0")
    encoding = named.get(b"content-encoding", _PLAIN).strip().lower()
    if encoding != _PLAIN:
        return MediaTypeUnsupported(
            "Content-Encoding: none is decoded here; send the body as it is"
        )
    if _HASH in target or not (target.startswith(b"/") or _is_elsewhere(target)):
        return RequestUnreadable()
    return None


@lru_cache(maxsize=64)
def _is_host(value: bytes | None) -> bool:
    return value is not None and _HOST.fullmatch(value.strip()) is not None


def _is_elsewhere(target: bytes) -> bool:
    """Whether it is one that does not begin with a path, as proxies are sent, or `*`."""
    return target == b"*" or _ABSOLUTE.match(target) is not None
