"""Bodies, from bytes to validated models.

They are read by hand: pydantic takes the bytes as they come, so that they are parsed once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from app.api.problems import (
    BodyTooLarge,
    BodyUnreadable,
    MediaTypeUnsupported,
    fields_invalid,
)

M = TypeVar("M", bound=BaseModel)


def body_of(model: type[M]) -> Callable[[Request], Awaitable[M]]:
    """Return the dependency that reads a request's body as `model`.

    It raises `MediaTypeUnsupported`, `BodyTooLarge`, `BodyUnreadable` or `FieldsInvalid`.
    """

    async def read(request: Request) -> M:
        body = await bytes_of(request.scope, request.receive, request.state.max_body_bytes)
        return parsed(model, body)

    return read


def parsed(model: type[M], body: bytes) -> M:
    """Return a body as `model`; raise `BodyUnreadable` or `FieldsInvalid`."""
    try:
        return model.model_validate_json(body)
    except ValidationError as exc:
        errors = exc.errors(include_url=False, include_context=False)
        if errors[0]["type"] == "json_invalid":
            raise BodyUnreadable(f"{errors[0]['msg']}; JSON in UTF-8 is expected") from exc
        raise fields_invalid({**e, "loc": ("body", *e["loc"])} for e in errors) from exc


async def bytes_of(scope: Scope, receive: Receive, limit: int) -> bytes:
    """Return the body of a request.

    Raises `MediaTypeUnsupported` or `BodyTooLarge`, and `ClientDisconnect` where it breaks off.
    """
    kind, announced = b"", b"0"
    for name, value in scope["headers"]:
        if name == b"content-type":
            kind = value
        elif name == b"content-length":
            announced = value
    if kind != b"application/json" and not _is_json(kind.decode("latin-1")):
        raise MediaTypeUnsupported(
            f"Content-Type is {kind.decode('latin-1')[:80]!r}; "
            "send the body with `Content-Type: application/json`"
        )
    refusal = f"the body is larger than {limit} bytes; send fewer items at a time"
    if announced.isdigit() and int(announced) > limit:
        raise BodyTooLarge(refusal)
    pieces: list[bytes] = []
    length = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        pieces.append(message.get("body", b""))
        length += len(pieces[-1])
        if length > limit:
            raise BodyTooLarge(refusal)
        if not message.get("more_body", False):
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _is_json(kind: str) -> bool:
    essence = kind.partition(";")[0].strip().lower()
    return essence == "application/json" or (
        essence.startswith("application/") and essence.endswith("+json")
    )
