"""Bodies, from bytes to validated models.

They are read by hand: pydantic takes the bytes as they come, so that they are parsed once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from app.api.problems import (
    BodyTooLarge,
    BodyUnreadable,
    FieldsInvalid,
    MediaTypeUnsupported,
    fields_invalid,
)

M = TypeVar("M", bound=BaseModel)


def body_of(model: type[M]) -> Callable[[Request], Awaitable[M]]:
    """Return the dependency that reads a request's body as `model`.

    It raises `MediaTypeUnsupported`, `BodyTooLarge`, `BodyUnreadable` or `FieldsInvalid`.
    """

    async def read(request: Request) -> M:
        body = await _bytes_of(request, request.state.max_body_bytes)
        try:
            return model.model_validate_json(body)
        except ValidationError as exc:
            errors = exc.errors(include_url=False, include_context=False)
            if errors[0]["type"] == "json_invalid":
                raise BodyUnreadable(f"{errors[0]['msg']}; JSON in UTF-8 is expected") from exc
            raise fields_invalid({**e, "loc": ("body", *e["loc"])} for e in errors) from exc

    return read


async def _bytes_of(request: Request, limit: int) -> bytes:
    kind = request.headers.get("content-type", "")
    if not _is_json(kind):
        raise MediaTypeUnsupported(
            f"Content-Type is {kind[:80]!r}; send the body with `Content-Type: application/json`"
        )
    refusal = f"the body is larger than {limit} bytes; send fewer items at a time"
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > limit:
        raise BodyTooLarge(refusal)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise BodyTooLarge(refusal)
    return bytes(body)


def _is_json(kind: str) -> bool:
    essence = kind.partition(";")[0].strip().lower()
    return essence == "application/json" or (
        essence.startswith("application/") and essence.endswith("+json")
    )


def valid_items(items: list[Any], model: type[M]) -> list[M | FieldsInvalid]:
    """Return each item as `model`, or at its place what is not valid in it."""
    return [_valid_item(item, place, model) for place, item in enumerate(items)]


def _valid_item(item: Any, place: int, model: type[M]) -> M | FieldsInvalid:
    try:
        return model.model_validate(item)
    except ValidationError as exc:
        errors = exc.errors(include_url=False, include_context=False)
        return fields_invalid({**e, "loc": ("body", "items", place, *e["loc"])} for e in errors)
