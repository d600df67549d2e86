"""POST /predict, POST /predict/batch."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import TypeAdapter, ValidationError
from starlette.responses import Response

from app.api import description
from app.api.bodies import body_of, bytes_of, parsed
from app.api.callers import Caller
from app.api.deps import MetricsDep, Predicts, State, TracerDep
from app.api.many import asks_of, items_written
from app.api.schemas.predictions import (
    AskFields,
    BatchAnswer,
    BatchRequest,
    Prediction,
    PredictionRequest,
    ask_of,
    stands_on_something,
)
from app.api.writing import json_of
from app.asks import Ask

router = APIRouter(tags=["predictions"])

_FIELDS: TypeAdapter[AskFields] = TypeAdapter(AskFields)

STORED = {"user_id": "u1", "question_id": "7", "asked_ms": 1_700_000_060_000}
INLINE = {
    "question_id": "7",
    "history": [
        {"question_id": "8", "correct": True},
        {"question_id": "9", "correct": False},
    ],
    "knowledge_state": False,
}


@router.post(
    "/predict",
    summary="Predict one answer",
    response_model=Prediction,
    responses=description.responses(400, 401, 403, 404, 413, 415, 422, 429, 500, 503),
    openapi_extra=description.body(
        PredictionRequest, ("stored history", STORED), ("inline history", INLINE)
    ),
)
async def predict(request: Request, caller: Predicts) -> Response:
    """How likely the user is to answer this question right, asked now.

    Nothing is recorded. An unknown question or skill is answered from what is known and listed in
    `unseen`; a user without a history is answered with the prior and flagged `cold_start`.
    """
    body = await bytes_of(request.scope, request.receive, request.state.max_body_bytes)
    content = await prediction(request.scope["state"], caller, body)
    return Response(content, media_type="application/json")


async def prediction(state: State, caller: Caller, body: bytes) -> bytes:
    """Answer a body of `POST /predict`: for the route, and for `app.api.direct` before it."""
    found = await state["rollout"].tracer.predictions.predict(caller.ask(_asked(body)))
    with state["metrics"].stage("serialize"):
        return json_of(found)


def _asked(body: bytes) -> Ask:
    """Return the ask in a body; raise `BodyUnreadable` or `FieldsInvalid`."""
    try:
        fields = _FIELDS.validate_json(body)
    except ValidationError:
        fields = None
    if fields is not None and stands_on_something(fields):
        return ask_of(fields)
    return parsed(PredictionRequest, body).to_ask()  # it says what is wrong


@router.post(
    "/predict/batch",
    summary="Predict many answers",
    response_model=BatchAnswer,
    responses=description.responses(400, 401, 403, 413, 415, 422, 429, 503),
    openapi_extra=description.body(
        BatchRequest, ("two questions", {"items": [STORED, {**STORED, "question_id": "8"}]})
    ),
)
async def predict_batch(
    caller: Predicts,
    body: Annotated[BatchRequest, Depends(body_of(BatchRequest))],
    tracer: TracerDep,
    metrics: MetricsDep,
) -> Response:
    """Up to 1,000 predictions in one call, in the order of the items.

    What is wrong with one item stands as a problem at its place and hurts no other: look for
    `status` in each.
    """
    asks = [caller.ask(ask) if isinstance(ask, Ask) else ask for ask in await asks_of(body.items)]
    found = iter(
        await tracer.predictions.predict_all([ask for ask in asks if isinstance(ask, Ask)])
    )
    answers = [next(found) if isinstance(ask, Ask) else ask for ask in asks]
    with metrics.stage("serialize"):
        content = await items_written(answers)
    return Response(content, media_type="application/json")
