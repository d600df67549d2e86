"""Errors become `application/problem+json` (RFC 9457), here and nowhere else."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from app.errors import (
    AnswerLate,
    ArtifactInvalid,
    CandidateServed,
    CrossSite,
    DeadlinePassed,
    HistoryChanged,
    IdempotencyKeyReused,
    InteractionUnknown,
    KeyMissing,
    KeysInvalid,
    KeyUnknown,
    ModelUnknown,
    NotReady,
    Overloaded,
    ProviderUnavailable,
    RateLimited,
    RequestInvalid,
    ScopeMissing,
    ScoringFailed,
    StoreCorrupt,
    StoreFull,
    StoreNotDurable,
    StoreReadOnly,
    StoreUnavailable,
    TracerError,
    UserUnknown,
    VersionRefused,
    VersionUnknown,
)
from app.settings import SettingsInvalid
from app.telemetry import current_request

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
TYPE = "urn:ktserve:problem:"
_ERRORS_SHOWN = 20
_VALUE_SHOWN = 120  # characters


class BodyUnreadable(TracerError):
    """The body is not JSON in UTF-8."""

    code = "body_unreadable"


class BodyTooLarge(TracerError):
    """The body is larger than this service accepts."""

    code = "body_too_large"


class MediaTypeUnsupported(TracerError):
    """The body is said to be something other than JSON."""

    code = "media_type_unsupported"


class RequestUnreadable(TracerError):
    """What came is no request in HTTP/1.1."""

    code = "request_unreadable"

    def __init__(self) -> None:
        super().__init__("its first line, a header, or a part of its body is not as HTTP has it")


class HeaderInvalid(TracerError):
    """A header by which the request is read is missing, doubled, or not as HTTP has it."""

    code = "header_invalid"

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name}: {why}")


class HeadTooLarge(TracerError):
    """The head of the request is larger than this service accepts."""

    code = "head_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"its path and headers take more than {limit} bytes")


class HeadTooSlow(TracerError):
    """The head of the request took too long to come."""

    code = "head_too_slow"

    def __init__(self, limit_s: float) -> None:
        super().__init__(f"its head was not complete {limit_s:g} s after its first byte")


class FieldsInvalid(RequestInvalid):
    """Fields of the request are absent, unknown, mistyped or out of bounds."""

    def __init__(self, errors: Sequence[Mapping[str, Any]]) -> None:
        first = errors[0]
        place = f"{first['in']} {first['pointer']}".rstrip()
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        super().__init__(f"{place}: {first['detail']}{more}")
        self.errors = list(errors[:_ERRORS_SHOWN])


STATUS: dict[type[TracerError], int] = {
    RequestUnreadable: 400,
    HeaderInvalid: 400,
    BodyUnreadable: 400,
    KeyMissing: 401,
    KeyUnknown: 401,
    ScopeMissing: 403,
    CrossSite: 403,
    ModelUnknown: 404,
    VersionUnknown: 404,
    UserUnknown: 404,
    InteractionUnknown: 404,
    HeadTooSlow: 408,
    CandidateServed: 409,
    AnswerLate: 409,
    HistoryChanged: 412,
    BodyTooLarge: 413,
    MediaTypeUnsupported: 415,
    RequestInvalid: 422,
    VersionRefused: 422,
    FieldsInvalid: 422,
    IdempotencyKeyReused: 422,
    Overloaded: 429,
    RateLimited: 429,
    HeadTooLarge: 431,
    ScoringFailed: 500,
    StoreCorrupt: 500,
    ArtifactInvalid: 500,
    ProviderUnavailable: 500,
    SettingsInvalid: 500,
    KeysInvalid: 500,
    StoreUnavailable: 503,
    StoreNotDurable: 503,
    StoreReadOnly: 503,
    DeadlinePassed: 503,
    NotReady: 503,
    StoreFull: 507,
}
"""Every situation's status; a class that is not here answers as the nearest one above it."""


def problem_of(exc: Exception) -> dict[str, Any]:
    """Return the problem object of an exception, with its `status`.

    What nobody foresaw is a 500 that tells the request id and nothing else.
    """
    if not isinstance(exc, TracerError):
        return _problem(500, "internal", "The service failed in a way nobody foresaw", _APOLOGY)
    status = next((STATUS[c] for c in type(exc).__mro__ if c in STATUS), 500)
    title = (type(exc).__doc__ or exc.code).splitlines()[0].rstrip(".")
    problem = _problem(status, exc.code, title, str(exc))
    if isinstance(exc, FieldsInvalid):
        problem["errors"] = exc.errors
    if exc.retry_after_s is not None:
        problem["retry_after_s"] = exc.retry_after_s
    return problem


def response_of(problem: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """Return the answer that carries a problem."""
    headers = dict(headers or {})
    if "retry_after_s" in problem:
        headers["Retry-After"] = str(problem["retry_after_s"])
    if problem["status"] == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(
        orjson.dumps(problem), problem["status"], headers=headers, media_type=MEDIA_TYPE
    )


def fields_invalid(errors: Iterable[Mapping[str, Any]]) -> FieldsInvalid:
    """Say what pydantic found, as places in the request, each with what would do."""
    return FieldsInvalid([_error(e) for e in errors])


def install(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Answer every foreseen error of `app`, whose routes these are, as a problem."""

    async def answer_http_exception(request: Request, exc: Exception) -> Response:
        """The router's own: no such route, or not this method."""
        assert isinstance(exc, HTTPException)
        title = HTTPStatus(exc.status_code).phrase
        code = title.lower().replace(" ", "_").replace("-", "_")
        detail = _HINTS.get(exc.status_code, exc.detail)
        headers = dict(exc.headers or {})
        if exc.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            # The router tells of the first route of this path alone.
            headers["Allow"] = ", ".join(_methods(request, routes)) or headers.get("Allow", "")
        return response_of(_problem(exc.status_code, code, title, detail), headers)

    app.add_exception_handler(TracerError, _answer_tracer_error)
    app.add_exception_handler(RequestValidationError, _answer_validation_error)
    app.add_exception_handler(HTTPException, answer_http_exception)


def _methods(request: Request, routes: Sequence[BaseRoute]) -> list[str]:
    """Return the methods that a path takes."""
    path = request.scope["path"]
    matching = (r for r in routes if isinstance(r, Route) and r.path_regex.match(path))
    return sorted({method for route in matching for method in route.methods or ()})


async def _answer_tracer_error(_: Request, exc: Exception) -> Response:
    return answer_of(exc)


def answer_of(exc: Exception) -> Response:
    """Return the answer to a failure, and note in the log what is ours."""
    problem = problem_of(exc)
    if problem["status"] >= 500:
        log.warning("request_failed", extra={"code": problem["code"]})
    return response_of(problem)


async def _answer_validation_error(_: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)
    return response_of(problem_of(fields_invalid(exc.errors())))


_HINTS = {
    404: "there is nothing at this path; /docs lists what there is",
    405: "this path does not take this method; the header Allow names those it takes",
}


_APOLOGY = "Tell the operator the request id: the log has the rest under it."


def _problem(status: int, code: str, title: str, detail: str) -> dict[str, Any]:
    request = current_request.get()
    if request:
        request.problems.append(code)
    return {
        "type": TYPE + code,
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request.id if request else None,
    }


_WORDS = {
    "bool_type": "true or false is expected",
    "string_pattern_mismatch": "an id holds no control characters",
    "model_type": "an object is expected",
    "model_attributes_type": "an object is expected",
    "list_type": "a list is expected",
}


def _error(error: Mapping[str, Any]) -> dict[str, Any]:
    where, *loc = error["loc"] or ("body",)
    # Branches of a union are named with a "~" in front: they are no place in the request. A field
    # that nobody knows is one, whatever its caller has named it.
    unknown = len(loc) - 1 if error["type"] == "extra_forbidden" else None
    places = [p for i, p in enumerate(loc) if i == unknown or not str(p).startswith("~")]
    match error["type"]:
        case "missing":
            detail, value = f"{places[-1] if places else where} is needed", None
        case "extra_forbidden":
            detail, value = f"there is no field {_shown(places[-1])!r} here", None
        case kind:
            detail, value = _WORDS.get(kind, error["msg"]), _shown(error.get("input"))
    pointer = "".join("/" + _shown(str(p)).replace("~", "~0").replace("/", "~1") for p in places)
    return {"in": where, "pointer": pointer, "value": value, "detail": detail}


def _shown(value: Any) -> Any:
    """Return a value as an error can quote it: short, and always JSON."""
    match value:
        case str():
            text = value.encode(errors="replace").decode()
            return text if len(text) <= _VALUE_SHOWN else text[:_VALUE_SHOWN] + "..."
        case bool() | None:
            return value
        case int():
            return value if abs(value) < 2**53 else "a number beyond 2^53"
        case list():
            return f"a list of {len(value)}"
        case dict():
            return "an object"
        case _:
            return _shown(str(value))
