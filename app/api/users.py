"""/users/{user_id}: answers in, answers and knowledge state out, and everything gone."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from app.api import description
from app.api.bodies import body_of
from app.api.deps import Reads, TracerDep, UserId, WriterDep, Writes
from app.api.schemas import (
    MAX_ITEMS,
    Deleted,
    InteractionPage,
    Interactions,
    KnowledgeState,
    Recorded,
)

router = APIRouter(prefix="/users/{user_id}", tags=["users"])

ANSWERS = {
    "interactions": [
        {
            "question_id": "7",
            "correct": True,
            "asked_ms": 1_700_000_000_000,
            "elapsed_ms": 21_000,
            "event_id": "attempt-8812",
        }
    ]
}

Start = Annotated[
    int, Query(ge=0, le=2**53, description="Number of the first interaction wanted; see `next`.")
]
Limit = Annotated[int, Query(ge=1, le=MAX_ITEMS, description="Interactions in one page, at most.")]


@router.post(
    "/interactions",
    summary="Record answers",
    response_model=Recorded,
    responses=description.responses(400, 401, 403, 413, 415, 422, 429, 500, 503, 507),
    openapi_extra=description.body(Interactions, ("one answer", ANSWERS)),
)
async def record(
    user_id: UserId,
    caller: Writes,
    body: Annotated[Interactions, Depends(body_of(Interactions))],
    tracer: TracerDep,
    write: WriterDep,
) -> Response:
    """Keep 1 to 1,000 answers, oldest first, all or none.

    An answer whose `event_id` is there already is left out, which makes a retry harmless.
    """
    done = await tracer.record(caller.user(user_id), [i.to_answer() for i in body.interactions])
    return write(Recorded.content_of(done))


@router.get(
    "/interactions",
    summary="List the answers kept",
    response_model=InteractionPage,
    responses=description.responses(401, 403, 422, 429, 500, 503),
)
async def interactions(
    user_id: UserId,
    caller: Reads,
    tracer: TracerDep,
    write: WriterDep,
    start: Start = 0,
    limit: Limit = 100,
) -> Response:
    """A page of the user's answers, oldest first; `next` is the `start` of the page after it."""
    listing = await tracer.listing(caller.user(user_id), start, limit)
    return write(InteractionPage.content_of(listing))


@router.get(
    "/knowledge-state",
    summary="Tell the knowledge state",
    response_model=KnowledgeState,
    responses=description.responses(401, 403, 422, 429, 500, 503),
)
async def knowledge_state(
    user_id: UserId, caller: Reads, tracer: TracerDep, write: WriterDep
) -> Response:
    """The chance of a right answer now, for every skill, after all answers kept.

    A user never seen gets the model's prior, flagged `cold_start`.
    """
    state = await tracer.knowledge_state(caller.user(user_id))
    return write(KnowledgeState.content_of(state))


@router.delete(
    "",
    summary="Forget a user",
    response_model=Deleted,
    responses=description.responses(401, 403, 422, 429, 503),
)
async def forget(user_id: UserId, caller: Writes, tracer: TracerDep, write: WriterDep) -> Response:
    """Delete everything kept of a user, derived data too; nothing to delete is no error."""
    return write({"deleted": await tracer.forget(caller.user(user_id))})
