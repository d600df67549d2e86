"""What OpenAPI tells of bodies and problems, which routes read and write by hand."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from app.api.problems import MEDIA_TYPE
from app.api.schemas.answers import Amendment, Interactions
from app.api.schemas.models import Offer, Version
from app.api.schemas.predictions import BatchRequest, PredictionRequest
from app.api.schemas.problems import Problem

REF = "#/components/schemas/"

_WHEN = {
    400: "The body is not JSON.",
    401: "A key is needed, and none or an unknown one was shown.",
    403: "The key lacks the scope that this needs.",
    404: "There is no such model, no such version of it, or no such interaction.",
    409: "What is asked for is so already; or an answer is late where `KT_LATE_ANSWERS` is "
    "`refuse`, and nothing was recorded.",
    412: "The history is in another version than `If-Match` or `If-None-Match` say: nothing done.",
    413: "The body is larger than `KT_MAX_BODY_BYTES`.",
    415: "The body is not said to be JSON.",
    422: "A field is absent, unknown, mistyped or out of bounds, and `errors` names each; or the "
    "`Idempotency-Key` was another call's.",
    429: "Too many ask, or wait, already, or this key asks more often than it may; `Retry-After` "
    "says when to come again.",
    500: "The model or the store has failed on this request.",
    503: "The store does not answer or takes no writes, the request took too long, or the service "
    "is starting or stopping.",
    507: "The store has no room; what it holds can still be read.",
}


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route: what each of these problems means there."""
    return {
        status: {
            "description": _WHEN.get(status, HTTPStatus(status).phrase),
            "content": {MEDIA_TYPE: {"schema": {"$ref": REF + Problem.__name__}}},
        }
        for status in statuses
    }


def body(model: type[BaseModel], *examples: tuple[str, Any]) -> dict[str, Any]:
    """Return the `openapi_extra` of a route that reads its body by hand."""
    content: dict[str, Any] = {"schema": {"$ref": REF + model.__name__}}
    if examples:
        content["examples"] = {name: {"value": value} for name, value in examples}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def complete(app: FastAPI) -> None:
    """Let `app.openapi()` tell also of the models that only hand-read bodies and problems name."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = plain()
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            for model in (
                PredictionRequest,
                BatchRequest,
                Interactions,
                Amendment,
                Version,
                Offer,
                Problem,
            ):
                schema = model.model_json_schema(ref_template=REF + "{model}")
                schemas.update(schema.pop("$defs", {}))
                schemas[model.__name__] = schema
            of_batch = schemas[BatchRequest.__name__]["properties"]["items"]
            of_batch["items"] = {"$ref": REF + PredictionRequest.__name__}
            # Refusals are problems: FastAPI's own form of them is never sent.
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            document["components"]["schemas"] = dict(sorted(schemas.items()))
            document["components"]["securitySchemes"] = {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key, where the service has a file of keys; "
                    "/livez, /readyz and this document need none.",
                }
            }
            document["security"] = [{"key": []}, {}]
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
