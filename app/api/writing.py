"""Answers to bytes, once."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import orjson

from app.asks import SkillVector


def json_of(content: Any) -> bytes:
    """Return the JSON of dataclasses, dicts, lists, numbers, text, and vectors over skills.

    A float32 is written with as many digits as tell it from its neighbours.
    """
    return orjson.dumps(content, _of_ours, orjson.OPT_SERIALIZE_NUMPY)


def _of_ours(value: Any) -> Any:
    if isinstance(value, SkillVector):
        return orjson.Fragment(_vector(value))
    raise TypeError(f"{type(value).__name__} has no JSON")


def _vector(vector: SkillVector) -> bytes:
    """Return `{"skill": 0.5, ...}`. The names are the same in every answer: written once."""
    numbers = orjson.dumps(vector.values, option=orjson.OPT_SERIALIZE_NUMPY)
    values: Iterable[bytes] = numbers[1:-1].split(b",") if len(vector.values) else ()
    pairs = map(bytes.__add__, _names(vector.skill_ids), values)
    return b"{" + b",".join(pairs) + b"}"


@lru_cache(maxsize=16)
def _names(skill_ids: tuple[str, ...]) -> tuple[bytes, ...]:
    return tuple(orjson.dumps(skill_id) + b":" for skill_id in skill_ids)
