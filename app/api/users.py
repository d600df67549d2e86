"""/users/{user_id}: answers in; answers, knowledge state, everything out; all gone."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from starlette.responses import Response

from app.api import description
from app.api.bodies import body_of
from app.api.deps import Reads, TracerDep, UserId, WriterDep, Writes
from app.api.exporting import export_written
from app.api.schemas.answers import Amended, Amendment, InteractionPage, Interactions, Recorded
from app.api.schemas.fields import MAX_ITEMS
from app.api.schemas.knowledge import KnowledgeState
from app.api.schemas.users import Deleted, Exported
from app.api.terms import PARAMETERS, TermsDep, tagged

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
Number = Annotated[
    int, Path(ge=0, le=2**53, description="Counted from the user's very first answer, which is 0.")
]


@router.post(
    "/interactions",
    summary="Record answers",
    response_model=Recorded,
    responses=description.responses(400, 401, 403, 409, 412, 413, 415, 422, 429, 500, 503, 507),
    openapi_extra={
        **description.body(Interactions, ("one answer", ANSWERS)),
        "parameters": PARAMETERS,
    },
)
async def record(
    user_id: UserId,
    caller: Writes,
    body: Annotated[Interactions, Depends(body_of(Interactions))],
    terms: TermsDep,
    tracer: TracerDep,
    write: WriterDep,
) -> Response:
    """Keep 1 to 1,000 answers, oldest first, all or none.

    An answer whose `event_id` is there already is left out, and a call whose `Idempotency-Key` was
    there is answered as it was: either makes a retry harmless. `If-Match` with a `history_version`
    lets nobody else's answers come in between.
    """
    done = await tracer.answers.record(
        caller.user(user_id), [i.to_answer() for i in body.interactions], terms
    )
    return tagged(write(Recorded.content_of(done)), done.version)


@router.patch(
    "/interactions/{number}",
    summary="Correct a kept answer",
    response_model=Amended,
    responses=description.responses(400, 401, 403, 404, 412, 413, 415, 422, 429, 500, 503, 507),
    openapi_extra={
        **description.body(Amendment, ("answered right after all", {"correct": True})),
        "parameters": PARAMETERS,
    },
)
async def amend(
    user_id: UserId,
    number: Number,
    caller: Writes,
    body: Annotated[Amendment, Depends(body_of(Amendment))],
    terms: TermsDep,
    tracer: TracerDep,
    write: WriterDep,
) -> Response:
    """Change what one kept answer says, where it stands.

    Every prediction from then on is as if it had said so from the beginning. The history has a new
    version, whatever the change.
    """
    done = await tracer.answers.amend(caller.user(user_id), number, body.to_amendment(), terms)
    return tagged(write(Amended.content_of(done)), done.version)


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
    listing = await tracer.answers.listing(caller.user(user_id), start, limit)
    return tagged(write(InteractionPage.content_of(listing)), listing.version)


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
    state = await tracer.knowledge.of_user(caller.user(user_id))
    return tagged(write(KnowledgeState.content_of(state)), state.version)


@router.get(
    "/export",
    summary="Give out everything kept of a user",
    response_model=Exported,
    responses=description.responses(401, 403, 422, 429, 500, 503),
)
async def export(user_id: UserId, caller: Reads, tracer: TracerDep) -> Response:
    """All that the store keeps of the user, as of one moment: answers, and what was made of them.

    Of event ids and Idempotency-Keys only hashes are kept. A user never seen has an empty export.
    """
    content = await export_written(user_id, await tracer.answers.export(caller.user(user_id)))
    return Response(content, media_type="application/json")


@router.delete(
    "",
    summary="Forget a user",
    response_model=Deleted,
    responses=description.responses(401, 403, 422, 429, 503),
)
async def forget(user_id: UserId, caller: Writes, tracer: TracerDep, write: WriterDep) -> Response:
    """Delete everything kept of a user, derived data too; nothing to delete is no error."""
    return write({"deleted": await tracer.answers.forget(caller.user(user_id))})
