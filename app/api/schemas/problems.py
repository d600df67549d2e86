"""What went wrong."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class FieldError(BaseModel):
    """One place of a request that is not valid."""

    in_: Literal["body", "path", "query", "header"] = Field(alias="in")
    pointer: str = Field(
        description="JSON pointer to the place.", examples=["/items/3/question_id"]
    )
    value: str | int | bool | None = Field(description="What stood there, shortened.")
    detail: str = Field(description="What would do.")


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str = Field(description="Stable name of the kind of problem.")
    title: str
    status: int
    detail: str = Field(description="This case: the value, and what would do.")
    code: str = Field(description="The last part of `type`.")
    request_id: str | None = Field(description="Finds the request in the log.")
    errors: list[FieldError] | None = Field(
        None, description="With code request_invalid: the first places that are not valid."
    )
    retry_after_s: int | None = Field(None, description="When it makes sense to try again.")
