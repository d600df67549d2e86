"""What fields may hold, in bodies and paths."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import unquote

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

MAX_ITEMS = 1000
MAX_HISTORY = 4096
MAX_SKILLS = 64
LATEST_MS = 253_402_300_799_999  # the end of the year 9999
LONGEST_MS = 86_400_000  # a day

OutsideId = Annotated[
    str,
    StringConstraints(
        strict=True, min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$"
    ),
]
"""An id as a caller gives it: any text of 1 to 256 characters, none of them a control character."""

SkillIds = Annotated[list[OutsideId], Field(min_length=1, max_length=MAX_SKILLS)]
Ms = Annotated[int, Field(ge=0, le=LATEST_MS)]
ElapsedMs = Annotated[int, Field(ge=0, le=LONGEST_MS)]


def _whole(value: Any) -> Any:
    """Read 1.0 as 1: in JSON they are the same number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = BeforeValidator(_whole)


def unquoted(value: Any) -> Any:
    """Decode a path segment once; what is not UTF-8 is refused."""
    try:
        return unquote(value, errors="strict")
    except UnicodeDecodeError:
        raise PydanticCustomError("not_utf8", "UTF-8 is expected, percent-encoded") from None


PathId = Annotated[OutsideId, BeforeValidator(unquoted)]
"""An outside id in a path. Any character may stand in it, percent-encoded: `%2F` is a slash."""

HistoryVersion = Annotated[
    str,
    Field(
        description="Names this state of the user's history; the ETag of the answer, without its "
        "quotes. `00000000-0` where nothing is kept.",
        examples=["5f3a09c1-12"],
    ),
]


class Body(BaseModel):
    """A request's body: frozen, strict, and refusing unknown fields."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")
