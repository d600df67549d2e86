"""Calls of many items: read and written a few items at a time, so that others are answered between.

An item that is not valid, or cannot be answered, is a problem at its own place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from app.api.problems import FieldsInvalid, fields_invalid, problem_of
from app.api.schemas.predictions import AskFields, PredictionRequest, ask_of, stands_on_something
from app.api.writing import json_of
from app.asks import Ask, Prediction

T = TypeVar("T")

_TOGETHER = 128

_FIELDS: TypeAdapter[list[AskFields]] = TypeAdapter(list[AskFields])


async def asks_of(items: Sequence[Any]) -> list[Ask | FieldsInvalid]:
    """Return the ask meant by each item, or at its place what is not valid in it."""
    found: list[Ask | FieldsInvalid] = []
    for first, some in _in_turns(items):
        try:
            fields = _FIELDS.validate_python(some)
        except ValidationError:  # some are wrong: told one by one
            fields = []
        if fields and all(map(stands_on_something, fields)):
            found += map(ask_of, fields)
        else:
            found += [_ask(item, place) for place, item in enumerate(some, first)]
        await asyncio.sleep(0)
    return found


async def items_written(answers: Sequence[Prediction | Exception]) -> bytes:
    """Return `{"items": [...]}`."""
    parts = []
    for _, some in _in_turns(answers):
        content = json_of([problem_of(a) if isinstance(a, Exception) else a for a in some])
        parts.append(content[1:-1])
        await asyncio.sleep(0)
    return b'{"items":[' + b",".join(parts) + b"]}"


def _in_turns(items: Sequence[T]) -> Iterator[tuple[int, Sequence[T]]]:
    for first in range(0, len(items), _TOGETHER):
        yield first, items[first : first + _TOGETHER]


def _ask(item: Any, place: int) -> Ask | FieldsInvalid:
    try:
        return PredictionRequest.model_validate(item).to_ask()
    except ValidationError as exc:
        errors = exc.errors(include_url=False, include_context=False)
        return fields_invalid({**e, "loc": ("body", "items", place, *e["loc"])} for e in errors)
