"""The headers that say on what terms a history may be changed (RFC 9110, section 13.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from fastapi import Depends, Request
from starlette.responses import Response

from app.api.problems import fields_invalid
from app.errors import RequestInvalid
from app.store.histories import FREELY, Terms, Version

KEY_LENGTH = 255

_MATCH, _NONE_MATCH, _KEY = b"if-match", b"if-none-match", b"idempotency-key"
_NAMES = frozenset({_MATCH, _NONE_MATCH, _KEY})

_TAG = re.compile(r'\s*(?:(?P<weak>W/)?"(?P<text>[\x21\x23-\x7e\x80-\xff]*)"\s*)?(?:,|$)')
_SHOWN = 80  # characters

_ONE = r'(W/)?"[\x21\x23-\x7e\x80-\xff]*"'
PATTERN = rf"^(\*|[ \t,]*{_ONE}[ \t]*(,[ \t]*({_ONE}[ \t]*)?)*)$"
"""The headers with versions, as OpenAPI tells of them."""


def versions_of(
    name: str, values: Sequence[str] | None, *, takes_weak: bool
) -> list[Version] | Literal["*"] | None:
    """Return the versions in a header, however many lines it has; None where it is not there.

    A tag that is no version of ours is that of nothing. Raises `RequestInvalid` where the header is
    neither `*` nor a list of tags.
    """
    if values is None:
        return None
    text = ",".join(values).strip()
    if text == "*":
        return "*"
    tags, at = [], 0
    while at < len(text) and (tag := _TAG.match(text, at)):
        if tag["text"] is not None:
            tags.append(tag)
        at = tag.end()
    if at < len(text) or not tags:
        raise RequestInvalid(
            f'{name} is {text[:_SHOWN]!r}; * is expected, or a history_version in quotes: "..."'
        )
    found = [Version.parsed(tag["text"]) for tag in tags if takes_weak or not tag["weak"]]
    return [version for version in found if version is not None]


def tagged(answer: Response, version: Version) -> Response:
    """Return an answer with the version of the history as its tag."""
    answer.headers["ETag"] = f'"{version}"'
    return answer


def terms_of(headers: Iterable[tuple[bytes, bytes]]) -> Terms:
    """Return the terms in a request's headers; raise `RequestInvalid` where they are none."""
    found: dict[bytes, list[str]] = {}
    for name, value in headers:
        if name in _NAMES:
            found.setdefault(name, []).append(value.decode("latin-1"))
    if not found:  # the common case
        return FREELY
    call_key = ",".join(found[_KEY]) if _KEY in found else None
    if call_key is not None and not 1 <= len(call_key) <= KEY_LENGTH:
        detail = f"1 to {KEY_LENGTH} characters are expected"
        error = {"loc": ("header", "Idempotency-Key"), "type": "length", "msg": detail}
        raise fields_invalid([{**error, "input": call_key}])
    return Terms(
        meant=versions_of("If-Match", found.get(_MATCH), takes_weak=False),
        not_meant=versions_of("If-None-Match", found.get(_NONE_MATCH), takes_weak=True),
        call_key=call_key,
    )


async def _terms(request: Request) -> Terms:
    # By hand: FastAPI would validate three headers that few requests have.
    return terms_of(request.scope["headers"])


TermsDep = Annotated[Terms, Depends(_terms)]

PARAMETERS: list[dict[str, Any]] = [
    {"name": name, "in": "header", "required": False, "description": text, "schema": schema}
    for name, text, schema in (
        (
            "If-Match",
            "Only where the history is in one of these versions, each in quotes; `*`: where there "
            "is a history.",
            {"type": "string", "pattern": PATTERN, "examples": ['"1b6a7c90-12"']},
        ),
        (
            "If-None-Match",
            "Only where the history is in none of these versions; `*`: where nothing is kept of "
            "the user.",
            {"type": "string", "pattern": PATTERN, "examples": ["*"]},
        ),
        (
            "Idempotency-Key",
            "Names the call among the user's: repeated within 24 hours, it is answered as it was, "
            "and nothing is done.",
            {"type": "string", "minLength": 1, "maxLength": KEY_LENGTH},
        ),
    )
]
"""What OpenAPI tells of them."""
