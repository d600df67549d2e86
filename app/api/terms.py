"""The headers that say on what terms a history may be changed (RFC 9110, section 13.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import Depends, Header
from starlette.responses import Response

from app.errors import RequestInvalid
from app.store.histories import Terms, Version

KEY_LENGTH = 255

_TAG = re.compile(r'\s*(?:(?P<weak>W/)?"(?P<text>[\x21\x23-\x7e\x80-\xff]*)"\s*)?(?:,|$)')
_SHOWN = 80  # characters


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


async def _terms(
    if_match: Annotated[
        list[str] | None,
        Header(
            description="Only where the history is in one of these versions, each in quotes; "
            "`*`: where there is one."
        ),
    ] = None,
    if_none_match: Annotated[
        list[str] | None,
        Header(
            description="Only where the history is in none of these versions; `*`: where nothing "
            "is kept of the user."
        ),
    ] = None,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=KEY_LENGTH,
            description="Names the call among the user's: repeated within 24 hours, it is answered "
            "as it was, and nothing is done.",
        ),
    ] = None,
) -> Terms:
    return Terms(
        meant=versions_of("If-Match", if_match, takes_weak=False),
        not_meant=versions_of("If-None-Match", if_none_match, takes_weak=True),
        call_key=idempotency_key,
    )


TermsDep = Annotated[Terms, Depends(_terms)]
