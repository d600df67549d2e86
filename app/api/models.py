"""GET /models, GET /models/{name}."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from app.api import description
from app.api.deps import ModelName, TracerDep, WriterDep
from app.api.schemas import ModelDetail, ModelList, ModelSummary

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
