"""What OpenAPI tells of bodies and problems, which routes read and write by hand."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from app.api.problems import MEDIA_TYPE
from app.api.schemas import BatchRequest, Interactions, PredictionRequest, Problem

REF = "#/components/schemas/"

_WHEN = {
    400: "The body is not JSON.",
    404: "There is no such model.",
    413: "The body is larger than `KT_MAX_BODY_BYTES`.",
    415: "The body is not said to be JSON.",
    422: "A field is absent, unknown, mistyped or out of bounds; `errors` names each.",
    429: "Too many ask, or wait, already; `Retry-After` says when to come again.",
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
            for model in (PredictionRequest, BatchRequest, Interactions, Problem):
                schema = model.model_json_schema(ref_template=REF + "{model}")
                schemas.update(schema.pop("$defs", {}))
                schemas[model.__name__] = schema
            of_batch = schemas[BatchRequest.__name__]["properties"]["items"]
            of_batch["items"] = {"$ref": REF + PredictionRequest.__name__}
            # Refusals are problems: FastAPI's own form of them is never sent.
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            document["components"]["schemas"] = dict(sorted(schemas.items()))
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
