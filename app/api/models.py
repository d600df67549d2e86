"""/models: what is served, and which versions of it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import Response

from app.api import description
from app.api.bodies import body_of
from app.api.deps import (
    UNHURRIED,
    Administers,
    Measures,
    ModelName,
    RolloutDep,
    TracerDep,
    WriterDep,
)
from app.api.schemas.models import ModelDetail, ModelList, ModelSummary, Offer, Version, Versions
from app.api.schemas.quality import Quality

router = APIRouter(prefix="/models", tags=["models"])


@router.get("", summary="List the models", response_model=ModelList)
async def models(tracer: TracerDep, write: WriterDep) -> Response:
    """Every model served, which one predicts by default, and how good each is."""
    default, knowledge = tracer.default_model, tracer.knowledge_model
    return write(
        {"models": [ModelSummary.content_of(m, default, knowledge) for m in tracer.models]}
    )


@router.get(
    "/{name}",
    summary="Describe one model",
    response_model=ModelDetail,
    responses=description.responses(404, 422),
)
async def model(name: ModelName, tracer: TracerDep, write: WriterDep) -> Response:
    """The manifest and the card of a model."""
    return write(ModelDetail.content_of(tracer.model(name)))


@router.get(
    "/{name}/versions",
    summary="List the versions of a model",
    response_model=Versions,
    responses=description.responses(401, 404, 422),
)
async def versions(name: ModelName, rollout: RolloutDep, write: WriterDep) -> Response:
    """Which version answers, which one is its candidate, and which ones could be served."""
    return write(Versions.content_of(rollout.lineup(name)))


@router.get(
    "/{name}/quality",
    summary="Tell how good the predictions of a model were",
    response_model=Quality,
    responses=description.responses(401, 403, 404, 422, 429, 500, 503),
)
async def quality(name: ModelName, _: Measures, tracer: TracerDep, write: WriterDep) -> Response:
    """Of the version that answers and of its candidate, over the newest answers.

    Each prediction served for a stored user is compared with the answer that was recorded later, by
    whichever server.
    """
    return write(Quality.content_of(await tracer.judged(name), tracer.quality))


@router.put(
    "/{name}/current",
    dependencies=[UNHURRIED],
    summary="Serve another version",
    response_model=Versions,
    responses=description.responses(400, 401, 403, 404, 413, 415, 422, 503),
    openapi_extra=description.body(Version, ("a version", {"version": "4"})),
)
async def serve(
    name: ModelName,
    _: Administers,
    body: Annotated[Version, Depends(body_of(Version))],
    rollout: RolloutDep,
    write: WriterDep,
) -> Response:
    """Open a version, prove it, and let it answer from then on; requests run on meanwhile.

    Where it cannot be served the version of before is served on, and the problem says why. It holds
    until the process ends; `KT_MODEL_VERSIONS` says which version a process begins with.
    """
    await rollout.serve(name, body.version)
    return write(Versions.content_of(rollout.lineup(name)))


@router.post(
    "/{name}/rollback",
    dependencies=[UNHURRIED],
    summary="Roll back",
    response_model=Versions,
    responses=description.responses(401, 403, 404, 422, 503),
)
async def roll_back(
    name: ModelName, _: Administers, rollout: RolloutDep, write: WriterDep
) -> Response:
    """Let the version answer that did before this one."""
    await rollout.roll_back(name)
    return write(Versions.content_of(rollout.lineup(name)))


@router.put(
    "/{name}/candidate",
    dependencies=[UNHURRIED],
    summary="Try another version",
    response_model=Versions,
    responses=description.responses(400, 401, 403, 404, 409, 413, 415, 422, 503),
    openapi_extra=description.body(
        Offer,
        ("compared only", {"version": "4", "compare": True}),
        ("for a tenth of the users", {"version": "4", "share": 0.1}),
    ),
)
async def offer(
    name: ModelName,
    _: Administers,
    body: Annotated[Offer, Depends(body_of(Offer))],
    rollout: RolloutDep,
    write: WriterDep,
) -> Response:
    """Open a version beside the one that is served: for a share of the users, or to compare.

    What is compared is asked after the answer has gone out; `kt_candidate_difference` has how far
    the two are apart.
    """
    await rollout.offer(name, body.version, share=body.share, is_compared=body.compare)
    return write(Versions.content_of(rollout.lineup(name)))


@router.delete(
    "/{name}/candidate",
    summary="Withdraw the candidate",
    response_model=Versions,
    responses=description.responses(401, 403, 404, 422),
)
async def withdraw(
    name: ModelName, _: Administers, rollout: RolloutDep, write: WriterDep
) -> Response:
    """Let nobody be answered by it any more; without one it is no error."""
    await rollout.withdraw(name)
    return write(Versions.content_of(rollout.lineup(name)))
