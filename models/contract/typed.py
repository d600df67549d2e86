"""Plain values, as TOML and JSON give them, held against the types that a dataclass declares."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def check_values(declared_by: type, values: Mapping[str, Any], where: str = "") -> None:
    """Raise `ValueError` naming the first value that is not of the type its field declares.

    `where` stands before the field's name in the message; a value without a field is left alone.
    """
    hints = get_type_hints(declared_by)
    for field in dataclasses.fields(declared_by):
        if field.name not in values:
            continue
        value = values[field.name]
        if wanted := _wanted(hints[field.name], value):
            raise ValueError(f"{where}{field.name} = {value!r}: must be {wanted}")


def _wanted(declared: Any, value: Any) -> str | None:
    """Return in words what would do in place of `value`, None where it does itself."""
    origin, parts = get_origin(declared) or declared, get_args(declared)
    if origin is Any:
        return None
    if origin is Literal:
        return None if value in parts else f"one of {', '.join(map(str, parts))}"
    if origin in (Union, UnionType):
        found = [_wanted(part, value) for part in parts]
        return None if None in found else " or ".join(w for w in found if w and w != "absent")
    if origin is tuple:
        each = _WORDS.get(parts[0], "a table")
        is_list = isinstance(value, (tuple, list))
        if is_list and not any(_wanted(parts[0], item) for item in value):
            return None
        return f"a list, each of it {each}"
    if origin is type(None):
        return None if value is None else "absent"
    if isinstance(value, bool) and origin in (int, float):  # an int to Python, to nobody else
        return _WORDS[origin]
    if origin is float:
        is_number = isinstance(value, (int, float)) and math.isfinite(value)
        return None if is_number else _WORDS[float]
    return None if isinstance(value, origin) else _WORDS.get(origin, "a table")
