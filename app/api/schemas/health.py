"""Whether the service lives, and is ready."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field

from app import condition
from app.api.schemas.models import ModelRef


class Liveness(BaseModel):
    """Whether the process should go on living."""

    alive: bool
    stuck_s: float | None = Field(
        description="Age of the oldest run that has not come back, 0 for none; null: for ever."
    )


class Readiness(BaseModel):
    """Whether requests may come, and the parts that decide it."""

    @staticmethod
    def content_of(found: condition.Readiness) -> dict[str, Any]:
        """Return the JSON content."""
        return {
            "ready": found.is_ready,
            "reasons": found.reasons,
            "warnings": found.warnings,
            "draining": found.draining,
            "models": found.models,
            "provider": found.provider,
            "store": found.store,
        }

    ready: bool
    reasons: list[str] = Field(description="Why not.")
    warnings: list[str] = Field(
        description="How the store may lose what it has acknowledged, or why it takes no writes."
    )
    draining: bool
    models: list[ModelRef]
    provider: Mapping[str, Any] = Field(description="Requested, effective, and why they differ.")
    store: Mapping[str, Any]
